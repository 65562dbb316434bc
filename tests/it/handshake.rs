//! Login: a token becomes a session that an unmodified Flask honours.

use reqwest::header::SET_COOKIE;
use serde_json::{Value, json};

use crate::{
    entra::USER_OID,
    world::{API, Kind, WithSession, World, alone, client, json, session_in, status, try_login},
};

async fn flask_honours_a_minted_session(kind: Kind) {
    let world = World::start(kind).await;
    let token = world.entra.token().build();
    let answer = try_login(&world.gateway, &token).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let session = session_in(&answer);
    let set = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["; HttpOnly", "; Path=/", "; SameSite=Lax", "; Expires="] {
        assert!(set.contains(part), "{part} in {set}");
    }
    assert!(!set.contains("Secure"), "{set}");

    let body = json(answer).await;
    assert_eq!(body["session_created"], true);
    assert_eq!(body["session_id"], session.as_str());
    assert_eq!(body["user"]["userId"], USER_OID);
    assert!(body["user"]["displayName"].is_string() && body["user"]["email"].is_string());
    assert!((3500..=3600).contains(&body["expires_in"].as_i64().unwrap()), "{body}");
    assert!(body["expires_at"].as_str().unwrap().ends_with('Z'));
    assert!(body.get("warnings").is_none(), "{body}");

    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    assert_eq!(status(world.gateway.url("/admin/settings"), &session).await, 403);
    // Flask reads the claims that the login answered, in the token's order.
    let read = client().get(world.gateway.url("/api/user/settings")).session(&session);
    let read = json(read.send().await.unwrap()).await;
    assert_eq!(read["id"], USER_OID);
    assert_eq!(read["user"], body["claims"]);
    let stored = client().get(world.gateway.url("/test/session")).session(&session);
    let stored = json(stored.send().await.unwrap()).await;
    assert_eq!(stored["sid"], session.as_str());
    assert_eq!(stored["session"]["_permanent"], true);
    assert!(stored["session"]["last_activity_epoch"].is_i64());
}

#[tokio::test]
async fn flask_honours_a_session_minted_into_redis() {
    flask_honours_a_minted_session(Kind::Redis).await;
}

#[tokio::test]
async fn flask_honours_a_session_minted_into_files() {
    flask_honours_a_minted_session(Kind::Files).await;
}

async fn allowed_roles_reach_the_session(kind: Kind) {
    let world = World::start(kind).await;
    let token = world.entra.token().roles(&["ExternalApi"]).build();
    let answer = try_login(&world.gateway, &token).await;
    let session = session_in(&answer);
    assert_eq!(json(answer).await["warnings"], json!(["no_user_role"]));
    assert_eq!(status(world.gateway.url(API), &session).await, 403);

    // The ceiling removes Admin, and unknown roles and values of other types as well.
    let token = world.entra.token().roles(&["Admin", "ExternalApi", "User", "Owner"]).build();
    let answer = try_login(&world.gateway, &token).await;
    let session = session_in(&answer);
    assert_eq!(json(answer).await["claims"]["roles"], json!(["ExternalApi", "User"]));
    assert_eq!(status(world.gateway.url("/admin/settings"), &session).await, 403);
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
}

#[tokio::test]
async fn a_session_in_redis_has_only_the_allowed_roles_of_its_token() {
    allowed_roles_reach_the_session(Kind::Redis).await;
}

#[tokio::test]
async fn a_session_in_files_has_only_the_allowed_roles_of_its_token() {
    allowed_roles_reach_the_session(Kind::Files).await;
}

#[tokio::test]
async fn a_roles_claim_that_is_a_string_grants_no_role() {
    let world = World::with(Kind::Files, &[("GATEWAY_LOGIN_SCOPES", "access_as_user")]).await;
    let token = world.entra.token().claim("roles", json!("SuperUser")).build();
    let answer = try_login(&world.gateway, &token).await;
    let session = session_in(&answer);
    assert_eq!(json(answer).await["claims"]["roles"], json!([]));
    assert_eq!(status(world.gateway.url(API), &session).await, 403);
}

