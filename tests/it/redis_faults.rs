//! Failures of a single Redis: login answers 503 in time, other requests work, and login recovers
//! with Redis.

use std::time::{Duration, Instant};

use crate::world::{
    Kind, Store, World, client, process::until, redis::Redis, redis::ask_at, status, try_login,
};

/// The gateway's timeout is 1.8 s; test machines are busy.
const IN_TIME: Duration = Duration::from_millis(2500);
const RECOVERY: Duration = Duration::from_secs(3);

/// Asserts that login is 503 in time and proxying works.
async fn is_refused(world: &World, token: &str, failure: &str) {
    let begun = Instant::now();
    let answer = try_login(&world.gateway, token).await;
    let took = begun.elapsed();
    assert_eq!(answer.status(), 503, "{failure}");
    assert!(answer.headers().contains_key("retry-after"), "{failure}");
    assert!(!answer.headers().contains_key("set-cookie"), "{failure}");
    assert!(took < IN_TIME, "{failure}: {took:?}");
    let begun = Instant::now();
    let proxied = client().get(world.gateway.url("/test/pid")).send().await.unwrap();
    assert_eq!(proxied.status(), 200, "{failure}");
    assert!(begun.elapsed() < RECOVERY, "{failure}: proxying took {:?}", begun.elapsed());
}

async fn recovers(world: &World, token: &str, failure: &str) {
    let begun = Instant::now();
    until("login works again", async || try_login(&world.gateway, token).await.status() == 200)
        .await;
    let took = begun.elapsed();
    println!("{failure}: recovered after {took:?}");
    assert!(took < RECOVERY, "{failure}: {took:?}");
}

fn redis(world: &mut World) -> &mut Redis {
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis
}

#[tokio::test]
async fn login_is_503_in_time_for_every_redis_failure_and_recovers() {
    let mut world = World::with(Kind::Redis, &[("GATEWAY_LOGIN_LIMIT", "off")]).await;
    let token = world.entra.token().build();
    let first = world.login(&token).await;

    for (failure, breaks, repairs) in [
        (
            "a replica that takes no writes",
            &["REPLICAOF 127.0.0.1 1"][..],
            &["REPLICAOF NO ONE"][..],
        ),
        ("out of memory", &["CONFIG SET maxmemory 1"], &["CONFIG SET maxmemory 0"]),
        (
            "another password",
            &["ACL SETUSER default resetpass >another", "CLIENT KILL USER default"],
            &["ACL SETUSER default nopass"],
        ),
    ] {
        let run_all = |lines: &[&str]| {
            for line in lines {
                world.store.redis().ask(&line.split(' ').collect::<Vec<_>>());
            }
        };
        run_all(breaks);
        is_refused(&world, &token, failure).await;
        run_all(repairs);
        recovers(&world, &token, failure).await;
    }

    redis(&mut world).freeze();
    is_refused(&world, &token, "a black hole").await;
    redis(&mut world).thaw();
    recovers(&world, &token, "a black hole").await;
    // Flask reads each session from Redis, so this works only after the recovery.
    assert_eq!(status(world.gateway.url(crate::world::API), &first).await, 200);

    redis(&mut world).end();
    is_refused(&world, &token, "connection refused").await;
    redis(&mut world).begin().await;
    recovers(&world, &token, "connection refused").await;
}

#[tokio::test]
async fn while_redis_loads_its_data_login_is_503_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().display().to_string();
    let loading = [
        ["--enable-debug-command", "yes"],
        ["--dir", &directory],
        ["--loading-process-events-interval-bytes", "1024"],
    ];
    let mut world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    *redis(&mut world) = Redis::start_with(loading.as_flattened()).await;
    let url = redis(&mut world).url();
    world.restart_gateway_with(&[("REDIS_URL", &url)]).await;
    world.login(&token).await;

    let port = redis(&mut world).port();
    ask_at(port, &["DEBUG", "POPULATE", "3000", "filler", "64"]).unwrap();
    ask_at(port, &["CONFIG", "SET", "key-load-delay", "1000"]).unwrap();
    let loads = tokio::task::spawn_blocking(move || ask_at(port, &["DEBUG", "RELOAD"]));
    until("it loads", async || {
        ask_at(port, &["GET", "filler:1"]).is_some_and(|answer| answer.contains("LOADING"))
    })
    .await;
    is_refused(&world, &token, "it loads").await;
    loads.await.unwrap();
    recovers(&world, &token, "it loads").await;
}
