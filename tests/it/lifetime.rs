//! Minted sessions end when they should, for all instances, and stay ended.

use std::time::Duration;

use crate::world::{
    API, Kind, Store, WithSession, World, client, process::until, session_in, status, try_login,
};

async fn logout(world: &World, session: &str) -> u16 {
    let request = client().post(world.gateway.url("/external/logout")).session(session);
    request.send().await.unwrap().status().as_u16()
}

/// Whether upstream's store still holds a record for a session.
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

async fn logout_ends_a_session_for_good(kind: Kind) {
    let mut world = World::start(kind).await;
    let session = world.login(&world.entra.token().build()).await;
    let other = world.login(&world.entra.token().build()).await;
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    assert!(is_stored(&world, &session));

    // A request in flight brings the record back when it ends.
    let slow = client().get(world.gateway.url("/test/slow?seconds=1.5")).session(&session).send();
    let slow = tokio::spawn(slow);
    until("the slow request runs", async || world.flask.log().contains("a slow request began"))
        .await;
    assert_eq!(logout(&world, &session).await, 204);
    assert_eq!(status(world.gateway.url(API), &session).await, 401);
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert!(is_stored(&world, &session), "Flask wrote it back: else this test shows nothing");
    assert_eq!(status(world.gateway.url(API), &session).await, 401);
    assert_eq!(logout(&world, &session).await, 204, "there is nothing left to end");

    world.restart_gateway().await;
    assert_eq!(status(world.gateway.url(API), &session).await, 401, "after a restart");
    assert_eq!(status(world.gateway.url(API), &other).await, 200, "others live on");
    until("the record is swept", async || !is_stored(&world, &session)).await;
}

#[tokio::test]
async fn logout_ends_a_session_in_redis_for_good() {
    logout_ends_a_session_for_good(Kind::Redis).await;
}

#[tokio::test]
async fn logout_ends_a_session_in_files_for_good() {
    logout_ends_a_session_for_good(Kind::Files).await;
}

async fn a_session_ends_with_its_id(kind: Kind) {
    let world = World::with(kind, &[("GATEWAY_SESSION_MAX_AGE", "3s")]).await;
    let second = world.another_gateway().await;
    let session = world.login(&world.entra.token().build()).await;
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    // Flask has extended the record by 31 days by now.
    until("the session is over", async || status(world.gateway.url(API), &session).await == 401)
        .await;
    assert_eq!(status(second.url(API), &session).await, 401, "for all instances");
    until("the record is swept", async || !is_stored(&world, &session)).await;

    // A later end in the id names a session that does not exist.
    let (id, end) = session.split_once('.').unwrap();
    let later = format!("{id}.{}", end.parse::<i64>().unwrap() + 3600);
    assert_eq!(status(world.gateway.url(API), &later).await, 401);
}

#[tokio::test]
async fn a_session_in_redis_ends_with_its_id() {
    a_session_ends_with_its_id(Kind::Redis).await;
}

#[tokio::test]
async fn a_session_in_files_ends_with_its_id() {
    a_session_ends_with_its_id(Kind::Files).await;
}

#[tokio::test]
async fn a_session_never_outlives_its_token() {
    let world = World::start(Kind::Files).await;
    let answer = try_login(&world.gateway, &world.entra.token().expires_in(90).build()).await;
    let body = crate::world::json(answer).await;
    assert!((85..=90).contains(&body["expires_in"].as_i64().unwrap()), "{body}");
}

async fn two_instances_share_everything(kind: Kind) {
    let world = World::start(kind).await;
    let second = world.another_gateway().await;
    let session = world.login(&world.entra.token().build()).await;
    assert_eq!(status(second.url(API), &session).await, 200);

    assert_eq!(logout(&world, &session).await, 204);
    assert_eq!(status(world.gateway.url(API), &session).await, 401, "at once where it was told");
    let told = tokio::time::Instant::now();
    until("the other has learned of it", async || second_refuses(&second, &session).await).await;
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());

    let token = world.entra.token().build();
    let (here, there) = (world.login(&token).await, crate::world::login(&second, &token).await);
    let ended = client().post(second.url("/external/logout")).bearer_auth(&token).send().await;
    assert_eq!(ended.unwrap().status(), 204, "with the token alone: all that were minted from it");
    assert_eq!(status(second.url(API), &there).await, 401);
    until("the first has learned of it", async || {
        status(world.gateway.url(API), &here).await == 401
    })
    .await;
}