#[tokio::test]
async fn v1_tokens_and_allowed_app_only_tokens_can_log_in() {
    let world = World::with(Kind::Redis, &[("GATEWAY_LOGIN_APP_ONLY", "true")]).await;
    let answer = try_login(&world.gateway, &world.entra.token().v1().build()).await;
    assert_eq!(answer.status(), 200);
    assert!(json(answer).await["user"]["email"].is_string(), "upn replaces the e-mail");
    let answer = try_login(&world.gateway, &world.entra.token().app_only().build()).await;
    assert_eq!(answer.status(), 200);
    let body = json(answer).await;
    assert_eq!(
        (&body["user"]["displayName"], &body["user"]["email"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(body["warnings"], json!(["no_user_role"]));
}

#[tokio::test]
async fn every_login_creates_a_new_session_and_ends_the_one_sent_with_it() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let first = world.login(&token).await;
    let again =
        client().post(world.gateway.url("/external/login")).bearer_auth(&token).session(&first);
    let answer = again.send().await.unwrap();
    let second = session_in(&answer);
    assert_ne!(first, second);
    assert_eq!(status(world.gateway.url(API), &first).await, 401);
    assert_eq!(status(world.gateway.url(API), &second).await, 200);

    // Another subject's session does not end, and a session id chosen by an attacker is not
    // adopted.
    let other = world.entra.token().oid("00000000-0000-0000-0000-0000000000bb").build();
    let beside =
        client().post(world.gateway.url("/external/login")).bearer_auth(&other).session(&second);
    assert_eq!(beside.send().await.unwrap().status(), 200);
    assert_eq!(status(world.gateway.url(API), &second).await, 200);
    let chosen = "AAAAAAAAAAAAAAAAAAAAAA.4102444800";
    let fixed =
        client().post(world.gateway.url("/external/login")).bearer_auth(&token).session(chosen);
    assert_ne!(session_in(&fixed.send().await.unwrap()), chosen);
    assert_eq!(status(world.gateway.url(API), chosen).await, 401);
}

async fn flasks_own_sessions_are_untouched(kind: Kind) {
    let world = World::start(kind).await;
    let sign_in = client().get(world.gateway.url("/getAToken?roles=User,Admin&oid=x&name=Browser"));
    let answer = sign_in.send().await.unwrap();
    let session = session_in(&answer);
    assert_eq!(session.len(), 43);
    let set = answer.headers()[SET_COOKIE].to_str().unwrap();
    assert!(set.contains("Expires="), "as Flask sets it: {set}");

    let page = client().get(world.gateway.url("/chats")).session(&session).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.headers().contains_key(SET_COOKIE), "Flask renews its own");
    // Neither logout nor login of the gateway ends it.
    for path in ["/external/logout", "/external/login"] {
        let token = world.entra.token().build();
        client()
            .post(world.gateway.url(path))
            .bearer_auth(token)
            .session(&session)
            .send()
            .await
            .unwrap();
    }
    assert_eq!(status(world.gateway.url("/admin/settings"), &session).await, 200);
}

#[tokio::test]
async fn login_and_logout_do_not_change_a_browser_session_in_redis() {
    flasks_own_sessions_are_untouched(Kind::Redis).await;
}

#[tokio::test]
async fn login_and_logout_do_not_change_a_browser_session_in_files() {
    flasks_own_sessions_are_untouched(Kind::Files).await;
}

#[tokio::test]
async fn the_cookie_is_secure_for_https_callers() {
    let world = World::start(Kind::Files).await;
    let token = world.entra.token().build();
    let login = client().post(world.gateway.url("/external/login")).bearer_auth(&token);
    let answer = login.header("x-forwarded-proto", "https").send().await.unwrap();
    assert!(answer.headers()[SET_COOKIE].to_str().unwrap().ends_with("; Secure"));
}

#[tokio::test]
async fn only_pages_of_listed_origins_can_log_in() {
    let listed = "https://portal.example";
    let world = World::with(Kind::Files, &[("GATEWAY_ALLOWED_ORIGINS", listed)]).await;
    let token = world.entra.token().build();
    let url = world.gateway.url("/external/login");
    let from =
        |origin: &str| client().post(&url).bearer_auth(&token).header("origin", origin.to_owned());
    let preflight = |origin: &str| {
        client().request("OPTIONS".parse().unwrap(), &url).header("origin", origin.to_owned())
    };

    let answer = from(listed).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], listed);
    let answer = preflight(listed).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()["access-control-allow-origin"], listed);
    for foreign in ["https://evil.example", "null", "https://portal.example.evil.example"] {
        for request in [from(foreign), preflight(foreign)] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 403, "{foreign}");
            assert!(!answer.headers().contains_key("access-control-allow-origin"));
            assert!(!answer.headers().contains_key(SET_COOKIE));
        }
    }
}

#[tokio::test]
async fn the_body_of_a_login_is_ignored() {
    let world = World::start(Kind::Files).await;
    let token = world.entra.token().build();
    for body in ["", "{}", "garbage", &"x".repeat(200_000)] {
        let login = client().post(world.gateway.url("/external/login")).bearer_auth(&token);
        let answer = login.body(body.to_owned()).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{} bytes", body.len());
    }
}

#[tokio::test]
async fn a_login_does_not_wait_for_its_body() {
    let world = World::start(Kind::Files).await;
    let token = world.entra.token().build();
    let head = format!(
        "POST /external/login HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"
    );
    let begun = tokio::time::Instant::now();
    let answer = world.gateway.raw(head).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn logout_uses_the_token_when_the_cookie_is_not_a_minted_session() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    let logout = |cookie: &str| {
        client().post(world.gateway.url("/external/logout")).header("cookie", cookie.to_owned())
    };
    assert_eq!(logout("session=").send().await.unwrap().status(), 401);
    assert_eq!(logout("session=abc").bearer_auth("x.y.z").send().await.unwrap().status(), 401);
    assert_eq!(logout("session=abc").bearer_auth(&token).send().await.unwrap().status(), 204);
    assert_eq!(status(world.gateway.url(API), &session).await, 401);
}

/// az-hop#1776: guests' tokens may contain `unique_name` only.
#[tokio::test]
async fn the_email_is_the_first_non_empty_string_of_four_claims() {
    let (gateway, entra, _store) = alone(Kind::Redis, &[]).await;
    gateway.wait_until_it_has_keys().await;
    let names = ["preferred_username", "email", "upn", "unique_name"];
    for (values, expected) in [
        ([json!("p"), json!("e"), json!("u"), json!("n")], json!("p")),
        ([json!(""), json!("e"), json!("u"), json!("n")], json!("e")),
        ([json!(5), json!(null), json!("u"), json!("n")], json!("u")),
        ([json!(" "), json!(""), json!(["u"]), json!("n")], json!("n")),
        ([json!(""), json!(""), json!(""), json!("")], Value::Null),
    ] {
        let claims = names.into_iter().zip(values.clone());
        let token = claims.fold(entra.token(), |token, (name, value)| token.claim(name, value));
        let answer = try_login(&gateway, &token.build()).await;
        assert_eq!(json(answer).await["user"]["email"], expected, "{values:?}");
    }
}
