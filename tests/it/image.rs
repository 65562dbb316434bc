//! Production image, run as in production: a root directory made from the Dockerfile, entered by
//! chroot. `make image-check` runs these tests, as root.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::world::{
    API, Kind, Store, WithSession, World, alone, client,
    database::DatabaseKind,
    gateway::{Gateway, IMAGE_USER, is_image, run},
    logins::{Logins, WITHOUT_LIMITS, missing},
    process::until,
    recorded::Recorded,
    settings, status,
};

/// File of the gateway's process under `/proc`.
fn of_process(gateway: &Gateway, name: &str) -> PathBuf {
    assert!(is_image(), "`make image-check` runs this");
    Path::new("/proc").join(gateway.process.id().to_string()).join(name)
}

/// Mounts of the process: mount point and options.
fn mounts(gateway: &Gateway) -> Vec<(String, String)> {
    let text = fs::read_to_string(of_process(gateway, "mounts")).unwrap();
    let field = |line: &str, at| line.split(' ').nth(at).unwrap().to_owned();
    text.lines().map(|line| (field(line, 1), field(line, 3))).collect()
}

fn writable(gateway: &Gateway) -> Vec<String> {
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let found = mounts(gateway).into_iter().filter(|(_, options)| !is_read_only(options));
    found.map(|(place, _)| place).collect()
}

async fn login_works_in_the_image(kind: Kind, may_write: &[&str]) {
    let world = World::start(kind).await;
    assert_eq!(writable(&world.gateway), may_write);
    let session = world.login(&world.entra.token().build()).await;
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
    let logout = client().post(world.gateway.url("/external/logout")).session(&session);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    assert_eq!(status(world.gateway.url(API), &session).await, 401);
}

#[tokio::test]
#[ignore = "make image-check"]
async fn with_redis_login_works_in_the_image_and_nothing_is_writable() {
    login_works_in_the_image(Kind::Redis, &[]).await;
}

#[tokio::test]
#[ignore = "make image-check"]
async fn with_files_login_works_in_the_image_and_only_their_volume_is_writable() {
    login_works_in_the_image(Kind::Files, &["/app"]).await;
}

#[tokio::test]
#[ignore = "make image-check"]
async fn the_state_folder_is_private_to_the_image_user() {
    let world = World::start(Kind::Files).await;
    world.login(&world.entra.token().build()).await;
    let notes = world.store.folder().with_extension("gateway");
    let about = fs::metadata(&notes).unwrap();
    assert_eq!((about.uid(), about.mode() & 0o777), (IMAGE_USER, 0o700));
}

#[tokio::test]
#[ignore = "make image-check"]
async fn the_gateway_runs_without_privileges_in_the_image() {
    let (gateway, ..) = alone(Kind::Redis, &[]).await;
    let status = fs::read_to_string(of_process(&gateway, "status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let user = IMAGE_USER.to_string();
    for name in ["Uid:", "Gid:"] {
        assert!(line(name).iter().all(|id| *id == user), "{status}");
    }
    assert!(line("Groups:").is_empty(), "{status}");
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(name), ["0000000000000000"], "{name}");
    }
    assert_eq!(line("NoNewPrivs:"), ["1"]);
}

#[tokio::test]
#[ignore = "make image-check"]
async fn the_environment_in_the_image_contains_only_the_settings() {
    let (entra, store) = (crate::entra::Entra::start().await, Store::start(Kind::Redis).await);
    let mut given = settings(&entra, None, &store, &[]);
    given.retain(|(name, _)| name != "SESSION_FILE_DIR");
    let gateway = Gateway::start(&given).await;
    let environment = fs::read_to_string(of_process(&gateway, "environ")).unwrap();
    let names = environment.split('\0').filter_map(|pair| Some(pair.split_once('=')?.0));
    let given: BTreeSet<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.collect::<BTreeSet<_>>(), given);
}

#[tokio::test]
#[ignore = "make image-check"]
async fn writing_to_the_root_fails() {
    let (gateway, ..) = alone(Kind::Redis, &[]).await;
    for place in ["x", "tmp/x", "etc/x", "app/flask_session/x", "usr/local/bin/simplechat-gateway"]
    {
        // Written as root, which file permissions do not restrict.
        let written = fs::write(of_process(&gateway, "root").join(place), "x");
        assert_eq!(written.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem, "{place}");
    }
}

#[tokio::test]
#[ignore = "make image-check"]
async fn the_image_contains_no_shell_or_other_program() {
    let (gateway, ..) = alone(Kind::Redis, &[]).await;
    let root = of_process(&gateway, "root");
    let entries = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name());
    let names: BTreeSet<String> = entries.map(|name| name.into_string().unwrap()).collect();
    let expected =
        ["app", "bin", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr"];
    assert_eq!(names, expected.map(str::to_owned).into());
    for folder in ["usr/bin", "usr/sbin", "dev"] {
        assert_eq!(fs::read_dir(root.join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[tokio::test]
#[ignore = "make image-check"]
async fn healthcheck_exits_with_69_until_upstream_has_answered_and_then_with_0() {
    let healthcheck = async |gateway: &Gateway, mut settings: Vec<(String, String)>| {
        settings.push(("GATEWAY_LISTEN".to_owned(), gateway.address().to_owned()));
        run(&settings, &["healthcheck"]).await.status.code()
    };
    let (gateway, entra, store) = alone(Kind::Files, &[]).await;
    let given = settings(&entra, None, &store, &[]);
    assert_eq!(healthcheck(&gateway, given).await, Some(69));

    let world = World::start(Kind::Files).await;
    until("upstream has answered", async || world.gateway.is_ready().await).await;
    let given = settings(&world.entra, Some(&world.flask), &world.store, &[]);
    assert_eq!(healthcheck(&world.gateway, given).await, Some(0));
}

#[tokio::test]
#[ignore = "make image-check"]
async fn sigterm_reaches_the_gateway_and_a_request_in_progress_completes() {
    let mut world = World::start(Kind::Redis).await;
    let slow = tokio::spawn(client().get(world.gateway.url("/test/hang?seconds=1.5")).send());
    until("the request hangs", async || world.flask.log().contains("a hanging request began"))
        .await;
    world.gateway.process.signal("TERM");
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert_eq!(world.gateway.process.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make image-check"]
async fn a_database_needs_no_writable_path_but_its_volume() {
    let mut ground = Recorded::start(DatabaseKind::Sqlite).await;
    let gateway = ground.gateway(&WITHOUT_LIMITS).await;
    assert_eq!(writable(&gateway), ["/app/database"]);
    // Many records are written in one statement, and many are removed in one: without its
    // settings SQLite would write rollback data to another path.
    let outage = ground.database.make_unavailable().await;
    let url = gateway.url("/external/login");
    let logins = Logins::start(&[url], &ground.entra, 64, Duration::ZERO);
    until("many records are queued", async || logins.count() > 2000).await;
    ground.database.make_available(outage).await;
    let answers = logins.end().await;
    until("all are recorded", async || missing(&ground.database, &answers.sessions).0.is_empty())
        .await;
    drop(gateway);
    let long_ago = ground.database.now() - 400 * 86_400_000;
    ground.database.ask(&format!(
        "INSERT INTO activity (id, at, kind, outcome, subject, text) \
         WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 9999) \
         SELECT 'old-' || n, {long_ago}, 'login', 'success', 'old', 'text' FROM n"
    ));
    let gateway = ground.gateway(&[]).await;
    let is_logged = async || gateway.process.log().contains("old activity records");
    until("the deletion of old records is logged", is_logged).await;
    assert_eq!(ground.database.count("activity WHERE subject = 'old'"), 0);
}
