//! End of minted sessions: in time, on all instances, and permanent.

use std::time::Duration;

use crate::world::{
    API, Kind, Store, WithSession, World, client, process::until, session_in, status, try_login,
};

async fn logout(world: &World, session: &str) -> u16 {
    let request = client().post(world.gateway.url("/external/logout")).session(session);
    request.send().await.unwrap().status().as_u16()
}

/// True while upstream's store has a record of the session.
fn is_stored(world: &World, session: &str) -> bool {
    match &world.store {
        Store::Redis(redis, _) => redis.ask(&["EXISTS", &format!("session:{session}")]) == "1",
        Store::Files(_) => {
            let name = aws_lc_rs::digest::digest(
                &aws_lc_rs::digest::SHA256,
                format!("session:{session}").as_bytes(),
            );
            let name: Vec<String> = name.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            world.store.folder().join(name.concat()).exists()
        }
    }
}

async fn logout_ends_a_session_permanently(kind: Kind) {
    let mut world = World::start(kind).await;
    let session = world.login(&world.entra.token().build()).await;
    let other = world.login(&world.entra.token().build()).await;
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    assert!(is_stored(&world, &session));

    // A request in progress writes the record back when it ends.
    let slow = client().get(world.gateway.url("/test/slow?seconds=1.5")).session(&session).send();
    let slow = tokio::spawn(slow);
    until("the slow request runs", async || world.flask.log().contains("a slow request began"))
        .await;
    assert_eq!(logout(&world, &session).await, 204);
    assert_eq!(status(world.gateway.url(API), &session).await, 401);
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert!(is_stored(&world, &session), "Flask writes it back, as this test requires");
    assert_eq!(status(world.gateway.url(API), &session).await, 401);
    assert_eq!(logout(&world, &session).await, 204, "a second logout succeeds");

    world.restart_gateway().await;
    assert_eq!(status(world.gateway.url(API), &session).await, 401, "after a restart");
    assert_eq!(status(world.gateway.url(API), &other).await, 200, "others stay valid");
    until("the record is swept", async || !is_stored(&world, &session)).await;
}

#[tokio::test]
async fn logout_ends_a_session_in_redis_permanently() {
    logout_ends_a_session_permanently(Kind::Redis).await;
}

#[tokio::test]
async fn logout_ends_a_session_in_files_permanently() {
    logout_ends_a_session_permanently(Kind::Files).await;
}

async fn a_session_expires_at_the_time_in_its_id(kind: Kind) {
    let world = World::with(kind, &[("GATEWAY_SESSION_MAX_AGE", "3s")]).await;
    let second = world.another_gateway().await;
    let session = world.login(&world.entra.token().build()).await;
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    // Flask has already extended the record by 31 days.
    until("the session expires", async || status(world.gateway.url(API), &session).await == 401)
        .await;
    assert_eq!(status(second.url(API), &session).await, 401, "for all instances");
    until("the record is swept", async || !is_stored(&world, &session)).await;

    // An id with a later end names a session that does not exist.
    let (id, end) = session.split_once('.').unwrap();
    let later = format!("{id}.{}", end.parse::<i64>().unwrap() + 3600);
    assert_eq!(status(world.gateway.url(API), &later).await, 401);
}

#[tokio::test]
async fn a_session_in_redis_expires_at_the_time_in_its_id() {
    a_session_expires_at_the_time_in_its_id(Kind::Redis).await;
}

#[tokio::test]
async fn a_session_in_files_expires_at_the_time_in_its_id() {
    a_session_expires_at_the_time_in_its_id(Kind::Files).await;
}

#[tokio::test]
async fn a_session_never_outlives_its_token() {
    let world = World::start(Kind::Files).await;
    let answer = try_login(&world.gateway, &world.entra.token().expires_in(90).build()).await;
    let body = crate::world::json(answer).await;
    assert!((85..=90).contains(&body["expires_in"].as_i64().unwrap()), "{body}");
}

