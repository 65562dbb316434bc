//! Signing keys: fetched, rotated, withdrawn, unavailable.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    entra::{Entra, Mode, OfApp, V1},
    world::{Kind, Store, alone, client, gateway::Gateway, process::until, settings, try_login},
};

async fn gateway_with(entra: &Entra, store: &Store) -> Gateway {
    Gateway::start(&settings(entra, None, store, &[])).await
}

async fn ready() -> (Gateway, Entra, Store) {
    let world = alone(Kind::Redis, &[]).await;
    world.0.wait_until_it_has_keys().await;
    world
}

async fn login(gateway: &Gateway, token: &str) -> u16 {
    try_login(gateway, token).await.status().as_u16()
}

#[tokio::test]
async fn a_new_key_is_fetched_once_for_concurrent_logins() {
    let (gateway, entra, _store) = ready().await;
    let old = entra.token().build();
    let before = entra.fetches();
    entra.rotate();
    let new = entra.token().build();
    let url = gateway.url("/external/login");
    let logins: JoinSet<_> =
        (0..20).map(|_| client().post(&url).bearer_auth(&new).send()).collect();
    let answers = logins.join_all().await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == 200), "{answers:?}");
    // One refresh reads the v2 and the v1 keys.
    assert_eq!(entra.fetches() - before, 2);
    assert_eq!(login(&gateway, &old).await, 200, "the old key is still published");
}

#[tokio::test]
async fn a_withdrawn_key_is_refused_and_unknown_keys_do_not_cause_repeated_fetches() {
    let (gateway, entra, _store) = ready().await;
    let old = entra.token().build();
    entra.rotate();
    entra.withdraw_old();
    assert_eq!(login(&gateway, &entra.token().build()).await, 200, "fetched for the unknown key");
    assert_eq!(login(&gateway, &old).await, 401, "replaced, not appended");
    let before = entra.fetches();
    for n in 0..20 {
        assert_eq!(login(&gateway, &entra.token().kid(&format!("made-up-{n}")).build()).await, 401);
    }
    assert_eq!(entra.fetches(), before, "all within the cooldown");
}

#[tokio::test]
async fn known_keys_remain_valid_during_an_entra_outage() {
    for mode in [Mode::Down, Mode::Garbage, Mode::EmptyKeys, Mode::Oversized, Mode::Redirects] {
        let (gateway, entra, _store) = ready().await;
        entra.set(mode);
        let before = entra.requests();
        // This login causes a fetch; without an answer the key may still exist.
        let unknown = entra.token().kid("unknown").build();
        assert_eq!(login(&gateway, &unknown).await, 503, "{mode:?}");
        assert!(entra.requests() > before, "{mode:?}: a fetch was tried");
        assert_eq!(login(&gateway, &entra.token().build()).await, 200, "{mode:?}");
    }
}

#[tokio::test]
async fn invalid_key_documents_are_not_used() {
    for mode in [Mode::Garbage, Mode::EmptyKeys, Mode::Oversized, Mode::Redirects] {
        let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
        entra.set(mode);
        let gateway = gateway_with(&entra, &store).await;
        until("the refresh has failed", async || {
            gateway.process.log().contains("signing keys could not be refreshed")
        })
        .await;
        assert_eq!(login(&gateway, &entra.token().build()).await, 503, "{mode:?}");
    }
}

#[tokio::test]
async fn a_login_does_not_wait_for_slow_key_documents() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    entra.set(Mode::Slow(Duration::from_mins(1)));
    let gateway = gateway_with(&entra, &store).await;
    until("the documents are requested", async || entra.requests() > 0).await;
    assert_eq!(login(&gateway, &entra.token().build()).await, 503);
}

/// The signature is the same each time; the published members of the key decide.
#[tokio::test]
async fn keys_for_another_use_or_of_another_issuer_verify_no_token() {
    for (member, value, expected) in [
        ("use", json!("sig"), 200),
        ("issuer", json!("https://login.microsoftonline.com/{tenantid}/v2.0"), 401),
        ("issuer", json!("https://login.microsoftonline.com/another/v2.0"), 401),
        ("use", json!("enc"), 401),
        ("key_ops", json!(["encrypt"]), 401),
        ("alg", json!("PS256"), 401),
        ("kty", json!("oct"), 401),
    ] {
        let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
        let mut jwk = Entra::unpublished_jwk();
        let kid = jwk["kid"].as_str().unwrap().to_owned();
        jwk[member] = value.clone();
        entra.publish_raw(jwk);
        let gateway = gateway_with(&entra, &store).await;
        gateway.wait_until_it_has_keys().await;
        assert_eq!(login(&gateway, &entra.token().build()).await, 200);
        let token = entra.token().signed_with_unpublished_key().kid(&kid).build();
        assert_eq!(login(&gateway, &token).await, expected, "{member}: {value}");
    }
}

#[tokio::test]
async fn the_v1_issuer_is_read_from_the_v1_document() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    entra.set_v1(V1::Failing);
    let gateway = gateway_with(&entra, &store).await;
    until("v2 does not wait for v1", async || login(&gateway, &entra.token().build()).await == 200)
        .await;
    assert_eq!(login(&gateway, &entra.token().v1().build()).await, 503, "not known yet");

    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    entra.set_v1(V1::Missing);
    let gateway = gateway_with(&entra, &store).await;
    gateway.wait_until_it_has_keys().await;
    let of_custom = entra
        .token()
        .v1()
        .claim("iss", json!(format!("https://sts.windows.net/{}/", crate::entra::TENANT)));
    assert_eq!(login(&gateway, &of_custom.build()).await, 200, "404 means Entra's usual one");
    assert_eq!(login(&gateway, &entra.token().v1().build()).await, 401);
}

