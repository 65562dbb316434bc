//! Delivery of the activity log: every answered login is recorded exactly once while the database
//! is unavailable, hangs or is locked by another client, and when the gateway stops or is killed.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::world::{
    client,
    database::{BOTH, Database, DatabaseKind},
    gateway::Gateway,
    json,
    logins::{Logins, WITHOUT_LIMITS, missing},
    postgres::Postgres,
    process::until,
    recorded::{ENABLE, MANAGED, Recorded},
    relay::{Relay, RelayState},
    try_login,
};

/// Callers and the pause between their logins: some hundred logins per second.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);

fn urls(gateways: &[&Gateway]) -> Vec<String> {
    gateways.iter().map(|gateway| gateway.url("/external/login")).collect()
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    WITHOUT_LIMITS.iter().chain(more).copied().collect()
}

/// `degraded` entries of the readiness detail on the ops listener.
async fn degraded(gateway: &Gateway) -> Vec<Value> {
    let url = gateway.ops_url("/health/ready").unwrap();
    let answer = client().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "a shared outage does not make a replica unready");
    json(answer).await["degraded"].as_array().unwrap().clone()
}

async fn is_degraded(gateway: &Gateway) -> bool {
    degraded(gateway).await.iter().any(|it| it["part"] == "database")
}

async fn assert_all_recorded(database: &Database, sessions: &[String]) {
    until("all answered logins are recorded", async || missing(database, sessions).0.is_empty())
        .await;
    assert_eq!(missing(database, sessions).1, 0, "each login is recorded once");
}

