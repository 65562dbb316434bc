//! Login limits: logins by subject, failures by address, on all instances together.

use reqwest::Response;

use crate::world::{Kind, World, client, gateway::Gateway, json, process::until, try_login};

async fn from(gateway: &Gateway, address: &str, token: &str) -> Response {
    let request = client().post(gateway.url("/external/login")).bearer_auth(token);
    request.header("x-forwarded-for", address).send().await.unwrap()
}

fn retry_after(answer: &Response) -> u64 {
    answer.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

async fn logins_of_a_subject_are_limited(kind: Kind) {
    let world = World::with(kind, &[("GATEWAY_LOGIN_LIMIT", "3/3s")]).await;
    let token = world.entra.token().build();
    for _ in 0..3 {
        assert_eq!(try_login(&world.gateway, &token).await.status(), 200);
    }
    let refused = try_login(&world.gateway, &token).await;
    assert_eq!(refused.status(), 429);
    assert!((1..=3).contains(&retry_after(&refused)));
    assert!(!refused.headers().contains_key("www-authenticate"));
    assert!(!refused.headers().contains_key("set-cookie"));
    assert_eq!(json(refused).await["status"], 429);
    let other = world.entra.token().oid("cccccccc-0000-1111-2222-dddddddddddd").build();
    assert_eq!(try_login(&world.gateway, &other).await.status(), 200, "other subjects can log in");
    until("the window ends", async || try_login(&world.gateway, &token).await.status() == 200)
        .await;
}

#[tokio::test]
async fn logins_of_a_subject_are_limited_with_file_sessions() {
    logins_of_a_subject_are_limited(Kind::Files).await;
}

#[tokio::test]
async fn logins_of_a_subject_are_limited_with_redis_sessions() {
    logins_of_a_subject_are_limited(Kind::Redis).await;
}

#[tokio::test]
async fn instances_share_login_limits_through_redis() {
    let limits = [("GATEWAY_LOGIN_LIMIT", "3/1m"), ("GATEWAY_LOGIN_FAILURE_LIMIT", "3/1m")];
    let world = World::with(Kind::Redis, &limits).await;
    let second = world.another_gateway().await;
    let token = world.entra.token().build();
    for gateway in [&world.gateway, &second, &world.gateway] {
        assert_eq!(try_login(gateway, &token).await.status(), 200);
    }
    let refused = try_login(&second, &token).await;
    assert_eq!(refused.status(), 429);
    assert!(retry_after(&refused) > 50);

    let forged = world.entra.token().signed_with_unpublished_key().build();
    for gateway in [&world.gateway, &second, &second] {
        assert_eq!(from(gateway, "203.0.113.9", &forged).await.status(), 401);
    }
    assert_eq!(from(&world.gateway, "203.0.113.9", &forged).await.status(), 429);
    // The second instance has counted only two failures itself; the store has counted more.
    let other = world.entra.token().oid("cccccccc-0000-1111-2222-dddddddddddd").build();
    assert_eq!(from(&second, "203.0.113.9", &other).await.status(), 429);
    assert_eq!(from(&second, "203.0.113.10", &other).await.status(), 200);
    let keys = world.store.redis().ask(&["KEYS", "*"]);
    assert!(!keys.lines().any(|key| key.starts_with("session:") && key.contains("203")), "{keys}");
}

#[tokio::test]
async fn only_an_address_that_failed_too_often_is_refused() {
    let world = World::with(Kind::Files, &[("GATEWAY_LOGIN_FAILURE_LIMIT", "4/3s")]).await;
    let good = world.entra.token().build();
    let forged = world.entra.token().signed_with_unpublished_key().build();
    let unauthorized = world.entra.token().roles(&[]).scopes("other").build();
    let here = "2001:db8:1:2::1";
    // A request without credentials is not a failure: clients send it to find the metadata.
    for _ in 0..6 {
        let request = client().post(world.gateway.url("/external/login"));
        let answer = request.header("x-forwarded-for", here).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    for (token, status) in [(&*forged, 401), (&unauthorized, 403), ("a b", 400), (&forged, 401)] {
        assert_eq!(from(&world.gateway, here, token).await.status(), status);
    }
    let keys = world.entra.fetches();
    for token in [&forged, &good, &world.entra.token().kid("unseen").build()] {
        let refused = from(&world.gateway, here, token).await;
        assert_eq!(refused.status(), 429);
        assert!((1..=3).contains(&retry_after(&refused)));
    }
    assert_eq!(world.entra.fetches(), keys, "tokens of a refused address are not verified");
    assert_eq!(from(&world.gateway, "2001:db8:1:2:ffff::9", &good).await.status(), 429, "its /64");
    assert_eq!(from(&world.gateway, "2001:db8:1:3::1", &good).await.status(), 200);
    until("the window ends", async || from(&world.gateway, here, &good).await.status() == 200)
        .await;
}

#[tokio::test]
async fn failures_are_counted_locally_while_the_store_is_unavailable() {
    let world = World::with(Kind::Redis, &[("GATEWAY_LOGIN_FAILURE_LIMIT", "2/1m")]).await;
    world.store.redis().freeze();
    let forged = world.entra.token().signed_with_unpublished_key().build();
    for status in [401, 401, 429] {
        let begun = std::time::Instant::now();
        let answer = from(&world.gateway, "203.0.113.9", &forged).await;
        assert_eq!(answer.status(), status);
        assert!(begun.elapsed().as_millis() < 1000, "{:?}", begun.elapsed());
    }
    world.store.redis().thaw();
}

#[tokio::test]
async fn login_limits_can_be_turned_off() {
    let off = [("GATEWAY_LOGIN_LIMIT", "off"), ("GATEWAY_LOGIN_FAILURE_LIMIT", "off")];
    let world = World::with(Kind::Redis, &off).await;
    let forged = world.entra.token().signed_with_unpublished_key().build();
    for _ in 0..70 {
        assert_eq!(from(&world.gateway, "203.0.113.9", &forged).await.status(), 401);
    }
    assert_eq!(
        from(&world.gateway, "203.0.113.9", &world.entra.token().build()).await.status(),
        200
    );
}