async fn two_instances_share_sessions_and_logouts(kind: Kind) {
    let world = World::start(kind).await;
    let second = world.another_gateway().await;
    let session = world.login(&world.entra.token().build()).await;
    assert_eq!(status(second.url(API), &session).await, 200);

    assert_eq!(logout(&world, &session).await, 204);
    assert_eq!(
        status(world.gateway.url(API), &session).await,
        401,
        "at once on the instance that ended it"
    );
    let ended_at = tokio::time::Instant::now();
    until("the other applies the logout", async || drops_cookie(&second, &session).await).await;
    assert!(ended_at.elapsed() < Duration::from_secs(2), "{:?}", ended_at.elapsed());

    let token = world.entra.token().build();
    let (here, there) = (world.login(&token).await, crate::world::login(&second, &token).await);
    let ended = client().post(second.url("/external/logout")).bearer_auth(&token).send().await;
    assert_eq!(ended.unwrap().status(), 204, "the token alone ends all its sessions");
    assert_eq!(status(second.url(API), &there).await, 401);
    until("the first applies the logout", async || {
        status(world.gateway.url(API), &here).await == 401
    })
    .await;
}

/// True if the gateway drops the cookie: upstream then receives none.
async fn drops_cookie(gateway: &crate::world::gateway::Gateway, session: &str) -> bool {
    let echo = client().get(gateway.url("/test/echo")).session(session).send().await.unwrap();
    !echo.text().await.unwrap().to_lowercase().contains("cookie")
}

#[tokio::test]
async fn two_instances_share_sessions_and_logouts_through_redis() {
    two_instances_share_sessions_and_logouts(Kind::Redis).await;
}

#[tokio::test]
async fn two_instances_share_sessions_and_logouts_through_files() {
    two_instances_share_sessions_and_logouts(Kind::Files).await;
}

#[tokio::test]
async fn logout_reads_the_cookie_in_every_spelling_that_upstream_reads() {
    let world = World::start(Kind::Redis).await;
    for spell in [
        |id: &str| format!("session=\"{id}\""),
        |id: &str| format!("a=\"b; session = {id} ; c=1"),
        |id: &str| {
            let octal: Vec<String> = id.bytes().map(|b| format!("\\{b:03o}")).collect();
            format!("session=\"{}\"", octal.concat())
        },
    ] {
        let session = world.login(&world.entra.token().build()).await;
        let cookie = spell(&session);
        // Flask accepts the cookie when asked directly; the gateway drops it.
        let ask = |url: String| {
            client().get(url).header("cookie", cookie.clone()).header("accept", "application/json")
        };
        let direct = ask(format!("{}{API}", world.flask.url())).send().await.unwrap();
        assert_eq!(direct.status(), 200, "{cookie}");
        assert_eq!(ask(world.gateway.url(API)).send().await.unwrap().status(), 401, "{cookie}");

        let logout =
            client().post(world.gateway.url("/external/logout")).header("cookie", cookie.clone());
        assert_eq!(logout.send().await.unwrap().status(), 204);
        assert_eq!(status(world.gateway.url(API), &session).await, 401, "{cookie}");
    }
}

#[tokio::test]
async fn a_minted_cookies_renewal_is_withheld_and_its_deletion_is_forwarded() {
    let world = World::start(Kind::Redis).await;
    let session = world.login(&world.entra.token().build()).await;
    let answer = client().get(world.gateway.url(API)).session(&session).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("set-cookie"), "{:?}", answer.headers());
    let deleted =
        client().get(world.gateway.url("/logout/local")).session(&session).send().await.unwrap();
    assert_eq!(session_in(&deleted), "", "{:?}", deleted.headers());
}

#[tokio::test]
async fn above_the_limit_the_oldest_sessions_of_a_subject_end() {
    let world = World::with(Kind::Redis, &[("GATEWAY_SESSIONS_PER_SUBJECT", "2")]).await;
    let token = world.entra.token().build();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(world.login(&token).await);
    }
    let mut statuses = Vec::new();
    for session in &sessions {
        statuses.push(status(world.gateway.url(API), session).await);
    }
    assert_eq!(statuses, [401, 401, 200, 200], "the oldest end");
    let other = world.entra.token().oid("00000000-0000-0000-0000-0000000000bb").build();
    world.login(&other).await;
    assert_eq!(
        status(world.gateway.url(API), &sessions[3]).await,
        200,
        "other subjects are not counted"
    );
}

async fn unused_records_are_swept(kind: Kind) {
    let world = World::with(kind, &[("GATEWAY_SESSION_MAX_AGE", "2s")]).await;
    let session = world.login(&world.entra.token().build()).await;
    // Flask extends the record by 31 days; then the caller sends no further request.
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    assert!(is_stored(&world, &session));
    until("the record is swept", async || !is_stored(&world, &session)).await;
    assert!(!world.gateway.process.log().contains("could not be swept"));
}

