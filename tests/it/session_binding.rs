//! A minted session is a handle: together with a token it is valid for the token's own subject
//! only.

use reqwest::Response;

use crate::world::{API, Kind, WithSession, World, client, process::until};

const OTHER_USER: &str = "cccccccc-0000-1111-2222-dddddddddddd";

async fn ask(world: &World, session: &str, token: Option<&str>) -> Response {
    let mut request = client().get(world.gateway.url(API)).session(session);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.header("accept", "application/json").send().await.unwrap()
}

/// Number of requests for the API route that reached upstream.
async fn requests_to_api(world: &World) -> usize {
    world.upstream_log().await.lines().filter(|line| line.contains(API)).count()
}

#[tokio::test]
async fn a_session_with_another_subjects_token_never_reaches_upstream() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    let foreign = world.entra.token().oid(OTHER_USER).build();
    let before = requests_to_api(&world).await;
    for _ in 0..2 {
        let answer = ask(&world, &session, Some(&foreign)).await;
        assert_eq!(answer.status(), 401);
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\", "), "{challenge}");
    }
    let app = world.entra.token().app_only().build();
    assert_eq!(ask(&world, &session, Some(&app)).await.status(), 401);
    assert_eq!(requests_to_api(&world).await, before);

    // Tokens of the session's subject, no token, an invalid token, and an expired token.
    let another = world.entra.token().v1().build();
    let expired = world.entra.token().oid(OTHER_USER).expires_in(-120).build();
    for token in [Some(&*token), Some(&another), None, Some("abc"), Some(&expired)] {
        assert_eq!(ask(&world, &session, token).await.status(), 200);
    }
    // Under `/external/` the guard accepts the token, but not with this session.
    let guarded = client().get(world.gateway.url("/external/test/users")).session(&session);
    let answer = guarded.bearer_auth(&foreign).send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn an_unknown_minted_session_is_401_and_never_reaches_upstream() {
    let world = World::start(Kind::Files).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    let (_, end) = session.split_once('.').unwrap();
    let made_up = format!("AAAAAAAAAAAAAAAAAAAAAA.{end}");
    let before = requests_to_api(&world).await;
    assert_eq!(ask(&world, &made_up, Some(&token)).await.status(), 401);
    assert_eq!(requests_to_api(&world).await, before);
    // The gateway does not check a browser's session.
    assert_eq!(ask(&world, &"a".repeat(43), Some(&token)).await.status(), 401);
    assert_eq!(requests_to_api(&world).await, before + 1);
}

#[tokio::test]
async fn with_required_binding_a_session_without_its_token_is_401() {
    let world = World::with(Kind::Redis, &[("GATEWAY_SESSION_BINDING", "required")]).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    let before = requests_to_api(&world).await;
    let alone = ask(&world, &session, None).await;
    assert_eq!(alone.status(), 401);
    let challenge = alone.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.starts_with("Bearer resource_metadata="), "{challenge}");
    let expired = world.entra.token().expires_in(-120).build();
    let foreign = world.entra.token().oid(OTHER_USER).build();
    for token in [&*expired, &foreign, "abc"] {
        assert_eq!(ask(&world, &session, Some(token)).await.status(), 401);
    }
    assert_eq!(requests_to_api(&world).await, before);
    assert_eq!(ask(&world, &session, Some(&token)).await.status(), 200);
    // Requests without a minted session need no token.
    let open = client().get(world.gateway.url("/static/lines.txt")).send().await.unwrap();
    assert_eq!(open.status(), 200);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_503_for_a_session_with_a_token() {
    let mut world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    // The new process has an empty session cache.
    world.restart_gateway().await;
    world.store.redis().freeze();
    let answer = ask(&world, &session, Some(&token)).await;
    world.store.redis().thaw();
    assert_eq!(answer.status(), 503);
    until("recovered", async || ask(&world, &session, Some(&token)).await.status() == 200).await;
}

#[tokio::test]
async fn a_cached_token_is_refused_after_its_expiry_or_the_withdrawal_of_its_key() {
    let world = World::start(Kind::Files).await;
    let ask = async |token: &str| {
        let request = client().get(world.gateway.url("/external/test/users")).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    let short = world.entra.token().expires_in(-57).build();
    assert_eq!(ask(&short).await, 200, "within the leeway");
    assert_eq!(ask(&short).await, 200);
    until("the token has expired", async || ask(&short).await == 401).await;

    let token = world.entra.token().build();
    assert_eq!(ask(&token).await, 200);
    world.entra.rotate();
    world.entra.withdraw_old();
    // An unknown key id makes the gateway refresh the keys.
    assert_eq!(ask(&world.entra.token().build()).await, 200);
    assert_eq!(ask(&token).await, 401, "its key was withdrawn");
}

/// Flask stores the signed-in user in the session of the request, whose id another user may know.
#[tokio::test]
async fn a_sign_in_never_changes_a_minted_session() {
    let world = World::start(Kind::Redis).await;
    let session = world.login(&world.entra.token().roles(&["ExternalApi"]).build()).await;
    let before = world.store.redis().ask(&["GET", &format!("session:{session}")]);
    for path in ["/getAToken", "//getAToken", "/%67etAToken", "/getATokenApi", "/login"] {
        let url = world.gateway.url(&format!("{path}?oid={OTHER_USER}&roles=User,Admin&name=Bee"));
        let answer = client().get(url).session(&session).send().await.unwrap();
        let sets = answer.headers().get_all("set-cookie");
        for set in sets {
            let set = set.to_str().unwrap();
            assert!(set.starts_with("session=") && !set.contains(&session), "{path}: {set}");
        }
    }
    let after = world.store.redis().ask(&["GET", &format!("session:{session}")]);
    assert_eq!(before, after, "the session is unchanged");
    let url = world.gateway.url("/admin/settings");
    assert_eq!(client().get(url).session(&session).send().await.unwrap().status(), 403);
}
