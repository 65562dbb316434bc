//! Several gateways: with one PostgreSQL and one Redis they act as one, whichever of them is
//! killed; with `SQLite`, or with separate databases, they report that they do not.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{
    entra::{OTHER_CLIENT, USER_OID},
    world::{
        API, Kind, World, client,
        database::{Database, DatabaseKind},
        gateway::{Gateway, run},
        json,
        logins::{Logins, WITHOUT_LIMITS, handle, missing},
        process::until,
        recorded::{ENABLE, MANAGED, Recorded},
        status,
        tools::output_text,
        try_login,
    },
};

/// Maximum time until a decision applies everywhere. The target is two seconds; a busy machine gets
/// more.
const SOON: Duration = Duration::from_secs(4);

const METADATA: &str = "/.well-known/oauth-protected-resource";

/// Waits until a condition holds on each of them, and limits the time.
async fn soon(what: &str, gateways: &[&Gateway], holds: impl AsyncFn(&Gateway) -> bool) {
    let begun = Instant::now();
    for gateway in gateways {
        until(what, async || holds(gateway).await).await;
    }
    println!("{what}: everywhere after {:.0?}", begun.elapsed());
    assert!(begun.elapsed() < SOON, "{what}: {:?}", begun.elapsed());
}

async fn metadata(gateway: &Gateway) -> u16 {
    status(gateway.url(METADATA), "").await
}

async fn login(gateway: &Gateway, token: &str) -> u16 {
    try_login(gateway, token).await.status().as_u16()
}

