//! Tokens of every bad kind that is known, judged at the moment they were made for; and what they name
//! is never asked.

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
    /// Of v1 and v2 tokens.
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
            (None, None) => panic!("{} says nothing", self.id),
        }
    }

    /// What a refusal may be: 401, and where it is no bearer token at all 400, or 431 for one that is longer
    /// than any head.
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

/// The documents of the corpus' tenant, at `URL/TENANT[/v2.0]/.well-known/openid-configuration`.
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
async fn every_token_of_the_corpus_is_judged_as_it_should_be() {
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
        let told = format!("{} {}: {guarded}, login {login}", case.category, case.id);
        let reached = upstream.take().targets;
        // HTTP takes white space off a value's end (RFC 9112 §5.1): what is left is a good token.
        let loses_its_flaw = case.category == "encoding" && authorization.ends_with([' ', '\t']);
        if case.expect == "accept" || loses_its_flaw {
            assert_eq!(guarded, 200, "{told}");
            assert_eq!(reached, [format!("/external/{number}")], "{told}");
            // Apps may not log in here, and a session of a token within the leeway would be over at once.
            let is_expired = case.id == "ok-leeway";
            assert!(if is_expired { login == 401 } else { matches!(login, 200 | 403) }, "{told}");
            accepted += 1;
        } else {
            assert!(case.may_be_refused_with(guarded), "{told}");
            assert!(case.may_be_refused_with(login) || login == 403, "{told}");
            assert!(case.status != 403 || guarded == 403, "{told}");
            assert!(reached.is_empty(), "{told}: {reached:?}");
        }
    }
    let refused = corpus.cases.len() - accepted;
    println!("{} tokens: {accepted} accepted, {refused} refused", corpus.cases.len());
    assert!(accepted >= 15 && refused >= 160, "{accepted} {refused}");
}

/// Whatever a token names, the gateway reads the documents it was configured with and nothing else.
#[tokio::test]
async fn no_connection_is_made_because_a_token_says_so() {
    let world = World::start(Kind::Files).await;
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = format!("http://{}/keys", canary.local_addr().unwrap());
    let key = Entra::stranger_jwk();
    let stranger = || world.entra.token().signed_by_stranger().kid("unheard-of");
    let tokens = [
        stranger().header("jku", there.as_str()),
        stranger().header("x5u", there.as_str()),
        stranger().header("jwk", key.clone()),
        stranger().header("x5c", key["x5c"].clone()),
        stranger().kid(&there),
        stranger().claim("iss", there.as_str()),
        stranger().header("iss", there.as_str()),
        world.entra.token().header("jku", there.as_str()).signed_by_stranger(),
        world.entra.token().claim("iss", there.as_str()),
    ];
    for token in &tokens {
        assert_eq!(try_login(&world.gateway, &token.build()).await.status(), 401);
    }
    // A good token that points there as well counts, and is not followed.
    let pointing = world.entra.token().header("jku", there.as_str()).build();
    assert_eq!(try_login(&world.gateway, &pointing).await.status(), 200);
    let came = tokio::time::timeout(crate::world::scripted::QUIET, canary.accept()).await;
    assert!(came.is_err(), "somebody connected: {came:?}");
}
