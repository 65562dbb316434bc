//! Several gateways: one PostgreSQL and one Redis make them one, whichever of them is killed; over `SQLite`,
//! or over databases that they do not share, they say that they are not.

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
        tools::told,
        try_login,
    },
};

/// How soon a decision must count everywhere. The aim is two seconds; a machine with other things to do
/// gets more.
const SOON: Duration = Duration::from_secs(4);

const METADATA: &str = "/.well-known/oauth-protected-resource";

/// How long it takes until something is so on each of them.
async fn soon(what: &str, gateways: &[&Gateway], is_so: impl AsyncFn(&Gateway) -> bool) {
    let begun = Instant::now();
    for gateway in gateways {
        until(what, async || is_so(gateway).await).await;
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

/// Administrators decide, and nobody logs in too often.
const OF_ALL: [(&str, &str); 5] = {
    let [a, b, c, d] = WITHOUT_LIMITS;
    [a, b, c, d, MANAGED]
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_administrator_decides_counts_on_all_of_them_at_once() {
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
    assert!(ground.command(ENABLE).await.starts_with("external access was on already"));
    until("both say that they are on", async || {
        let stands = ground.documents("access status --json").await.remove(0);
        let instances = stands["instances"].as_array().unwrap();
        instances.len() == 2 && instances.iter().all(|it| it["enabled"] == true)
    })
    .await;
    let stands = ground.command("access status").await;
    assert!(stands.contains("on") && stands.contains("by Ada"), "{stands}");

    assert!(ground.command("access disable --by Ada").await.starts_with("external access is off"));
    soon("metadata is gone", &both, async |it| metadata(it).await == 404).await;
    assert_eq!((login(&one, &token).await, login(&other, &token).await), (404, 404));
    let kinds = "'exposure_accepted', 'external_access_enabled', 'external_access_disabled'";
    let decided = format!("activity WHERE kind IN ({kinds}) AND actor_name = 'Ada'");
    assert_eq!(ground.database.count(&decided), 3, "what changed nothing is no decision");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_killed_in_the_midst_of_logins_loses_none_and_writes_none_twice() {
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
        until("the other goes on", async || logins.count() > before + 100).await;
        let answers = logins.end().await;
        assert!(answers.others.keys().all(|status| *status == 0), "{:?}", answers.others);
        sessions.extend(answers.sessions);
        gateways.push(ground.gateway(&OF_ALL).await);
    }
    let (lost, twice) = missing(&ground.database, &sessions);
    assert!(lost.is_empty() && twice == 0, "of {}: {lost:?}, {twice} twice", sessions.len());
    println!("{} logins, three gateways killed: each in the log, once", sessions.len());
    // Those that were killed are forgotten.
    until("two are left", async || {
        let stands = ground.documents("access status --json").await.remove(0);
        stands["instances"].as_array().unwrap().len() == 2
    })
    .await;
}

/// Two gateways before a real upstream, over one PostgreSQL and one Redis.
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
        assert!(output.status.success(), "{line}: {}: {}", output.status, told(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_blocked_comes_in_nowhere_until_the_time_is_over() {
    let two = Two::start().await;
    let (world, both) = (&two.world, two.both());
    let somebody = "cccccccc-0000-1111-2222-dddddddddddd";
    let tokens = || world.entra.token().roles(&["User", "ExternalApi"]);
    let by_client = tokens().oid(somebody).claim("azp", OTHER_CLIENT).build();
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
        assert!(!answer.headers().contains_key("www-authenticate"), "a token would not cure it");
        for gateway in both {
            assert_eq!(status(gateway.url(API), &of_bystander).await, 200, "{whom}: others stay");
            assert_eq!(login(gateway, &bystander).await, 200, "{whom}: others come in");
        }
        let stands = two.command("access status").await;
        assert!(stands.contains(whom.split(' ').next_back().unwrap()), "{stands}");

        for gateway in both {
            until("it ends by itself", async || login(gateway, &token).await == 200).await;
        }
        assert!(begun.elapsed() >= Duration::from_secs(7), "{:?}", begun.elapsed());
        for gateway in both {
            assert_eq!(
                status(gateway.url(API), &session).await,
                401,
                "{whom}: what ended stays so"
            );
            assert_ne!(guarded(gateway, &token).await, 403, "{whom}");
        }
        let ended = format!(
            "activity WHERE kind = 'session_ended_by_admin' AND session = '{}' \
             AND actor_name = 'Ada' AND reason = 'blocked'",
            handle(&session)
        );
        assert_eq!(two.database.count(&ended), 1, "{whom}: both end it, and write it down once");
    }
    for kind in ["subject_blocked", "client_blocked"] {
        assert_eq!(two.database.count(&format!("activity WHERE kind = '{kind}'")), 1);
    }
    assert!(two.database.count("activity WHERE reason = 'blocked' AND kind = 'login_denied'") > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_logs_in_all_the_time_is_left_with_no_session_by_a_block() {
    let two = Two::start().await;
    let both = two.both();
    let urls: Vec<_> = both.iter().map(|it| it.url("/external/login")).collect();
    let logins = Logins::start(&urls, &two.world.entra, 4, Duration::from_millis(10));
    until("they come in", async || logins.count() > 50).await;
    for number in 0..4 {
        let subject = crate::world::logins::subject(number);
        two.command(&format!("access block --subject {subject} --for 1h")).await;
    }
    let refused = async || logins.answers().others.get(&403).copied().unwrap_or_default();
    until("they do not any more", async || refused().await > 20).await;
    let answers = logins.end().await;
    until("none of their sessions is left", async || {
        two.command("sessions list --json").await.is_empty()
    })
    .await;
    assert!(answers.others.keys().all(|status| *status == 403), "{:?}", answers.others);
    let (lost, twice) = missing(&two.database, &answers.sessions);
    assert!(lost.is_empty() && twice == 0, "{lost:?} {twice}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_show_and_end_what_all_of_them_have() {
    let two = Two::start().await;
    let (world, both) = (&two.world, two.both());
    let here = crate::world::login(both[0], &world.entra.token().build()).await;
    let somebody = "cccccccc-0000-1111-2222-dddddddddddd";
    let there = crate::world::login(both[1], &world.entra.token().oid(somebody).build()).await;
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
    let of_somebody = lines(&format!("sessions list --json --subject {somebody}")).await;
    assert_eq!(handles(&of_somebody, "id"), [handle(&there)]);
    let plain = two.command("sessions list").await;
    assert!(plain.contains(&handle(&here)) && plain.contains(somebody), "{plain}");

    let logged = lines("activity --json --since 1h --kind login").await;
    assert_eq!(handles(&logged, "session"), [handle(&there), handle(&here)]);
    assert_eq!(handles(&logged, "subject"), [somebody, USER_OID]);
    let of_somebody = lines(&format!("activity --json --person {somebody}")).await;
    assert_eq!(handles(&of_somebody, "session"), [handle(&there)]);
    let plain = two.command("activity --since 1h").await;
    assert!(plain.lines().count() >= 4 && plain.contains("external access enabled"), "{plain}");
    let unknown = run(&two.settings, &["activity", "--kind", "nonsense"]).await;
    assert_eq!(unknown.status.code(), Some(64), "{}", told(&unknown));

    let ended = two.command(&format!("sessions end {} --by Ada", handle(&here))).await;
    assert_eq!(ended, "1 ended\n");
    let is_over = async |it: &Gateway| status(it.url(API), &here).await == 401;
    soon("it has ended", &both, is_over).await;
    for gateway in both {
        assert_eq!(status(gateway.url(API), &there).await, 200, "others live on");
    }
    let again = two.command(&format!("sessions end {}", handle(&here))).await;
    assert!(again.starts_with("0 ended\n") && again.contains("1 of the named"), "{again}");
    assert_eq!(two.command(&format!("sessions end --subject {somebody}")).await, "1 ended\n");
    let is_over = async |it: &Gateway| status(it.url(API), &there).await == 401;
    soon("the other has ended", &both, is_over).await;
    assert_eq!(two.command("sessions end --all").await, "0 ended\n");
    let ended = lines("activity --json --kind session_ended_by_admin").await;
    assert_eq!(handles(&ended, "session"), [handle(&there), handle(&here)]);
    assert_eq!(ended[1]["actor"]["name"], "Ada");
}

/// Why instances do not get on, as operators read it.
async fn complaint(gateway: &Gateway) -> Option<String> {
    let url = gateway.ops_url("/health/ready").unwrap();
    let detail = json(client().get(url).send().await.unwrap()).await;
    let parts = detail["degraded"].as_array().unwrap().clone();
    let part = parts.into_iter().find(|it| it["part"] == "instances")?;
    Some(part.to_string())
}

async fn complains(gateway: &Gateway, of: &str) {
    until(of, async || complaint(gateway).await.is_some_and(|it| it.contains(of))).await;
    assert!(gateway.process.log().contains(of), "{}", gateway.process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_over_one_file_say_so() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let one = ground.gateway(&OF_ALL).await;
    until("it says that it runs", async || ground.database.count("instances") == 1).await;
    assert_eq!(complaint(&one).await, None, "alone all is well");
    let mut other = ground.gateway(&OF_ALL).await;
    for gateway in [&one, &other] {
        complains(gateway, "one SQLite file").await;
    }
    other.process.signal("TERM");
    other.process.ended().await;
    until("alone again all is well", async || complaint(&one).await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_over_databases_of_their_own_say_so() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let elsewhere = Database::start(DatabaseKind::Sqlite).await;
    let url = elsewhere.url();
    let settings = [&OF_ALL[..], &[("DATABASE_URL", url.as_str())]].concat();
    let (one, other) = tokio::join!(ground.gateway(&OF_ALL), ground.gateway(&settings));
    for gateway in [&one, &other] {
        complains(gateway, "another database").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_over_one_postgres_have_nothing_to_say() {
    let ground = Recorded::start(DatabaseKind::Postgres).await;
    let (one, other) = tokio::join!(ground.gateway(&OF_ALL), ground.gateway(&OF_ALL));
    until("both say that they run", async || ground.database.count("instances") == 2).await;
    // By then each has looked around again.
    let seen = ground.database.ask("SELECT max(seen_at) FROM instances");
    until("they have looked around", async || {
        ground.database.count(&format!("instances WHERE seen_at > {seen}")) == 2
    })
    .await;
    assert_eq!((complaint(&one).await, complaint(&other).await), (None, None));
}
