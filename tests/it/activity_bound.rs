//! Bounds of the activity log: denials above a rate are counted instead of recorded, the oldest
//! records are deleted beyond `GATEWAY_ACTIVITY_MAX_SIZE`, and exports run one at a time.

use std::{sync::Mutex, time::Instant};

use reqwest::Method;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
};

use crate::world::{
    Kind,
    administrators::{Person, managed},
    client,
    database::{BOTH, Database, DatabaseKind},
    gateway::Gateway,
    process::until,
    recorded::{ENABLE, MANAGED, Recorded},
    try_login,
};

/// Number of addresses that fail to log in, once each. `DENIALS=1000000`, set by hand, takes some
/// minutes.
fn denials() -> u32 {
    let given = std::env::vars_os().find(|(name, _)| name == "DENIALS");
    given.map_or(20_000, |(_, count)| count.to_string_lossy().parse().expect("a number"))
}

/// Sends denied logins from addresses `first`, `first + step`, … up to `count`, sequentially.
async fn send_denied_logins(address: String, first: u32, step: u32, count: u32) {
    let mut stream = BufReader::new(TcpStream::connect(&address).await.unwrap());
    let mut at = first;
    while at < count {
        let from = std::net::Ipv4Addr::from(0x0b00_0000 + at);
        let request = format!(
            "POST /external/login HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer nonsense\r\n\
             X-Forwarded-For: {from}\r\nContent-Length: 0\r\n\r\n"
        );
        stream.get_mut().write_all(request.as_bytes()).await.unwrap();
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).await.unwrap(), 0, "the connection ended");
            assert!(!line.starts_with("HTTP/1.1 ") || line.contains(" 401 "), "{line}");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        at += step;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denials_above_the_rate_are_counted_while_logins_and_decisions_work() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let quiet = [("GATEWAY_TRUSTED_PROXIES", "127.0.0.1/32"), ("RUST_LOG", "warn"), MANAGED];
    let mut settings = ground.settings(&quiet);
    settings.push((
        "RUST_LOG".to_owned(),
        "warn,simplechat_gateway::serve=info,simplechat_gateway::entra=info".to_owned(),
    ));
    let gateway = Gateway::start(&settings).await;
    gateway.wait_until_it_has_keys().await;
    ground.command(ENABLE).await;
    let token = ground.entra.token().build();
    until("external access is on", async || try_login(&gateway, &token).await.status() == 200)
        .await;

    let (begun, count) = (Instant::now(), denials());
    let mut callers = JoinSet::new();
    for first in 0..16 {
        callers.spawn(send_denied_logins(gateway.address().to_owned(), first, 16, count));
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    let took = begun.elapsed();
    assert_eq!(try_login(&gateway, &token).await.status(), 200);
    let database = &ground.database;
    // Every denial is accounted for, by its own record or in a count.
    let accounted = || {
        let counted = "SELECT coalesce(sum(CAST(substr(text, 1, instr(text, ' ') - 1) AS INTEGER)), 0) FROM activity WHERE kind = 'login_denied' AND text LIKE '% more denied of this kind since %'";
        let counted: usize = database.ask(counted).parse().unwrap();
        counted + database.count("activity WHERE kind = 'login_denied' AND text IS NULL")
    };
    until("all denials are accounted for", async || accounted() == count as usize).await;
    let records = database.count("activity WHERE kind = 'login_denied'");
    let size: u64 = database
        .ask("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        .parse()
        .unwrap();
    println!("{count} denials in {took:.1?}: {records} records, {} KiB in all", size / 1024);
    let most = 600 + 2 * (usize::try_from(took.as_secs()).unwrap() + 30);
    assert!(records <= most, "{records}");
    assert!(size < 2 << 20, "{size}");
    ground.command("access disable --by Ada").await;
    until("external access is off", async || try_login(&gateway, &token).await.status() == 404)
        .await;
}

/// Inserts records of a kind, the oldest a thousand seconds old.
fn insert(database: &Database, kind: &str, count: u32) {
    let begun = database.now() - 1_000_000;
    let text = "x".repeat(200);
    database.ask(&format!(
        "INSERT INTO activity (id, at, kind, outcome, text) \
         WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {count} - 1) \
         SELECT '{kind}-' || n, {begun} + n, '{kind}', 'success', '{text}' FROM n"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_its_maximum_size_the_log_drops_the_oldest_denials_first_and_keeps_decisions() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let output = ground.try_command("migrate", &[]).await;
        assert!(output.status.success(), "{kind:?}");
        let database = &ground.database;
        insert(database, "external_access_disabled", 5);
        insert(database, "login", 100);
        insert(database, "login_denied", 3000);
        let gateway = ground.gateway(&[("GATEWAY_ACTIVITY_MAX_SIZE", "512KiB")]).await;
        let of = |kind: &str| {
            database.count(&format!("activity WHERE kind = '{kind}' AND text LIKE 'x%'"))
        };
        let exists = |id: &str| database.count(&format!("activity WHERE id = '{id}'")) == 1;
        let removals =
            || gateway.process.log().matches("oldest activity records were removed").count();
        until("the oldest records are removed", async || removals() == 1).await;
        let denied = of("login_denied");
        assert!((100..2000).contains(&denied), "{kind:?}: {denied}");
        assert!(!exists("login_denied-0") && exists("login_denied-2999"), "{kind:?}");
        assert_eq!((of("login"), of("external_access_disabled")), (100, 5), "{kind:?}");

        insert(database, "logout", 3000);
        until("session records as well", async || removals() >= 2 && of("logout") < 2000).await;
        assert_eq!(of("login_denied"), 0, "{kind:?}");
        assert!(exists("logout-2999"), "{kind:?}");
        assert_eq!(of("external_access_disabled"), 5, "{kind:?}");
        if kind == DatabaseKind::Sqlite {
            let used = database.ask("SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size");
            assert!(used.parse::<u64>().unwrap() <= 512 << 10, "{used}");
        }
        // Only the size limit may delete records.
        let refused =
            database.try_ask("DELETE FROM activity WHERE id = 'logout-2999'").unwrap_err();
        assert!(refused.contains("stay for a day"), "{kind:?}: {refused}");
        let token = ground.entra.token().build();
        assert_eq!(try_login(&gateway, &token).await.status(), 200, "{kind:?}");
    }
}

const EXPORT: &str = "/gateway/admin/activity.csv";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activity_exports_run_one_at_a_time_and_are_refused_for_other_sites() {
    let (world, folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    insert(&Database::Sqlite(folder), "login", 30_000);

    let from_elsewhere = |path: &str| {
        let request =
            admin.ask(Method::GET, gateway.url(path)).header("sec-fetch-site", "cross-site");
        request.header("sec-fetch-mode", "navigate").header("sec-fetch-dest", "document").send()
    };
    assert_eq!(from_elsewhere(EXPORT).await.unwrap().status(), 403);
    assert_eq!(from_elsewhere("/gateway/admin/activity.jsonl").await.unwrap().status(), 403);
    assert_eq!(from_elsewhere("/gateway/admin/activity").await.unwrap().status(), 200);

    // Export whose client does not read the response. Repeated, because on a busy machine the
    // administrator check may time out.
    let request = format!(
        "GET {EXPORT} HTTP/1.1\r\nHost: {}\r\nCookie: session={}\r\n\r\n",
        gateway.address(),
        admin.cookie
    );
    let slow = Mutex::new(None);
    until("an export starts", async || {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).await.unwrap();
        slow.lock().unwrap().replace(stream);
        &begun == b"HTTP/1.1 200"
    })
    .await;
    let refused = admin.get(gateway, EXPORT).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    drop(slow);
    until("the next export succeeds", async || admin.get(gateway, EXPORT).await.status() == 200)
        .await;
    let anonymous = client().get(gateway.url(EXPORT)).send().await.unwrap();
    assert_eq!(anonymous.status(), 401, "only administrators may export");
}
