//! Every format in which upstream may store its sessions.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::world::{
    API, Kind, WithSession, World, client,
    flask::{in_repository, python},
    gateway::run,
    process::until,
    status, try_login,
};

async fn assert_session_works(kind: Kind, more: &[(&str, &str)]) -> World {
    let world = World::with(kind, more).await;
    let answer =
        try_login(&world.gateway, &world.entra.token().claim("name", "Zoë 🎉").build()).await;
    let name = more.iter().find(|(n, _)| *n == "SESSION_COOKIE_NAME").map_or("session", |(_, v)| v);
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = set.split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with(&format!("{name}=")), "{set}");
    let ask = async || {
        let request = client().get(world.gateway.url(API)).header("cookie", cookie.clone());
        request.header("accept", "application/json").send().await.unwrap()
    };
    let answer = ask().await;
    assert_eq!(answer.status(), 200, "{more:?}");
    assert!(
        !answer.headers().contains_key("set-cookie"),
        "the renewed cookie is not sent: {more:?}"
    );
    let logout =
        client().post(world.gateway.url("/external/logout")).header("cookie", cookie.clone());
    assert_eq!(logout.send().await.unwrap().status(), 204);
    assert_eq!(ask().await.status(), 401, "{more:?}");
    world
}

#[tokio::test]
async fn records_are_stored_in_redis_as_msgpack_under_another_key_prefix() {
    let world = assert_session_works(
        Kind::Redis,
        &[("SESSION_SERIALIZATION_FORMAT", "msgpack"), ("SESSION_KEY_PREFIX", "chat/")],
    )
    .await;
    world.login(&world.entra.token().build()).await;
    let keys = world.store.redis().ask(&["KEYS", "chat/*"]);
    let value = world.store.redis().ask(&["GET", keys.lines().next().unwrap()]);
    assert!(value.contains("_permanent") && value.contains("user"), "{value}");
    assert!(!value.starts_with('{'), "{value}");
    assert_eq!(world.store.redis().ask(&["KEYS", "session:*"]), "");
}

#[tokio::test]
async fn sessions_work_under_another_cookie_name() {
    let more = [("SESSION_USE_SIGNER", "false"), ("SESSION_COOKIE_NAME", "chat")];
    assert_session_works(Kind::Redis, &more).await;
    assert_session_works(Kind::Files, &more).await;
}