#[tokio::test]
async fn the_gateway_starts_while_entra_is_down_and_recovers() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    entra.set(Mode::Down);
    let gateway = gateway_with(&entra, &store).await;
    assert_eq!(login(&gateway, &entra.token().build()).await, 503);
    entra.set(Mode::Up);
    let begun = tokio::time::Instant::now();
    until("keys are there", async || login(&gateway, &entra.token().build()).await == 200).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_failed_v1_refresh_does_not_discard_the_v1_issuer() {
    let (gateway, entra, _store) = ready().await;
    entra.set_v1(V1::Failing);
    entra.rotate();
    assert_eq!(login(&gateway, &entra.token().build()).await, 200, "v2 has the new key");
    entra.set_v1(V1::Present);
    assert_eq!(login(&gateway, &entra.token().v1().build()).await, 200, "v1's issuer remains");
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_cancel_the_key_refresh() {
    let (gateway, entra, _store) = ready().await;
    entra.rotate();
    entra.set(Mode::Slow(Duration::from_millis(300)));
    let token = entra.token().build();
    let head = format!(
        "POST /external/login HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
    );
    let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
    let before = entra.requests();
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    until("the refresh began", async || entra.requests() > before).await;
    drop(stream);
    assert_eq!(login(&gateway, &token).await, 200);
}

/// python-social-auth/social-core#695, AzureAD/microsoft-identity-web#2917: the keys of an app with
/// claims mapping are published at `?appid=CLIENT_ID` only.
#[tokio::test]
async fn a_key_published_only_for_the_app_verifies_tokens_of_both_versions() {
    let (gateway, entra, _store) = ready().await;
    let old = entra.token().build();
    entra.rotate_for_app();
    let before = entra.fetches();
    let (v2, v1) = (entra.token().build(), entra.token().v1().build());
    let url = gateway.url("/external/login");
    let logins: JoinSet<_> = (0..20)
        .map(|n| client().post(&url).bearer_auth(if n % 2 == 0 { &v2 } else { &v1 }).send())
        .collect();
    let answers = logins.join_all().await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == 200), "{answers:?}");
    // The tenant's v2 and v1 keys, then the app's.
    assert_eq!(entra.fetches() - before, 4, "fetched once for all callers together");
    assert_eq!(login(&gateway, &old).await, 200, "the tenant's key remains valid");

    let before = entra.requests();
    for n in 0..20 {
        assert_eq!(login(&gateway, &entra.token().kid(&format!("made-up-{n}")).build()).await, 401);
    }
    assert_eq!(entra.requests(), before, "all within the cool-down");
}

/// The key is found within the cool-down of the tenant's documents as well, which another unknown
/// key started.
#[tokio::test]
async fn a_key_of_the_app_is_found_during_the_cool_down_of_another_key() {
    let (gateway, entra, _store) = ready().await;
    entra.rotate();
    assert_eq!(login(&gateway, &entra.token().build()).await, 200, "found in the tenant's");
    entra.rotate_for_app();
    assert_eq!(login(&gateway, &entra.token().build()).await, 200, "found in the app's");
}

/// Documents of the app that are unavailable leave open whether the key exists; those that the
/// server refuses do not exist.
#[tokio::test]
async fn an_unknown_key_gets_503_while_the_app_documents_fail_and_401_if_there_are_none() {
    for (of_app, expected) in [(OfApp::Failing, 503), (OfApp::Refused, 401)] {
        let (gateway, entra, _store) = ready().await;
        entra.rotate_for_app();
        entra.set_of_app(of_app);
        assert_eq!(login(&gateway, &entra.token().build()).await, expected, "{of_app:?}");
    }
}

/// Metadata that already names the app is requested unchanged, and not twice.
#[tokio::test]
async fn metadata_that_names_the_app_is_fetched_once() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    let url = format!("{}?appid={}", entra.metadata_url(), crate::entra::CLIENT);
    entra.rotate_for_app();
    let more = [("CUSTOM_OIDC_METADATA_URL_VALUE".to_owned(), url)];
    let gateway = Gateway::start(&settings(&entra, None, &store, &more)).await;
    gateway.wait_until_it_has_keys().await;
    assert_eq!(login(&gateway, &entra.token().build()).await, 200);
    let before = entra.fetches();
    assert_eq!(login(&gateway, &entra.token().kid("made-up").build()).await, 401);
    assert_eq!(entra.fetches() - before, 2);
}

/// Like the tenant's own keys, they are refused once they are withdrawn.
#[tokio::test]
async fn keys_of_the_app_are_refreshed_in_the_background() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    // A missing v1 document is requested every few seconds, and the others with it.
    entra.set_v1(V1::Failing);
    let gateway = gateway_with(&entra, &store).await;
    until("v2 keys are there", async || login(&gateway, &entra.token().build()).await == 200).await;
    entra.rotate_for_app();
    let token = entra.token().build();
    assert_eq!(login(&gateway, &token).await, 200);
    let before = entra.fetches();
    until("the background refreshes", async || entra.fetches() > before + 3).await;
    assert_eq!(login(&gateway, &token).await, 200);
    entra.withdraw_of_app();
    until("it is refused", async || login(&gateway, &token).await == 401).await;
}
