//! No failure makes an answer or a log repeat a token, a cookie or a session id.
//!
//! The gateway of every test logs at the highest level, and its output is searched when it ends:
//! see `world::secrets`.

use reqwest::{Method, Response, StatusCode};

use crate::{
    entra::Mode,
    world::{
        API, Kind, World, client, gateway::Gateway, login, process::until, secrets::Secrets,
        session_in, try_login,
    },
};

const SECRET_KEY: &str = "SimpleChat's key that must stay secret";

/// Text of an answer's head and body.
async fn whole(answer: Response) -> String {
    let head = format!("{:?}", answer.headers());
    format!("{head}\n{}", answer.text().await.unwrap_or_default())
}

#[tokio::test]
async fn no_refusal_repeats_what_the_caller_sent() {
    let more = [("SECRET_KEY", SECRET_KEY), ("GATEWAY_TIMEOUT_CONNECT", "1s")];
    let mut world = World::with(Kind::Redis, &more).await;
    let http = client();
    let token = world.entra.token().build();
    let session = login(&world.gateway, &token).await;
    let bad: Vec<String> =
        world.entra.every_malformed_kind().into_iter().map(|(_, token)| token).collect();
    let powerless = world.entra.token().roles(&[]).scopes("other").build();
    let other = world.entra.token().oid("cccccccc-0000-1111-2222-dddddddddddd").build();
    let settings = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let secrets = Secrets::of(&settings);

    let mut statuses = Vec::new();
    let mut tour = async |gateway: &Gateway, most: usize| {
        let routes = [
            (Method::POST, "/external/login"),
            (Method::GET, "/external/login"),
            (Method::POST, "/external/logout"),
            (Method::GET, "/external/public_documents?user_id=x"),
            (Method::GET, "/external//x"),
            (Method::GET, API),
            (Method::GET, "/gateway/nothing"),
            (Method::GET, "/.well-known/oauth-protected-resource/nothing"),
        ];
        let tokens = bad.iter().chain([&powerless, &other]);
        for (at, token) in tokens.take(most).enumerate() {
            for (method, path) in &routes {
                let request = http.request(method.clone(), gateway.url(path)).bearer_auth(token);
                let cookie = format!("session={session}; other={token}");
                let answer = request.header("cookie", cookie).send().await.unwrap();
                let status = answer.status();
                // Login and upstream return the session to its owner.
                if !status.is_success() {
                    let text = whole(answer).await;
                    let is_repeated = token.len() > 20 && text.contains(token.as_str());
                    assert!(!is_repeated, "{at} {path}: {text}");
                    assert!(!text.contains(&*session), "{at} {path}: {text}");
                    secrets.assert_absent_in(&text);
                }
                statuses.push(status);
            }
        }
    };
    tour(&world.gateway, usize::MAX).await;
    // Every dependency is unavailable.
    world.entra.set(Mode::Down);
    world.restart_gateway_without_keys().await;
    world.store.redis().freeze();
    tour(&world.gateway, 3).await;
    world.store.redis().thaw();
    for expected in [
        StatusCode::BAD_REQUEST,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::SERVICE_UNAVAILABLE,
    ] {
        assert!(statuses.contains(&expected), "no answer had {expected}");
    }
}

/// The search through the output finds a secret.
#[tokio::test]
async fn a_secret_in_the_gateways_output_is_detected() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let session = session_in(&try_login(&world.gateway, &token).await);
    until("the login is logged", async || world.gateway.process.log().contains("session created"))
        .await;
    let log = world.gateway.process.log();
    let nothing = Secrets::of(&[]);
    for secret in [&token, &session] {
        assert!(nothing.find(&format!("{log} {secret}")).is_some());
    }
}