#[tokio::test]
async fn the_signer_and_json_serialization_are_refused_by_every_command() {
    let id = "11111111-2222-3333-4444-555555555555";
    for (name, value) in [("SESSION_USE_SIGNER", "true"), ("SESSION_SERIALIZATION_FORMAT", "json")]
    {
        for command in ["serve", "check", "doctor"] {
            let settings = [("TENANT_ID", id), ("CLIENT_ID", id), (name, value)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            let ended = run(&settings, &[command]).await;
            assert_eq!(ended.status.code(), Some(78), "{command} {name}");
            let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
            let expected = format!(
                "{name}: Flask-Session's signer and JSON serialization are not supported, and SimpleChat uses neither; remove this setting\n"
            );
            assert!(errors.contains(&expected), "{errors}");
        }
    }
}

#[tokio::test]
async fn check_advises_to_remove_secret_key_and_succeeds() {
    let world = World::start(Kind::Redis).await;
    let settings = crate::world::settings(
        &world.entra,
        Some(&world.flask),
        &world.store,
        &[("SECRET_KEY".to_owned(), "SimpleChat's client secret".to_owned())],
    );
    let ended = run(&settings, &["check"]).await;
    let output = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(ended.status.code(), Some(0), "{output}");
    let advice = "SECRET_KEY: is not used; remove it from the gateway's environment";
    assert!(output.contains(advice), "{output}");
}

#[tokio::test]
async fn the_gateways_own_keys_have_a_prefix_that_no_cookie_can_name() {
    let world = World::start(Kind::Redis).await;
    let session = world.login(&world.entra.token().build()).await;
    let redis = world.store.redis();
    let keys = redis.ask(&["KEYS", "*"]);
    let mut flasks = keys.lines().filter(|key| !key.starts_with("gateway:"));
    assert_eq!(flasks.next(), Some(format!("session:{session}").as_str()), "{keys}");
    assert_eq!(flasks.next(), None, "{keys}");
    let left: i64 = redis.ask(&["TTL", &format!("session:{session}")]).parse().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
    assert!(redis.ask(&["GET", &format!("session:{session}")]).contains("_permanent"));
}

#[tokio::test]
async fn session_files_match_cachelibs_format() {
    let world = World::start(Kind::Files).await;
    let count = |world: &World| {
        // Without the constructor, which would count again.
        let script = "import sys, hashlib; from cachelib import FileSystemCache as C; \
                      c = C.__new__(C); \
                      c._path, c._threshold, c._hash_method = sys.argv[1], 500, hashlib.sha256; \
                      print(c._file_count)";
        let output =
            Command::new(python()).args(["-c", script]).arg(world.store.folder()).output().unwrap();
        String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse::<i64>()
            .unwrap_or_else(|_| panic!("{output:?}"))
    };
    let before = count(&world);
    let session = world.login(&world.entra.token().build()).await;
    assert_eq!(count(&world), before + 1);
    let names: Vec<_> =
        std::fs::read_dir(world.store.folder()).unwrap().map(|e| e.unwrap()).collect();
    for entry in &names {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
    }
    assert!(names.iter().all(|entry| !entry.file_name().to_string_lossy().contains(&session)));
    client().post(world.gateway.url("/external/logout")).session(&session).send().await.unwrap();
    assert_eq!(count(&world), before);
}

#[tokio::test]
async fn cachelibs_threshold_does_not_evict_minted_sessions_first() {
    let world = World::start(Kind::Files).await;
    let session = world.login(&world.entra.token().build()).await;
    // 600 browser sessions at the threshold of 500, written with Flask-Session's own class.
    let script = "import sys; from cachelib import FileSystemCache as C; c = C(sys.argv[1], threshold=500, mode=0o600)\n\
                  for n in range(600): c.set(f'session:browser{n}', {'_permanent': True, 'n': n}, timeout=2678000)";
    let filled =
        Command::new(python()).args(["-c", script]).arg(world.store.folder()).status().unwrap();
    assert!(filled.success());
    assert_eq!(status(world.gateway.url(API), &session).await, 200);
}

#[tokio::test]
async fn older_cachelib_names_files_by_md5() {
    let old = in_repository("target/python/cachelib-0.13.0");
    assert!(Path::new(&old).exists(), "`make setup` installs it");
    let world =
        assert_session_works(Kind::Files, &[("PYTHONPATH", &old.display().to_string())]).await;
    let mut names =
        std::fs::read_dir(world.store.folder()).unwrap().map(|e| e.unwrap().file_name());
    assert!(names.all(|name| name.len() == 32), "MD5 alone");
}

#[tokio::test]
async fn session_files_that_cannot_be_shared_are_reported_at_start() {
    let world = World::start(Kind::Files).await;
    let missing = world.store.folder().join("missing");
    let ended = run(
        &crate::world::settings(
            &world.entra,
            Some(&world.flask),
            &world.store,
            &[("SESSION_FILE_DIR".to_owned(), missing.display().to_string())],
        ),
        &["serve"],
    )
    .await;
    assert_eq!(ended.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(errors.contains("SESSION_FILE_DIR") && errors.contains("volume"), "{errors}");
    assert!(!missing.exists(), "the gateway never creates it");

    // Upstream runs as another user, which the owner of its count file shows.
    for entry in std::fs::read_dir(world.store.folder()).unwrap() {
        let path = entry.unwrap().path();
        if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
            eprintln!("not root: the same-user check is not tried");
            return;
        }
    }
    let settings = crate::world::settings(&world.entra, Some(&world.flask), &world.store, &[]);
    let ended = run(&settings, &["serve"]).await;
    assert_eq!(ended.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(errors.contains("as user 12345"), "{errors}");
}

#[tokio::test]
async fn a_fresh_volume_waits_for_upstream() {
    let world = World::start(Kind::Files).await;
    let empty = tempfile::tempdir().unwrap();
    let fresh = empty.path().join("flask_session");
    std::fs::create_dir(&fresh).unwrap();
    let settings = crate::world::settings(
        &world.entra,
        Some(&world.flask),
        &world.store,
        &[("SESSION_FILE_DIR".to_owned(), fresh.display().to_string())],
    );
    let gateway = crate::world::gateway::Gateway::start(&settings).await;
    gateway.wait_until_it_has_keys().await;
    let answer = try_login(&gateway, &world.entra.token().build()).await;
    assert_eq!(answer.status(), 503, "upstream's file names are not known yet");
    std::fs::copy(count_file(&world), fresh.join(count_file(&world).file_name().unwrap())).unwrap();
    until("login works", async || {
        try_login(&gateway, &world.entra.token().build()).await.status() == 200
    })
    .await;
}

fn count_file(world: &World) -> std::path::PathBuf {
    world.store.folder().join("79bc207ee04a581ab2348ca1f3494e64cd0ec36128735b8c6bc85ddd8fe1938c")
}
