//! No login that was answered is ever lost to the log, and none stands in it twice: while the database is
//! away, hangs, is locked by somebody else, when the gateway goes, and when it is killed.

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
    relay::{Relay, Way},
    try_login,
};

/// Callers and their pause: some hundred logins a second.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);

fn urls(gateways: &[&Gateway]) -> Vec<String> {
    gateways.iter().map(|gateway| gateway.url("/external/login")).collect()
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    WITHOUT_LIMITS.iter().chain(more).copied().collect()
}

/// What operators read of what is away.
async fn degraded(gateway: &Gateway) -> Vec<Value> {
    let url = gateway.ops_url("/health/ready").unwrap();
    let answer = client().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200, "a shared outage takes no replica out");
    json(answer).await["degraded"].as_array().unwrap().clone()
}

async fn is_degraded(gateway: &Gateway) -> bool {
    degraded(gateway).await.iter().any(|it| it["part"] == "database")
}

async fn none_is_lost(database: &Database, sessions: &[String]) {
    until("all that was answered is in the log", async || missing(database, sessions).0.is_empty())
        .await;
    assert_eq!(missing(database, sessions).1, 0, "and once");
}

/// Waits until so many more logins have been answered.
async fn go_on(logins: &Logins, more: usize) {
    let before = logins.count();
    until("logins go on", async || logins.count() >= before + more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_for_ten_seconds_loses_no_login_and_keeps_nobody_out() {
    for kind in BOTH {
        let mut ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&with(&[])).await;
        let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
        go_on(&logins, 100).await;
        let before = logins.count();
        let (begun, away) = (Instant::now(), ground.database.take_away().await);
        if kind == DatabaseKind::Postgres {
            until("operators are told", async || is_degraded(&gateway).await).await;
        }
        go_on(&logins, 200).await;
        tokio::time::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed())).await;
        let meanwhile = logins.count() - before;
        ground.database.give_back(away).await;
        go_on(&logins, 100).await;
        let answers = logins.end().await;
        none_is_lost(&ground.database, &answers.sessions).await;
        until("all is well", async || !is_degraded(&gateway).await).await;
        println!("{kind:?}: {} logins, {meanwhile} of them without it", answers.sessions.len());
        assert!(answers.others.is_empty(), "{kind:?}: {:?}", answers.others);
        assert_eq!(
            ground.database.count("activity WHERE kind = 'login'"),
            answers.sessions.len(),
            "{kind:?}: nothing else is in the log"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_loses_no_login_and_keeps_nobody_out() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    let gateway = ground.gateway(&with(&[])).await;
    let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
    go_on(&logins, 100).await;
    postgres.freeze();
    until("operators are told", async || is_degraded(&gateway).await).await;
    go_on(&logins, 100).await;
    postgres.thaw();
    let begun = Instant::now();
    until("all is well", async || !is_degraded(&gateway).await).await;
    println!("well {:.0?} after it answers again", begun.elapsed());
    go_on(&logins, 100).await;
    let answers = logins.end().await;
    none_is_lost(&ground.database, &answers.sessions).await;
    assert!(answers.others.is_empty(), "{:?}", answers.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent_are_given_up_and_others_made() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    let relay = Relay::start(postgres.address()).await;
    let url = postgres.url().replace(&postgres.address(), &relay.address().to_string());
    let gateway = ground.gateway(&with(&[("DATABASE_URL", &url), MANAGED])).await;
    ground.command(ENABLE).await;
    until("it is on", async || {
        let metadata = gateway.url("/.well-known/oauth-protected-resource");
        client().get(metadata).send().await.unwrap().status() == 200
    })
    .await;
    let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
    let written = || ground.database.count("activity WHERE kind = 'login'");
    let waiting = || postgres.ask("SELECT count(*) FROM pg_locks WHERE NOT granted");
    // More often than there are connections; each time one falls silent in the midst of writing.
    for _ in 0..6 {
        let holder = postgres.hold("activity");
        until("a writer waits", async || waiting() != "0").await;
        relay.set(Way::Forgotten).await;
        until("operators are told", async || is_degraded(&gateway).await).await;
        postgres.let_go(holder);
        let before = written();
        until("records are written again", async || written() > before + 50).await;
    }
    until("all is well", async || !is_degraded(&gateway).await).await;
    assert_eq!(ground.command("access status").await.lines().count(), 2);
    go_on(&logins, 50).await;
    let answers = logins.end().await;
    none_is_lost(&ground.database, &answers.sessions).await;
    assert!(answers.others.is_empty(), "{:?}", answers.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_again_and_again_loses_no_login() {
    let mut ground = Recorded::start(DatabaseKind::Postgres).await;
    let gateway = ground.gateway(&with(&[])).await;
    let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
    for _ in 0..4 {
        go_on(&logins, 50).await;
        let Database::Postgres(postgres) = &mut ground.database else { unreachable!() };
        // Between a commit and the word of it, too.
        postgres.crash().await;
        postgres.start_again().await;
    }
    go_on(&logins, 50).await;
    let answers = logins.end().await;
    none_is_lost(&ground.database, &answers.sessions).await;
    assert!(answers.others.is_empty(), "{:?}", answers.others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_every_login_must_be_written_down_none_is_let_in_without() {
    for kind in BOTH {
        let mut ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&with(&[("GATEWAY_ACTIVITY_REQUIRED", "all")])).await;
        let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
        go_on(&logins, 100).await;
        let away = ground.database.take_away().await;
        let token = ground.entra.token().build();
        let refused = async || try_login(&gateway, &token).await;
        until("logins are refused", async || refused().await.status() == 503).await;
        // Those under way when it went are through by then: each waits for its record 1.5 s at most.
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
        assert_eq!(logins.count(), before, "{kind:?}: nobody came in");
        ground.database.give_back(away).await;
        go_on(&logins, 100).await;
        let answers = logins.end().await;
        none_is_lost(&ground.database, &answers.sessions).await;
        assert_eq!(answers.others.keys().collect::<Vec<_>>(), [&503], "{kind:?}");
        // Whoever was refused has no session either.
        let live: Vec<String> = ground
            .documents("sessions list --json --limit 1000000")
            .await
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        let unknown: Vec<_> = live.iter().filter(|id| !answers.sessions.contains(id)).collect();
        // The first of this test's own logins, before the database was found to be away.
        assert!(unknown.len() <= 1, "{kind:?}: {unknown:?}");
        assert!(live.len() >= answers.sessions.len(), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_refused_while_they_cannot_be_written_down() {
    for kind in BOTH {
        let mut ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&with(&[MANAGED])).await;
        let away = ground.database.take_away().await;
        let output = ground.try_command(ENABLE, &[MANAGED]).await;
        assert_eq!(output.status.code(), Some(69), "{kind:?}");
        ground.database.give_back(away).await;
        let state = ground.database.count("access WHERE since IS NULL");
        assert_eq!(state, 1, "{kind:?}: nothing has changed");
        assert_eq!(ground.database.count("activity WHERE actor_name = 'Ada'"), 0, "{kind:?}");
        until("all is well", async || !is_degraded(&gateway).await).await;
        ground.command(ENABLE).await;
        let token = ground.entra.token().build();
        until("it is on", async || try_login(&gateway, &token).await.status() == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_must_be_written_down_the_database_may_be_away_for_good() {
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
    until("operators are told", async || is_degraded(&gateway).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_goes_writes_down_what_it_has_answered() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        for signal in ["TERM", "KILL"] {
            let mut gateway = ground.gateway(&with(&[])).await;
            let logins = Logins::start(&urls(&[&gateway]), &ground.entra, CALLERS, PAUSE);
            go_on(&logins, 100).await;
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
async fn what_waits_for_a_database_is_written_when_the_gateway_goes_and_told_where_it_cannot_be() {
    let mut ground = Recorded::start(DatabaseKind::Postgres).await;
    let mut gateway = ground.gateway(&with(&[])).await;
    let token = ground.entra.token().build();
    let away = ground.database.take_away().await;
    until("operators are told", async || is_degraded(&gateway).await).await;
    let login = crate::world::login(&gateway, &token).await;
    let begun = Instant::now();
    gateway.process.signal("TERM");
    // In the middle of its going.
    tokio::time::sleep(Duration::from_millis(500)).await;
    ground.database.give_back(away).await;
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    println!("gone after {:.0?}", begun.elapsed());
    let handle = crate::world::logins::handle(&login);
    let (lost, twice) = missing(&ground.database, std::slice::from_ref(&handle));
    assert!(lost.is_empty() && twice == 0, "{lost:?}");

    let mut gateway = ground.gateway(&with(&[])).await;
    let _away = ground.database.take_away().await;
    until("operators are told", async || is_degraded(&gateway).await).await;
    let login = crate::world::login(&gateway, &token).await;
    let begun = Instant::now();
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let log = gateway.process.log();
    assert!(log.contains("could not be written"), "{log}");
    let line = log.lines().find(|line| line.contains(&crate::world::logins::handle(&login)));
    assert!(line.is_some_and(|line| line.contains("login")), "it stands in the log: {log}");
}

#[tokio::test]
async fn a_gateway_starts_soon_whether_its_database_answers_or_not() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let Database::Postgres(postgres) = &ground.database else { unreachable!() };
    // Migrated, so that this takes no time later.
    assert_eq!(ground.try_command("migrate", &[]).await.status.code(), Some(0));
    postgres.freeze();
    for more in [&[][..], &[("DATABASE_URL", "postgres://u:nothing-at-all@127.0.0.1:1/d")]] {
        let begun = Instant::now();
        let gateway = Gateway::start(&ground.settings(more)).await;
        let took = begun.elapsed();
        until("it is ready", async || gateway.is_ready().await).await;
        println!("listens after {took:.0?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        until("operators are told", async || is_degraded(&gateway).await).await;
    }
    postgres.thaw();
}

#[tokio::test]
async fn who_is_kept_out_must_have_been_read_once_before_anybody_comes_in() {
    let mut ground = Recorded::start(DatabaseKind::Postgres).await;
    assert_eq!(ground.try_command("migrate", &[]).await.status.code(), Some(0));
    let away = ground.database.take_away().await;
    let gateway = ground.gateway(&with(&[])).await;
    let token = ground.entra.token().build();
    let answer = try_login(&gateway, &token).await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    ground.database.give_back(away).await;
    until("logins go on", async || try_login(&gateway, &token).await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_who_do_not_wait_leave_no_session_without_a_record() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let to_redis = Relay::start(ground.store.redis().address()).await;
    let url = format!("redis://{}/0", to_redis.address());
    let gateway = ground.gateway(&with(&[("REDIS_URL", &url)])).await;
    let token = ground.entra.token().build();
    to_redis.set(Way::Slow(Duration::from_millis(150))).await;
    let mut callers = JoinSet::new();
    for number in 0..40 {
        let request = client().post(gateway.url("/external/login")).bearer_auth(&token);
        callers.spawn(request.timeout(Duration::from_millis(number * 25)).send());
    }
    while callers.join_next().await.is_some() {}
    to_redis.set(Way::Open).await;
    // The last of them is through.
    crate::world::login(&gateway, &token).await;
    let listed = ground.documents("sessions list --json --limit 1000").await;
    let listed: Vec<String> =
        listed.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    println!("{} sessions of 41 callers", listed.len());
    none_is_lost(&ground.database, &listed).await;
}

/// So that a test may stop it while another uses its own.
#[tokio::test]
async fn servers_here_stop_freeze_and_start_again_with_what_they_held() {
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