/// Whether a gateway drops the cookie: upstream then sees none at all.
async fn second_refuses(gateway: &crate::world::gateway::Gateway, session: &str) -> bool {
    let echo = client().get(gateway.url("/test/echo")).session(session).send().await.unwrap();
    !echo.text().await.unwrap().to_lowercase().contains("cookie")
}

#[tokio::test]
async fn two_instances_share_everything_through_redis() {
    two_instances_share_everything(Kind::Redis).await;
}

#[tokio::test]
async fn two_instances_share_everything_through_files() {
    two_instances_share_everything(Kind::Files).await;
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
        // Directly, Flask reads it; through the gateway it is dropped.
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
async fn a_renewal_of_a_minted_cookie_is_kept_back_and_a_deletion_is_not() {
    let world = World::start(Kind::Redis).await;
    let session = world.login(&world.entra.token().build()).await;
    let answer = client().get(world.gateway.url(API)).session(&session).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("set-cookie"), "{:?}", answer.headers());
    let gone =
        client().get(world.gateway.url("/logout/local")).session(&session).send().await.unwrap();
    assert_eq!(session_in(&gone), "", "{:?}", gone.headers());
}

#[tokio::test]
async fn a_subjects_oldest_session_gives_way() {
    let world = World::with(Kind::Redis, &[("GATEWAY_SESSIONS_PER_SUBJECT", "2")]).await;
    let token = world.entra.token().build();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(world.login(&token).await);
    }
    let mut seen = Vec::new();
    for session in &sessions {
        seen.push(status(world.gateway.url(API), session).await);
    }
    assert_eq!(seen, [401, 401, 200, 200], "the oldest go");
    let other = world.entra.token().oid("00000000-0000-0000-0000-0000000000bb").build();
    world.login(&other).await;
    assert_eq!(status(world.gateway.url(API), &sessions[3]).await, 200, "others do not count");
}

async fn what_nobody_asks_for_is_swept(kind: Kind) {
    let world = World::with(kind, &[("GATEWAY_SESSION_MAX_AGE", "2s")]).await;
    let session = world.login(&world.entra.token().build()).await;
    // Flask extends the record by 31 days; then the caller is never seen again.
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    assert!(is_stored(&world, &session));
    until("the record is swept", async || !is_stored(&world, &session)).await;
    assert!(!world.gateway.process.log().contains("could not be swept"));
}

#[tokio::test]
async fn what_nobody_asks_for_is_swept_from_redis() {
    what_nobody_asks_for_is_swept(Kind::Redis).await;
}

#[tokio::test]
async fn what_nobody_asks_for_is_swept_from_files() {
    what_nobody_asks_for_is_swept(Kind::Files).await;
}

#[tokio::test]
async fn cookies_that_nobody_minted_cost_the_store_next_to_nothing() {
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
async fn a_login_that_fails_leaves_nothing_behind() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let kept = world.login(&token).await;
    world.store.redis().freeze();
    assert_eq!(try_login(&world.gateway, &token).await.status(), 503);
    world.store.redis().thaw();
    let sessions = async || world.store.redis().ask(&["KEYS", "session:*"]).lines().count();
    until("only what was kept is there", async || sessions().await == 1).await;
    until("the store is back", async || status(world.gateway.url(API), &kept).await == 200).await;
    assert_eq!(sessions().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_logins_at_once_as_many_live_as_may() {
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
async fn a_login_whose_old_session_cannot_be_ended_leaves_no_new_one() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let old = world.login(&token).await;
    // Redis refuses the end of the old one alone.
    let redis = world.store.redis();
    redis.ask(&["DEL", "gateway:ended"]);
    redis.ask(&["SET", "gateway:ended", "not a stream"]);
    let login = client().post(world.gateway.url("/external/login")).bearer_auth(&token);
    let answer = login.session(&old).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(!answer.headers().contains_key("set-cookie"));
    let sessions = async || redis.ask(&["KEYS", "session:*"]);
    until("the old one alone is there", async || sessions().await == format!("session:{old}"))
        .await;
}

#[tokio::test]
async fn a_logout_counts_even_if_nobody_waits_for_the_answer() {
    let world = World::start(Kind::Redis).await;
    for _ in 0..5 {
        let session = world.login(&world.entra.token().build()).await;
        let head = format!(
            "POST /external/logout HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\nContent-Length: 0\r\n\r\n"
        );
        let mut stream = tokio::net::TcpStream::connect(world.gateway.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
        drop(stream);
        until("it has ended", async || !is_stored(&world, &session)).await;
    }
}