/// Waits until `more` further logins have been answered.
async fn wait_for_logins(logins: &Logins, more: usize) {
    let before = logins.count();
    until("logins continue", async || logins.count() >= before + more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_outage_of_ten_seconds_loses_no_record_and_refuses_no_login() {
    for kind in BOTH {
        let mut ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&with(&[])).await;
        let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
        wait_for_logins(&logins, 100).await;
        let before = logins.count();
        let (begun, outage) = (Instant::now(), ground.database.make_unavailable().await);
        if kind == DatabaseKind::Postgres {
            until("readiness reports the outage", async || is_degraded(&gateway).await).await;
        }
        wait_for_logins(&logins, 200).await;
        tokio::time::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed())).await;
        let meanwhile = logins.count() - before;
        ground.database.make_available(outage).await;
        wait_for_logins(&logins, 100).await;
        let answers = logins.end().await;
        assert_all_recorded(&ground.database, &answers.sessions).await;
        until("readiness reports no outage", async || !is_degraded(&gateway).await).await;
        println!(
            "{kind:?}: {} logins, {meanwhile} of them during the outage",
            answers.sessions.len()
        );
        assert!(answers.others.is_empty(), "{kind:?}: {:?}", answers.others);
        assert_eq!(
            ground.database.count("activity WHERE kind = 'login'"),
            answers.sessions.len(),
            "{kind:?}: no other login is recorded"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_database_server_loses_no_record_and_refuses_no_login() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    let gateway = ground.gateway(&with(&[])).await;
    let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
    wait_for_logins(&logins, 100).await;
    postgres.freeze();
    until("readiness reports the outage", async || is_degraded(&gateway).await).await;
    wait_for_logins(&logins, 100).await;
    postgres.thaw();
    let begun = Instant::now();
    until("readiness reports no outage", async || !is_degraded(&gateway).await).await;
    println!("recovered {:.0?} after the server resumed", begun.elapsed());
    wait_for_logins(&logins, 100).await;
    let answers = logins.end().await;
    assert_all_recorded(&ground.database, &answers.sessions).await;
    assert!(answers.others.is_empty(), "{:?}", answers.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_database_connections_are_replaced() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    let relay = Relay::start(postgres.address()).await;
    let url = postgres.url().replace(&postgres.address(), &relay.address().to_string());
    let gateway = ground.gateway(&with(&[("DATABASE_URL", &url), MANAGED])).await;
    ground.command(ENABLE).await;
    until("external access is on", async || {
        let metadata = gateway.url("/.well-known/oauth-protected-resource");
        client().get(metadata).send().await.unwrap().status() == 200
    })
    .await;
    let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
    let written = || ground.database.count("activity WHERE kind = 'login'");
    let waiting = || postgres.ask("SELECT count(*) FROM pg_locks WHERE NOT granted");
    // More often than the pool has connections; each time one falls silent during a write.
    for _ in 0..6 {
        let holder = postgres.hold("activity");
        until("a writer waits", async || waiting() != "0").await;
        relay.set(RelayState::Forgotten).await;
        until("readiness reports the outage", async || is_degraded(&gateway).await).await;
        postgres.release_lock(holder);
        let before = written();
        until("records are written again", async || written() > before + 50).await;
    }
    until("readiness reports no outage", async || !is_degraded(&gateway).await).await;
    assert_eq!(ground.command("access status").await.lines().count(), 2);
    wait_for_logins(&logins, 50).await;
    let answers = logins.end().await;
    assert_all_recorded(&ground.database, &answers.sessions).await;
    assert!(answers.others.is_empty(), "{:?}", answers.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_database_crashes_lose_no_record() {
    let mut ground = Recorded::start(DatabaseKind::Postgres).await;
    let gateway = ground.gateway(&with(&[])).await;
    let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
    for _ in 0..4 {
        wait_for_logins(&logins, 50).await;
        let Database::Postgres(postgres) = &mut ground.database else { unreachable!() };
        // Some crashes fall between a commit and its confirmation.
        postgres.crash().await;
        postgres.start_again().await;
    }
    wait_for_logins(&logins, 50).await;
    let answers = logins.end().await;
    assert_all_recorded(&ground.database, &answers.sessions).await;
    assert!(answers.others.is_empty(), "{:?}", answers.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_activity_required_all_logins_are_refused_while_the_database_is_unavailable() {
    for kind in BOTH {
        let mut ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&with(&[("GATEWAY_ACTIVITY_REQUIRED", "all")])).await;
        let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
        wait_for_logins(&logins, 100).await;
        let outage = ground.database.make_unavailable().await;
        let token = ground.entra.token().build();
        let refused = async || try_login(&gateway, &token).await;
        until("logins are refused", async || refused().await.status() == 503).await;
        // Logins in progress when the outage began have finished by then: each waits at most 1.5 s
        // for its record.
        let denied = || logins.answers().others.get(&503).copied().unwrap_or_default();
        until("callers are refused as well", async || denied() >= 3 * CALLERS).await;
        let before = logins.count();
        for _ in 0..5 {
            let begun = Instant::now();
            let answer = refused().await;
            assert_eq!(answer.status(), 503, "{kind:?}");
            assert!(answer.headers().contains_key("retry-after"), "{kind:?}");
            assert!(!answer.headers().contains_key("set-cookie"), "{kind:?}");
            assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        }
        assert_eq!(logins.count(), before, "{kind:?}: no login succeeds");
        ground.database.make_available(outage).await;
        wait_for_logins(&logins, 100).await;
        let answers = logins.end().await;
        assert_all_recorded(&ground.database, &answers.sessions).await;
        assert_eq!(answers.others.keys().collect::<Vec<_>>(), [&503], "{kind:?}");
        // Refused callers have no session either.
        let live: Vec<String> = ground
            .documents("sessions list --json --limit 1000000")
            .await
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        let unanswered: Vec<_> = live.iter().filter(|id| !answers.sessions.contains(id)).collect();
        // The first login of this test itself, before the outage was detected.
        assert!(unanswered.len() <= 1, "{kind:?}: {unanswered:?}");
        assert!(live.len() >= answers.sessions.len(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_refused_while_they_cannot_be_recorded() {
    for kind in BOTH {
        let mut ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&with(&[MANAGED])).await;
        let outage = ground.database.make_unavailable().await;
        let output = ground.try_command(ENABLE, &[MANAGED]).await;
        assert_eq!(output.status.code(), Some(69), "{kind:?}");
        ground.database.make_available(outage).await;
        let state = ground.database.count("access WHERE since IS NULL");
        assert_eq!(state, 1, "{kind:?}: the state is unchanged");
        assert_eq!(ground.database.count("activity WHERE actor_name = 'Ada'"), 0, "{kind:?}");
        until("readiness reports no outage", async || !is_degraded(&gateway).await).await;
        ground.command(ENABLE).await;
        let token = ground.entra.token().build();
        until("external access is on", async || try_login(&gateway, &token).await.status() == 200)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_activity_required_none_logins_succeed_without_a_database() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let none = with(&[
        ("GATEWAY_ACTIVITY_REQUIRED", "none"),
        ("DATABASE_URL", "postgres://nobody:nothing@127.0.0.1:1/nothing"),
    ]);
    let gateway = ground.gateway(&none).await;
    let token = ground.entra.token().build();
    for _ in 0..20 {
        assert_eq!(try_login(&gateway, &token).await.status(), 200);
    }
    until("readiness reports the outage", async || is_degraded(&gateway).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_or_killed_gateway_has_recorded_every_answered_login() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        for signal in ["TERM", "KILL"] {
            let mut gateway = ground.gateway(&with(&[])).await;
            let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
            wait_for_logins(&logins, 100).await;
            gateway.process.signal(signal);
            let ended = gateway.process.ended().await;
            if signal == "TERM" {
                assert_eq!(ended.code(), Some(0), "{kind:?}");
            }
            let answers = logins.end().await;
            let (lost, twice) = missing(&ground.database, &answers.sessions);
            assert!(lost.is_empty() && twice == 0, "{kind:?} {signal}: {lost:?} {twice}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_writes_queued_records_and_logs_those_it_cannot_write() {
    let mut ground = Recorded::start(DatabaseKind::Postgres).await;
    let mut gateway = ground.gateway(&with(&[])).await;
    let token = ground.entra.token().build();
    let outage = ground.database.make_unavailable().await;
    until("readiness reports the outage", async || is_degraded(&gateway).await).await;
    let login = crate::world::login(&gateway, &token).await;
    let begun = Instant::now();
    gateway.process.signal("TERM");
    // During shutdown.
    tokio::time::sleep(Duration::from_millis(500)).await;
    ground.database.make_available(outage).await;
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    println!("stopped after {:.0?}", begun.elapsed());
    let handle = crate::world::logins::handle(&login);
    let (lost, twice) = missing(&ground.database, std::slice::from_ref(&handle));
    assert!(lost.is_empty() && twice == 0, "{lost:?}");

    let mut gateway = ground.gateway(&with(&[])).await;
    let _outage = ground.database.make_unavailable().await;
    until("readiness reports the outage", async || is_degraded(&gateway).await).await;
    let login = crate::world::login(&gateway, &token).await;
    let begun = Instant::now();
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let log = gateway.process.log();
    assert!(log.contains("could not be written"), "{log}");
    let line = log.lines().find(|line| line.contains(&crate::world::logins::handle(&login)));
    assert!(
        line.is_some_and(|line| line.contains("login")),
        "the unwritten record is logged: {log}"
    );
}

#[tokio::test]
async fn startup_does_not_wait_for_an_unavailable_database() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    // Migrated beforehand, so that the start is not delayed by it.
    assert_eq!(ground.try_command("migrate", &[]).await.status.code(), Some(0));
    postgres.freeze();
    for more in [&[][..], &[("DATABASE_URL", "postgres://u:nothing-at-all@127.0.0.1:1/d")]] {
        let begun = Instant::now();
        let gateway = Gateway::start(&ground.settings(more)).await;
        let took = begun.elapsed();
        until("the gateway is ready", async || gateway.is_ready().await).await;
        println!("listens after {took:.0?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        until("readiness reports the outage", async || is_degraded(&gateway).await).await;
    }
    postgres.thaw();
}

#[tokio::test]
async fn logins_are_refused_until_the_blocks_have_been_read_once() {
    let mut ground = Recorded::start(DatabaseKind::Postgres).await;
    assert_eq!(ground.try_command("migrate", &[]).await.status.code(), Some(0));
    let outage = ground.database.make_unavailable().await;
    let gateway = ground.gateway(&with(&[])).await;
    let token = ground.entra.token().build();
    let answer = try_login(&gateway, &token).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    ground.database.make_available(outage).await;
    until("logins continue", async || try_login(&gateway, &token).await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_disconnect_leave_no_session_without_a_record() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let to_redis = Relay::start(ground.store.redis().address()).await;
    let url = format!("redis://{}/0", to_redis.address());
    let gateway = ground.gateway(&with(&[("REDIS_URL", &url)])).await;
    let token = ground.entra.token().build();
    to_redis.set(RelayState::Slow(Duration::from_millis(150))).await;
    let mut callers = JoinSet::new();
    for number in 0..40 {
        let request = client().post(gateway.url("/external/login")).bearer_auth(&token);
        callers.spawn(request.timeout(Duration::from_millis(number * 25)).send());
    }
    while callers.join_next().await.is_some() {}
    to_redis.set(RelayState::Open).await;
    // Returns after all earlier logins.
    crate::world::login(&gateway, &token).await;
    let listed = ground.documents("sessions list --json --limit 1000").await;
    let listed: Vec<String> =
        listed.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    println!("{} sessions of 41 callers", listed.len());
    assert_all_recorded(&ground.database, &listed).await;
}

/// Each test has its own server, so that it can stop it without affecting others.
#[tokio::test]
async fn a_test_postgres_keeps_its_data_across_stops_and_crashes() {
    let mut postgres = Postgres::start().await;
    postgres.ask("CREATE TABLE a (b TEXT); INSERT INTO a VALUES ('c')");
    for _ in 0..2 {
        postgres.stop().await;
        assert!(postgres.try_ask("gateway", "SELECT 1").is_err());
        postgres.start_again().await;
        assert_eq!(postgres.ask("SELECT b FROM a"), "c");
    }
    postgres.ask("INSERT INTO a VALUES ('d')");
    postgres.crash().await;
    postgres.start_again().await;
    assert_eq!(postgres.ask("SELECT count(*) FROM a"), "2");
}
