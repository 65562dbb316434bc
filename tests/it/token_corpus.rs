//! Tokens of every known invalid kind, verified at the time they were made for. URLs that they name
//! are never requested.

use axum::{Json, Router, http::Uri, routing::get};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    entra::Entra,
    world::{
        Kind, Store, World, flask::in_repository, gateway::Gateway, process::until,
        recorder::Recorder, settings, try_login,
    },
};

#[derive(Deserialize)]
struct Corpus {
    now: i64,
    expected: Expected,
    jwks: Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Expected {
    tenant: String,
    client_id: String,
    /// Issuers of v1 and v2 tokens.
    issuers: [String; 2],
}

#[derive(Deserialize)]
struct Case {
    id: String,
    category: String,
    expect: String,
    status: u16,
    token: Option<String>,
    /// The whole header, in place of a token.
    authorization: Option<String>,
}

impl Case {
    fn authorization(&self) -> String {
        match (&self.authorization, &self.token) {
            (Some(header), _) => header.clone(),
            (None, Some(token)) => format!("Bearer {token}"),
            (None, None) => panic!("{} has neither token nor header", self.id),
        }
    }

    /// Allowed statuses of a refusal: 401; for a value that is no bearer token 400; for one longer
    /// than any head 431.
    fn may_be_refused_with(&self, status: u16) -> bool {
        let token = self.token.as_deref().unwrap_or_default();
        let in_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let is_b64token = !token.trim_end_matches('=').is_empty()
            && token.trim_end_matches('=').chars().all(in_token);
        let is_bearer = self.authorization().to_ascii_lowercase().starts_with("bearer");
        match status {
            401 => true,
            403 => self.status == 403,
            400 => is_bearer && !is_b64token,
            431 => token.len() > 60_000,
            _ => false,
        }
    }
}

/// Documents of the corpus' tenant, at `URL/TENANT[/v2.0]/.well-known/openid-configuration`.
async fn publish(corpus: &Corpus) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let [v1, v2] = corpus.expected.issuers.clone();
    let (keys, jwks_uri) = (corpus.jwks.clone(), format!("{url}/keys"));
    let router = Router::new().route("/keys", get(async move || Json(keys))).fallback(
        async move |uri: Uri| {
            let issuer = if uri.path().contains("/v2.0/") { v2 } else { v1 };
            Json(json!({"issuer": issuer, "jwks_uri": jwks_uri}))
        },
    );
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn every_token_of_the_corpus_gets_its_expected_answer() {
    let file = std::fs::read(in_repository("tests/data/tokens.json")).unwrap();
    let corpus: Corpus = serde_json::from_slice(&file).unwrap();
    let identity = publish(&corpus).await;
    let tenant = &corpus.expected.tenant;
    let metadata = format!("{identity}/{tenant}/v2.0/.well-known/openid-configuration");
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    let upstream = Recorder::start().await;
    let more = [
        ("TENANT_ID", tenant.as_str()),
        ("CLIENT_ID", &corpus.expected.client_id),
        ("CUSTOM_IDENTITY_URL_VALUE", &identity),
        ("CUSTOM_OIDC_METADATA_URL_VALUE", &metadata),
        ("GATEWAY_UPSTREAM_URL", &upstream.url),
        ("GATEWAY_LOGIN_FAILURE_LIMIT", "off"),
        ("STOPPED_CLOCK", &corpus.now.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let gateway = Gateway::start(&settings(&entra, None, &store, &more)).await;
    gateway.wait_until_it_has_keys().await;
    until("upstream answered", async || gateway.is_ready().await).await;
    upstream.take();

    let mut accepted = 0;
    for (number, case) in corpus.cases.iter().enumerate() {
        let authorization = case.authorization();
        let ask = async |line: &str| {
            let request = format!(
                "{line} HTTP/1.1\r\nHost: gw\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
            );
            let answer = gateway.raw(request).await;
            answer.get(9..12).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0)
        };
        let guarded = ask(&format!("GET /external/{number}")).await;
        let login = ask("POST /external/login").await;
        let description = format!("{} {}: {guarded}, login {login}", case.category, case.id);
        let reached = upstream.take().targets;
        // HTTP strips white space at a value's end (RFC 9112 §5.1), which leaves a valid token.
        let becomes_valid = case.category == "encoding" && authorization.ends_with([' ', '\t']);
        if case.expect == "accept" || becomes_valid {
            assert_eq!(guarded, 200, "{description}");
            assert_eq!(reached, [format!("/external/{number}")], "{description}");
            // Apps may not log in here, and a session of a token within the leeway would have
            // expired.
            let is_expired = case.id == "ok-leeway";
            assert!(
                if is_expired { login == 401 } else { matches!(login, 200 | 403) },
                "{description}"
            );
            accepted += 1;
        } else {
            assert!(case.may_be_refused_with(guarded), "{description}");
            assert!(case.may_be_refused_with(login) || login == 403, "{description}");
            assert!(case.status != 403 || guarded == 403, "{description}");
            assert!(reached.is_empty(), "{description}: {reached:?}");
        }
    }
    let refused = corpus.cases.len() - accepted;
    println!("{} tokens: {accepted} accepted, {refused} refused", corpus.cases.len());
    assert!(accepted >= 15 && refused >= 160, "{accepted} {refused}");
}

/// The gateway reads only the configured documents, whatever URL a token names.
#[tokio::test]
async fn no_connection_is_made_to_a_url_in_a_token() {
    let world = World::start(Kind::Files).await;
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", canary.local_addr().unwrap());
    let key = Entra::unpublished_jwk();
    let unpublished = || world.entra.token().signed_with_unpublished_key().kid("unknown");
    let tokens = [
        unpublished().header("jku", url.as_str()),
        unpublished().header("x5u", url.as_str()),
        unpublished().header("jwk", key.clone()),
        unpublished().header("x5c", key["x5c"].clone()),
        unpublished().kid(&url),
        unpublished().claim("iss", url.as_str()),
        unpublished().header("iss", url.as_str()),
        world.entra.token().header("jku", url.as_str()).signed_with_unpublished_key(),
        world.entra.token().claim("iss", url.as_str()),
    ];
    for token in &tokens {
        assert_eq!(try_login(&world.gateway, &token.build()).await.status(), 401);
    }
    // A valid token that names the URL is accepted; the URL is not requested.
    let pointing = world.entra.token().header("jku", url.as_str()).build();
    assert_eq!(try_login(&world.gateway, &pointing).await.status(), 200);
    let connection = tokio::time::timeout(crate::world::scripted::QUIET, canary.accept()).await;
    assert!(connection.is_err(), "the gateway connected: {connection:?}");
}