async fn guarded(gateway: &Gateway, token: &str) -> u16 {
    let request = client().get(gateway.url("/external/test/users")).bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

/// Administrators decide, and there are no login limits.
const OF_ALL: [(&str, &str); 5] = {
    let [a, b, c, d] = WITHOUT_LIMITS;
    [a, b, c, d, MANAGED]
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_of_an_administrator_apply_to_all_instances_within_seconds() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let (one, other) = tokio::join!(ground.gateway(&OF_ALL), ground.gateway(&OF_ALL));
    let both = [&one, &other];
    assert_eq!((metadata(&one).await, metadata(&other).await), (404, 404));
    let token = ground.entra.token().build();
    assert_eq!((login(&one, &token).await, login(&other, &token).await), (404, 404));

    let printed = ground.command(ENABLE).await;
    soon("metadata answers", &both, async |it| metadata(it).await == 200).await;
    assert!(printed.starts_with("external access is on\n"), "{printed}");
    assert_eq!((login(&one, &token).await, login(&other, &token).await), (200, 200));
    assert!(ground.command(ENABLE).await.starts_with("external access was already on"));
    until("both report that access is on", async || {
        let state = ground.documents("access status --json").await.remove(0);
        let instances = state["instances"].as_array().unwrap();
        instances.len() == 2 && instances.iter().all(|it| it["enabled"] == true)
    })
    .await;
    let state = ground.command("access status").await;
    assert!(state.contains("on") && state.contains("by Ada"), "{state}");

    assert!(ground.command("access disable --by Ada").await.starts_with("external access is off"));
    soon("metadata is 404", &both, async |it| metadata(it).await == 404).await;
    assert_eq!((login(&one, &token).await, login(&other, &token).await), (404, 404));
    let kinds = "'exposure_accepted', 'external_access_enabled', 'external_access_disabled'";
    let decided = format!("activity WHERE kind IN ({kinds}) AND actor_name = 'Ada'");
    assert_eq!(ground.database.count(&decided), 3, "a command without effect is not recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_killed_during_logins_loses_no_record_and_writes_none_twice() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    ground.command(ENABLE).await;
    let mut gateways = vec![ground.gateway(&OF_ALL).await, ground.gateway(&OF_ALL).await];
    soon("it is on", &[&gateways[0], &gateways[1]], async |it| metadata(it).await == 200).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let urls: Vec<_> = gateways.iter().map(|it| it.url("/external/login")).collect();
        let logins = Logins::start(&urls, &ground.entra, 8, Duration::from_millis(5));
        until("logins are answered", async || logins.count() > 200).await;
        let mut killed = gateways.remove(0);
        killed.process.signal("KILL");
        killed.process.ended().await;
        let before = logins.count();
        until("the other continues", async || logins.count() > before + 100).await;
        let answers = logins.end().await;
        assert!(answers.others.keys().all(|status| *status == 0), "{:?}", answers.others);
        sessions.extend(answers.sessions);
        gateways.push(ground.gateway(&OF_ALL).await);
    }
    let (lost, twice) = missing(&ground.database, &sessions);
    assert!(lost.is_empty() && twice == 0, "of {}: {lost:?}, {twice} twice", sessions.len());
    println!("{} logins, three gateways killed: each in the log, once", sessions.len());
    // Killed instances expire.
    until("two are left", async || {
        let state = ground.documents("access status --json").await.remove(0);
        state["instances"].as_array().unwrap().len() == 2
    })
    .await;
}

/// Two gateways in front of a real upstream, with one PostgreSQL and one Redis.
struct Two {
    world: World,
    other: Gateway,
    settings: Vec<(String, String)>,
    database: Database,
}

impl Two {
    async fn start() -> Self {
        let database = Database::start(DatabaseKind::Postgres).await;
        let mut world = World::start(Kind::Redis).await;
        let url = database.url();
        let more = [&OF_ALL[..], &[("DATABASE_URL", url.as_str())]].concat();
        let mut settings = world.settings_with(&more);
        settings.retain(|(name, _)| name != "GATEWAY_EXPOSURE_ACCEPTED_BY");
        world.gateway = Gateway::start(&settings).await;
        let other = Gateway::start(&settings).await;
        let two = Self { world, other, settings, database };
        two.command(ENABLE).await;
        for gateway in two.both() {
            gateway.wait_until_it_has_keys().await;
            until("it is on", async || gateway.is_ready().await && metadata(gateway).await == 200)
                .await;
        }
        two
    }

    fn both(&self) -> [&Gateway; 2] {
        [&self.world.gateway, &self.other]
    }

    async fn command(&self, line: &str) -> String {
        let arguments: Vec<_> = line.split(' ').collect();
        let output = run(&self.settings, &arguments).await;
        assert!(output.status.success(), "{line}: {}: {}", output.status, output_text(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_applies_to_all_instances_until_it_expires() {
    let two = Two::start().await;
    let (world, both) = (&two.world, two.both());
    let other_subject = "cccccccc-0000-1111-2222-dddddddddddd";
    let tokens = || world.entra.token().roles(&["User", "ExternalApi"]);
    let by_client = tokens().oid(other_subject).claim("azp", OTHER_CLIENT).build();
    for (whom, token) in [
        (format!("--subject {USER_OID}"), tokens().build()),
        (format!("--client {OTHER_CLIENT}"), by_client),
    ] {
        let bystander = tokens()
            .oid("dddddddd-0000-1111-2222-dddddddddddd")
            .claim("azp", "dddddddd-0000-1111-2222-eeeeeeeeeeee")
            .build();
        let session = crate::world::login(both[0], &token).await;
        let of_bystander = crate::world::login(both[1], &bystander).await;
        for gateway in both {
            assert_eq!(status(gateway.url(API), &session).await, 200, "{whom}");
            assert_ne!(guarded(gateway, &token).await, 403, "{whom}");
        }
        let begun = Instant::now();
        let printed = two.command(&format!("access block {whom} --for 8s --by Ada")).await;
        assert!(printed.starts_with("blocked until "), "{printed}");
        soon("logins are refused", &both, async |it| login(it, &token).await == 403).await;
        soon("the guard refuses", &both, async |it| guarded(it, &token).await == 403).await;
        let is_over = async |it: &Gateway| status(it.url(API), &session).await == 401;
        soon("the session has ended", &both, is_over).await;
        let answer = try_login(both[0], &token).await;
        assert_eq!(answer.status(), 403, "{whom}");
        assert!(!answer.headers().contains_key("www-authenticate"), "another token would not help");
        for gateway in both {
            assert_eq!(
                status(gateway.url(API), &of_bystander).await,
                200,
                "{whom}: others stay valid"
            );
            assert_eq!(login(gateway, &bystander).await, 200, "{whom}: others can log in");
        }
        let state = two.command("access status").await;
        assert!(state.contains(whom.split(' ').next_back().unwrap()), "{state}");

        for gateway in both {
            until("the block expires", async || login(gateway, &token).await == 200).await;
        }
        assert!(begun.elapsed() >= Duration::from_secs(7), "{:?}", begun.elapsed());
        for gateway in both {
            assert_eq!(
                status(gateway.url(API), &session).await,
                401,
                "{whom}: the session stays ended"
            );
            assert_ne!(guarded(gateway, &token).await, 403, "{whom}");
        }
        let ended = format!(
            "activity WHERE kind = 'session_ended_by_admin' AND session = '{}' \
             AND actor_name = 'Ada' AND reason = 'blocked'",
            handle(&session)
        );
        assert_eq!(two.database.count(&ended), 1, "{whom}: both end it, and it is recorded once");
    }
    for kind in ["subject_blocked", "client_blocked"] {
        assert_eq!(two.database.count(&format!("activity WHERE kind = '{kind}'")), 1);
    }
    assert!(two.database.count("activity WHERE reason = 'blocked' AND kind = 'login_denied'") > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_during_continuous_logins_leaves_no_session() {
    let two = Two::start().await;
    let both = two.both();
    let urls: Vec<_> = both.iter().map(|it| it.url("/external/login")).collect();
    let logins = Logins::start(&urls, &two.world.entra, 4, Duration::from_millis(10));
    until("logins succeed", async || logins.count() > 50).await;
    for number in 0..4 {
        let subject = crate::world::logins::subject(number);
        two.command(&format!("access block --subject {subject} --for 1h")).await;
    }
    let refused = async || logins.answers().others.get(&403).copied().unwrap_or_default();
    until("logins are refused", async || refused().await > 20).await;
    let answers = logins.end().await;
    until("none of the sessions is active", async || {
        two.command("sessions list --json").await.is_empty()
    })
    .await;
    assert!(answers.others.keys().all(|status| *status == 403), "{:?}", answers.others);
    let (lost, twice) = missing(&two.database, &answers.sessions);
    assert!(lost.is_empty() && twice == 0, "{lost:?} {twice}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_list_and_end_the_sessions_of_all_instances() {
    let two = Two::start().await;
    let (world, both) = (&two.world, two.both());
    let here = crate::world::login(both[0], &world.entra.token().build()).await;
    let other_subject = "cccccccc-0000-1111-2222-dddddddddddd";
    let there = crate::world::login(both[1], &world.entra.token().oid(other_subject).build()).await;
    let lines = async |line: &str| -> Vec<Value> {
        let printed = two.command(line).await;
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let handles = |lines: &[Value], field: &str| -> Vec<String> {
        lines.iter().map(|line| line[field].as_str().unwrap().to_owned()).collect()
    };
    // Newest first.
    let listed = lines("sessions list --json").await;
    assert_eq!(handles(&listed, "id"), [handle(&there), handle(&here)]);
    let of_other = lines(&format!("sessions list --json --subject {other_subject}")).await;
    assert_eq!(handles(&of_other, "id"), [handle(&there)]);
    let plain = two.command("sessions list").await;
    assert!(plain.contains(&handle(&here)) && plain.contains(other_subject), "{plain}");

    let logged = lines("activity --json --since 1h --kind login").await;
    assert_eq!(handles(&logged, "session"), [handle(&there), handle(&here)]);
    assert_eq!(handles(&logged, "subject"), [other_subject, USER_OID]);
    let of_other = lines(&format!("activity --json --person {other_subject}")).await;
    assert_eq!(handles(&of_other, "session"), [handle(&there)]);
    let plain = two.command("activity --since 1h").await;
    assert!(plain.lines().count() >= 4 && plain.contains("external access enabled"), "{plain}");
    let unknown = run(&two.settings, &["activity", "--kind", "nonsense"]).await;
    assert_eq!(unknown.status.code(), Some(64), "{}", output_text(&unknown));

    let ended = two.command(&format!("sessions end {} --by Ada", handle(&here))).await;
    assert_eq!(ended, "1 ended\n");
    let is_over = async |it: &Gateway| status(it.url(API), &here).await == 401;
    soon("the session has ended", &both, is_over).await;
    for gateway in both {
        assert_eq!(status(gateway.url(API), &there).await, 200, "others stay valid");
    }
    let again = two.command(&format!("sessions end {}", handle(&here))).await;
    assert!(again.starts_with("0 ended\n") && again.contains("1 of the named"), "{again}");
    assert_eq!(two.command(&format!("sessions end --subject {other_subject}")).await, "1 ended\n");
    let is_over = async |it: &Gateway| status(it.url(API), &there).await == 401;
    soon("the other session has ended", &both, is_over).await;
    assert_eq!(two.command("sessions end --all").await, "0 ended\n");
    let ended = lines("activity --json --kind session_ended_by_admin").await;
    assert_eq!(handles(&ended, "session"), [handle(&there), handle(&here)]);
    assert_eq!(ended[1]["actor"]["name"], "Ada");
}

/// `instances` entry of the readiness detail.
async fn problem(gateway: &Gateway) -> Option<String> {
    let url = gateway.ops_url("/health/ready").unwrap();
    let detail = json(client().get(url).send().await.unwrap()).await;
    let parts = detail["degraded"].as_array().unwrap().clone();
    let part = parts.into_iter().find(|it| it["part"] == "instances")?;
    Some(part.to_string())
}

async fn reports_problem(gateway: &Gateway, of: &str) {
    until(of, async || problem(gateway).await.is_some_and(|it| it.contains(of))).await;
    // Log lines are written by a thread of their own.
    until(&format!("{of} in the log"), async || gateway.process.log().contains(of)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_share_an_sqlite_file_report_it() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let one = ground.gateway(&OF_ALL).await;
    until("it sends a heartbeat", async || ground.database.count("instances") == 1).await;
    assert_eq!(problem(&one).await, None, "alone it has no problem");
    let mut other = ground.gateway(&OF_ALL).await;
    for gateway in [&one, &other] {
        reports_problem(gateway, "one SQLite file").await;
    }
    other.process.signal("TERM");
    other.process.ended().await;
    until("the problem is resolved", async || problem(&one).await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_with_separate_databases_report_it() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let elsewhere = Database::start(DatabaseKind::Sqlite).await;
    let url = elsewhere.url();
    let settings = [&OF_ALL[..], &[("DATABASE_URL", url.as_str())]].concat();
    let (one, other) = tokio::join!(ground.gateway(&OF_ALL), ground.gateway(&settings));
    for gateway in [&one, &other] {
        reports_problem(gateway, "another database").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_share_a_postgres_report_no_problem() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let (one, other) = tokio::join!(ground.gateway(&OF_ALL), ground.gateway(&OF_ALL));
    until("both send heartbeats", async || ground.database.count("instances") == 2).await;
    // By the next heartbeat each has read the list of instances again.
    let latest = ground.database.ask("SELECT max(seen_at) FROM instances");
    until("both have sent another heartbeat", async || {
        ground.database.count(&format!("instances WHERE seen_at > {latest}")) == 2
    })
    .await;
    assert_eq!((problem(&one).await, problem(&other).await), (None, None));
}
