//! Database that can be read but not written (`influxdata/influxdb_iox#5570`,
//! goldsky-io/streamling#65, smartcontractkit/chainlink#12834): restricting decisions still take
//! effect, and everything works again without a restart once it can be written.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    entra::USER_OID,
    world::{
        API, Kind, Store, World,
        administrators::{Person, metadata},
        client,
        faulty::{Fault, Faulty},
        gateway::{Gateway, run},
        json,
        process::until,
        recorded::MANAGED,
        status,
        tools::output_text,
        try_login,
    },
};

/// Maximum time until decisions are recorded again. The target is two seconds; a busy machine gets
/// more.
const SOON: Duration = Duration::from_secs(4);
const SUBJECT: &str = "cccccccc-0000-1111-2222-dddddddddddd";

struct Ground {
    world: World,
    database: Faulty,
    admin: Person,
    settings: Vec<(String, String)>,
}

impl Ground {
    /// Starts with external access enabled by an administrator. `None`: the fault cannot be
    /// produced here.
    async fn start(fault: Fault, more: &[(&str, &str)]) -> Option<Self> {
        let database = Faulty::start(fault).await?;
        Some(Self::over(database, World::start(Kind::Redis).await, more).await)
    }

    async fn over(database: Faulty, mut world: World, more: &[(&str, &str)]) -> Self {
        let url = database.url();
        let more = [&[MANAGED, ("DATABASE_URL", &url)][..], more].concat();
        let mut settings = world.settings_with(&more);
        settings.retain(|(name, _)| name != "GATEWAY_EXPOSURE_ACCEPTED_BY");
        world.gateway = Gateway::start_ignoring(&settings, "XFSZ").await;
        world.gateway.wait_until_it_has_keys().await;
        until("the gateway is ready", async || world.gateway.is_ready().await).await;
        let admin = Person::admin(&world.gateway).await;
        admin.enable(&world.gateway).await;
        until("external access is on", async || metadata(&world.gateway).await == 200).await;
        Self { world, database, admin, settings }
    }

    async fn decide(&self, enabled: bool) -> (u16, Value) {
        self.decide_by(&self.world.gateway, enabled).await
    }

    async fn decide_by(&self, gateway: &Gateway, enabled: bool) -> (u16, Value) {
        let decision = json!({"enabled": enabled, "exposure_accepted": enabled});
        let answer = self.admin.post(gateway, "/gateway/api/access", &decision).await;
        let status = answer.status().as_u16();
        (status, json(answer).await)
    }