#[tokio::test]
async fn expired_sessions_without_further_requests_are_swept_from_redis() {
    unused_records_are_swept(Kind::Redis).await;
}

#[tokio::test]
async fn expired_sessions_without_further_requests_are_swept_from_files() {
    unused_records_are_swept(Kind::Files).await;
}

#[tokio::test]
async fn made_up_cookies_cause_few_store_commands() {
    let world = World::start(Kind::Redis).await;
    let made_up = |n: usize, end: u64| format!("session={}A.{end}", &format!("{n:0>21}")[..21]);
    let over: Vec<_> = (0..300).map(|n| made_up(n, 1)).collect();
    let ahead: Vec<_> = (0..300).map(|n| made_up(n, 4_102_444_800)).collect();
    let asked = |world: &World| {
        let stats = world.store.redis().ask(&["INFO", "commandstats"]);
        let calls =
            |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
        let of = ["cmdstat_del:", "cmdstat_get:", "cmdstat_exists:"];
        stats
            .lines()
            .filter(|line| of.iter().any(|of| line.starts_with(of)))
            .filter_map(calls)
            .sum::<u64>()
    };
    let before = asked(&world);
    for _ in 0..20 {
        let request =
            client().get(world.gateway.url("/test/pid")).header("cookie", over.join("; "));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let logout =
        client().post(world.gateway.url("/external/logout")).header("cookie", ahead.join("; "));
    assert_eq!(logout.send().await.unwrap().status(), 204);
    let cost = asked(&world) - before;
    assert!(cost < 60, "{cost} commands");
    world.login(&world.entra.token().build()).await;
}

#[tokio::test]
async fn a_failed_login_leaves_no_session() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let first = world.login(&token).await;
    world.store.redis().freeze();
    assert_eq!(try_login(&world.gateway, &token).await.status(), 503);
    world.store.redis().thaw();
    let sessions = async || world.store.redis().ask(&["KEYS", "session:*"]).lines().count();
    until("only the first session remains", async || sessions().await == 1).await;
    until("the store is back", async || status(world.gateway.url(API), &first).await == 200).await;
    assert_eq!(sessions().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_logins_leave_at_most_the_allowed_number_of_sessions() {
    let world = World::with(Kind::Redis, &[("GATEWAY_SESSIONS_PER_SUBJECT", "3")]).await;
    let token = world.entra.token().build();
    let url = world.gateway.url("/external/login");
    for round in 0..5 {
        let logins: Vec<_> =
            (0..12).map(|_| tokio::spawn(client().post(&url).bearer_auth(&token).send())).collect();
        let mut live = 0;
        let mut sessions = Vec::new();
        for login in logins {
            sessions.push(session_in(&login.await.unwrap().unwrap()));
        }
        for session in &sessions {
            live += usize::from(status(world.gateway.url(API), session).await == 200);
        }
        assert!((1..=3).contains(&live), "{live} live in round {round}");
    }
}

#[tokio::test]
async fn a_login_that_cannot_end_the_old_session_creates_no_new_one() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let old = world.login(&token).await;
    // Redis refuses only the end of the old session.
    let redis = world.store.redis();
    redis.ask(&["DEL", "gateway:ended"]);
    redis.ask(&["SET", "gateway:ended", "not a stream"]);
    let login = client().post(world.gateway.url("/external/login")).bearer_auth(&token);
    let answer = login.session(&old).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(!answer.headers().contains_key("set-cookie"));
    let sessions = async || redis.ask(&["KEYS", "session:*"]);
    until("only the old one remains", async || sessions().await == format!("session:{old}")).await;
}

#[tokio::test]
async fn a_logout_takes_effect_even_if_the_caller_disconnects() {
    let world = World::start(Kind::Redis).await;
    for _ in 0..5 {
        let session = world.login(&world.entra.token().build()).await;
        let head = format!(
            "POST /external/logout HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\nContent-Length: 0\r\n\r\n"
        );
        let mut stream = tokio::net::TcpStream::connect(world.gateway.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        drop(stream);
        until("the session has ended", async || !is_stored(&world, &session)).await;
    }
}