    async fn command(&self, line: &str) -> String {
        let arguments: Vec<_> = line.split(' ').collect();
        let output = run(&self.settings, &arguments).await;
        assert!(output.status.success(), "{line}: {}: {}", output.status, output_text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn degraded(&self) -> Vec<Value> {
        let url = self.world.gateway.ops_url("/health/ready").unwrap();
        let answer = client().get(url).send().await.unwrap();
        json(answer).await["degraded"].as_array().unwrap().clone()
    }

    async fn is_degraded(&self) -> bool {
        self.degraded().await.iter().any(|part| part["part"] == "database")
    }

    fn count(&self, of: &str) -> usize {
        self.database.ask(&format!("SELECT count(*) FROM {of}")).parse().unwrap()
    }

    /// Waits until enabling decisions are recorded again.
    async fn until_enabled(&self) -> Duration {
        let begun = Instant::now();
        until("decisions are recorded again", async || self.decide(true).await.0 == 200).await;
        let took = begun.elapsed();
        println!("decisions are recorded again after {took:.0?}");
        assert!(took < SOON, "{took:?}");
        took
    }
}

/// Sequence by the administration API, with the gateway's own connections to the database.
async fn administer_during(fault: Fault) {
    let Some(ground) = Ground::start(fault, &[]).await else { return };
    let gateway = &ground.world.gateway;
    let token = ground.world.entra.token().oid(SUBJECT).build();
    let session = ground.world.login(&token).await;
    assert_eq!(status(gateway.url(API), &session).await, 200);

    ground.database.set(gateway);
    // Their records are queued.
    for _ in 0..5 {
        ground.world.login(&token).await;
    }
    let begun = Instant::now();
    let (code, state) = ground.decide(false).await;
    assert_eq!((code, &state["enabled"]), (200, &json!(false)), "{fault:?}: {state}");
    assert_eq!(metadata(gateway).await, 404, "{fault:?}");
    println!("{fault:?}: off after {:.0?}", begun.elapsed());
    // More than the pool has connections.
    for _ in 0..6 {
        assert_eq!(ground.decide(true).await.0, 503, "{fault:?}: enabling needs its record");
        assert_eq!(ground.decide(false).await.0, 200, "{fault:?}");
    }
    let ended = ground.admin.delete(gateway, "/gateway/api/sessions?all=true").await;
    assert_eq!(ended.status(), 200, "{fault:?}");
    assert_eq!(json(ended).await["ended"], 6, "{fault:?}");
    assert_eq!(status(gateway.url(API), &session).await, 401, "{fault:?}");
    let block = json!({"subject": SUBJECT, "for": "1h"});
    let blocked = ground.admin.post(gateway, "/gateway/api/blocks", &block).await;
    assert_eq!(blocked.status(), 200, "{fault:?}");
    assert_eq!(json(blocked).await["blocks"][0]["who"], SUBJECT, "{fault:?}");
    let admitted = ground.world.entra.token().oid(SUBJECT).roles(&["ExternalApi"]).build();
    let guarded = client().get(gateway.url("/external/x")).bearer_auth(&admitted).send();
    assert_eq!(guarded.await.unwrap().status(), 403, "{fault:?}");
    let page = ground.admin.get(gateway, "/gateway/admin").await;
    assert_eq!(page.status(), 200, "{fault:?}");
    until("readiness reports the fault", async || ground.is_degraded().await).await;
    let log = gateway.process.log();
    let is_error = |line: &str| line.contains("ERROR") && line.contains("without its record");
    assert!(log.lines().any(is_error), "{fault:?}: {log}");
    assert!(!log.contains("non-zero transaction depth"), "{fault:?}");

    ground.database.clear(gateway);
    ground.until_enabled().await;
    until("external access is on", async || metadata(gateway).await == 200).await;
    until("readiness reports no fault", async || !ground.is_degraded().await).await;
    until("the queued block is recorded", async || ground.count("blocks") == 1).await;
    let recorded = |kind: &str| ground.count(&format!("activity WHERE kind = '{kind}'"));
    until("the session ends are recorded", async || recorded("session_ended_by_admin") == 6).await;
    until("the logins are recorded", async || recorded("login") == 6).await;
    assert_eq!(
        recorded("external_access_disabled"),
        7,
        "{fault:?}: each decision that took effect"
    );
    assert_eq!(recorded("external_access_enabled"), 2, "{fault:?}");
    assert_eq!(recorded("subject_blocked"), 1, "{fault:?}");
    let redis = ground.world.store.redis();
    until("the queues are empty", async || {
        let waiting = ["decisions", "records"].map(|of| format!("gateway:{{notes}}:waiting:{of}"));
        waiting.iter().all(|key| redis.ask(&["ZCARD", key]).trim().ends_with('0'))
    })
    .await;
    assert_eq!(try_login(gateway, &token).await.status(), 403, "{fault:?}: blocked");
    let other = ground.world.entra.token().oid(USER_OID).build();
    assert_eq!(try_login(gateway, &other).await.status(), 200, "{fault:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_does_not_prevent_restricting_decisions_or_require_a_restart() {
    administer_during(Fault::Full).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_file_does_not_prevent_restricting_decisions_or_require_a_restart() {
    administer_during(Fault::ReadOnly).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_writes_do_not_prevent_restricting_decisions_or_require_a_restart() {
    administer_during(Fault::Io).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_server_does_not_prevent_restricting_decisions_or_require_a_restart() {
    administer_during(Fault::Replica).await;
}

/// The same by commands, each in its own process, with two gateways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restricting_commands_apply_to_every_instance_while_the_database_cannot_be_written() {
    for fault in [Fault::Full, Fault::Replica] {
        let Some(ground) = Ground::start(fault, &[]).await else { continue };
        let one = &ground.world.gateway;
        let other = Gateway::start(&ground.settings).await;
        other.wait_until_it_has_keys().await;
        until("external access is on", async || metadata(&other).await == 200).await;
        let token = ground.world.entra.token().oid(SUBJECT).build();
        let session = ground.world.login(&token).await;

        ground.database.set(one);
        let printed = ground.command(&format!("access block --subject {SUBJECT} --for 1h")).await;
        assert!(printed.starts_with("blocked until ") && printed.contains("warning "), "{printed}");
        let begun = Instant::now();
        for gateway in [one, &other] {
            until("it is blocked", async || try_login(gateway, &token).await.status() == 403).await;
        }
        assert!(begun.elapsed() < SOON, "{fault:?}: {:?}", begun.elapsed());
        until("the session has ended", async || status(one.url(API), &session).await == 401).await;
        let printed = ground.command("sessions end --all").await;
        assert!(printed.contains(" ended\n"), "{printed}");
        let printed = ground.command("access disable --by Ada").await;
        assert!(printed.starts_with("external access is off\n"), "{printed}");
        assert!(printed.contains("warning the database could not be written: "), "{printed}");
        let state = ground.command("access status").await;
        assert!(state.starts_with("external access   off since "), "{state}");
        assert!(state.contains(&format!("blocked           subject {SUBJECT} ")), "{state}");
        let begun = Instant::now();
        for gateway in [one, &other] {
            until("external access is off", async || metadata(gateway).await == 404).await;
        }
        println!("{fault:?}: off everywhere after {:.0?}", begun.elapsed());
        assert!(begun.elapsed() < SOON, "{fault:?}: {:?}", begun.elapsed());
        let enable = "access enable --accepted-by Ada --i-understand-ids-become-public";
        let words: Vec<_> = enable.split(' ').collect();
        assert_eq!(run(&ground.settings, &words).await.status.code(), Some(69), "{fault:?}");

        // An instance that starts meanwhile applies it as well.
        let third = Gateway::start(&ground.settings).await;
        assert_eq!(metadata(&third).await, 404, "{fault:?}");
        ground.database.clear(one);
        until("the decision is recorded", async || {
            ground.count("activity WHERE kind = 'external_access_disabled' AND actor_name = 'Ada'")
                == 1
        })
        .await;
        assert_eq!(ground.count("blocks"), 1, "{fault:?}");
        ground.command(enable).await;
        for gateway in [one, &other, &third] {
            until("external access is on", async || metadata(gateway).await == 200).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn external_access_is_off_when_the_database_is_not_writable_for_ten_seconds_or_at_startup() {
    let Some(ground) = Ground::start(Fault::Replica, &[]).await else { return };
    let gateway = &ground.world.gateway;
    ground.database.set(gateway);
    let begun = Instant::now();
    until("external access is off", async || metadata(gateway).await == 404).await;
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(8), "{took:?}: a failover has no effect");
    let reasons = ground.degraded().await;
    let reason = reasons.iter().find(|it| it["part"] == "database").unwrap()["reason"].to_string();
    // backstage/backstage#8721.
    assert!(reason.contains("is the disk full, or is this a replica?"), "{reason}");
    assert!(reason.contains("25006") && !reason.contains("at line"), "{reason}");
    let late = Gateway::start(&ground.settings).await;
    late.wait_until_it_has_keys().await;
    until("the gateway is ready", async || late.is_ready().await).await;
    assert_eq!(metadata(&late).await, 404, "it was never on");
    assert!(!late.process.log().contains("\"is_on\":true"), "not even briefly");
    ground.database.clear(gateway);
    for gateway in [gateway, &late] {
        until("external access is on again", async || metadata(gateway).await == 200).await;
    }
}

/// One of two instances cannot write the database; the other records its decisions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_cannot_write_disables_access_that_another_instance_enabled() {
    let Some(ground) = Ground::start(Fault::Io, &[]).await else { return };
    let one = &ground.world.gateway;
    let other = Gateway::start_ignoring(&ground.settings, "XFSZ").await;
    other.wait_until_it_has_keys().await;
    until("external access is on at both", async || metadata(&other).await == 200).await;
    ground.database.set(&other);
    assert_eq!(ground.decide_by(&other, false).await.0, 200);
    let recorded = || ground.count("activity WHERE kind = 'external_access_disabled'");
    until("the first instance records it", async || recorded() == 1).await;
    until("external access is off", async || metadata(one).await == 404).await;
    assert_eq!(ground.decide(true).await.0, 200);
    until("external access is on again", async || metadata(one).await == 200).await;

    let (code, state) = ground.decide_by(&other, false).await;
    assert_eq!((code, &state["enabled"]), (200, &json!(false)), "{state}");
    until("external access is off again", async || metadata(one).await == 404).await;
    until("the second decision is recorded", async || recorded() == 2).await;
}

/// Session files, `GATEWAY_STATE_DIR` and SQLite share one disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_shared_by_all_stores_prevents_neither_disabling_nor_revoking_sessions() {
    let Some(database) = Faulty::start(Fault::Full).await else { return };
    let store = Store::files(tempfile::tempdir_in(database.folder()).unwrap());
    let ground = Ground::over(database, World::over(store, &[]).await, &[]).await;
    let gateway = &ground.world.gateway;
    let token = ground.world.entra.token().oid(SUBJECT).build();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(ground.world.login(&token).await);
    }
    ground.database.set(gateway);
    let printed = ground.command("sessions end --all --by Ada").await;
    assert!(printed.contains("3 ended") && printed.contains("warning "), "{printed}");
    for session in &sessions {
        until("the session has ended", async || status(gateway.url(API), session).await == 401)
            .await;
    }
    let block = format!("access block --subject {SUBJECT} --for 1h");
    assert!(ground.command(&block).await.contains("warning "));
    until("it is blocked", async || try_login(gateway, &token).await.status() == 403).await;
    let printed = ground.command("access disable --by Ada").await;
    assert!(printed.contains("warning the database could not be written: "), "{printed}");
    until("external access is off", async || metadata(gateway).await == 404).await;

    ground.database.clear(gateway);
    let recorded = |kind: &str| ground.count(&format!("activity WHERE kind = '{kind}'"));
    until("all decisions are recorded", async || {
        recorded("session_ended_by_admin") == 3
            && recorded("subject_blocked") == 1
            && recorded("external_access_disabled") == 1
    })
    .await;
    ground.until_enabled().await;
    let state = ground.world.store.folder().with_file_name("flask_session.gateway");
    until("the reserve is refilled", async || {
        std::fs::read_dir(state.join("reserve")).unwrap().count() == 64
    })
    .await;
}
