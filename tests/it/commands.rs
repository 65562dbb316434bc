//! The command line, its words and its exit codes.

use crate::{
    entra::Entra,
    world::{Kind, Store, World, flask::in_repository, gateway::run, process::until, settings},
};

fn least() -> Vec<(String, String)> {
    ["TENANT_ID", "CLIENT_ID"]
        .map(|name| (name.to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()))
        .into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_bad_command_line_is_64_and_bad_settings_are_78() {
    assert_eq!(run(&least(), &["sing"]).await.status.code(), Some(64));
    assert_eq!(run(&least(), &["--help"]).await.status.code(), Some(0));
    assert!(text(&run(&[], &["--version"]).await.stdout).starts_with("simplechat-gateway 0."));
    for command in ["serve", "check", "healthcheck"] {
        let mut settings = least();
        settings.push(("GATEWAY_LISTEM".to_owned(), "1".to_owned()));
        settings.push(("GATEWAY_EXTERNAL_ACCESS".to_owned(), "on".to_owned()));
        let ended = run(&settings, &[command]).await;
        assert_eq!(ended.status.code(), Some(78), "{command}");
        let told = text(&ended.stderr);
        assert!(told.contains("2 problems"), "{told}");
        assert!(
            told.contains("GATEWAY_LISTEM") && told.contains("GATEWAY_EXPOSURE_ACCEPTED_BY"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn settings_shows_every_setting_once_and_no_secret() {
    let mut settings = least();
    settings.push(("REDIS_URL".to_owned(), "redis://:hunter2@127.0.0.1:1/0".to_owned()));
    let ended = run(&settings, &["settings"]).await;
    assert_eq!(ended.status.code(), Some(0));
    let shown = text(&ended.stdout);
    let id = "11111111-2222-3333-4444-555555555555";
    for line in [
        &format!("TENANT_ID={id}"),
        "GATEWAY_LISTEN=0.0.0.0:8080",
        "REDIS_URL=********",
        "SESSION_TYPE=redis",
        &format!("GATEWAY_SCOPES=api://{id}/.default"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    assert!(!shown.contains("hunter2") && !shown.contains("=cores"));
    let table = text(&run(&[], &["settings", "--markdown"]).await.stdout);
    for name in table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()) {
        let lines = shown.lines().filter(|line| line.starts_with(&format!("{name}="))).count();
        assert_eq!(lines, 1, "{name}");
    }

    settings.push(("GATEWAY_LOGIN_LIMIT".to_owned(), "many".to_owned()));
    settings.push(("GATEWAY_LISTN".to_owned(), "1".to_owned()));
    let ended = run(&settings, &["settings"]).await;
    assert_eq!(ended.status.code(), Some(78), "shown, and what is wrong with them");
    assert!(text(&ended.stdout).contains("GATEWAY_LOGIN_LIMIT=many"));
    let told = text(&ended.stderr);
    assert!(told.contains("GATEWAY_LISTN") && told.contains("GATEWAY_LOGIN_LIMIT"), "{told}");
}

#[tokio::test]
async fn the_readme_has_the_table_that_the_program_prints() {
    let table = text(&run(&[], &["settings", "--markdown"]).await.stdout);
    let readme = std::fs::read_to_string(in_repository("README.md")).unwrap();
    assert!(readme.contains(&table), "run `make docs`");
}

#[tokio::test]
async fn a_file_holds_the_same_names_and_the_environment_wins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    let id = "22222222-2222-3333-4444-555555555555";
    std::fs::write(&path, format!("TENANT_ID = \"{id}\"\nCLIENT_ID = \"{id}\"\nGATEWAY_WORKERS = 3\nGATEWAY_SCOPES = [\"a\", \"b\"]\n")).unwrap();
    let environment = [("CLIENT_ID".to_owned(), "33333333-2222-3333-4444-555555555555".to_owned())];
    let file = path.display().to_string();
    let shown = text(&run(&environment, &["--config", &file, "settings"]).await.stdout);
    for line in
        ["TENANT_ID=22222222", "CLIENT_ID=33333333", "GATEWAY_WORKERS=3", "GATEWAY_SCOPES=a,b"]
    {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    std::fs::write(&path, "TENANT = 1").unwrap();
    assert_eq!(run(&least(), &["check", "--config", &file]).await.status.code(), Some(78));
}

#[tokio::test]
async fn check_tries_everything_and_names_what_is_not_there() {
    let world = World::start(Kind::Redis).await;
    let good = settings(&world.entra, Some(&world.flask), &world.store, &[]);
    let ended = run(&good, &["check"]).await;
    assert_eq!(ended.status.code(), Some(0), "{}{}", text(&ended.stdout), text(&ended.stderr));
    for part in ["upstream", "session store", "signing keys"] {
        assert!(
            text(&ended.stdout).contains(&format!("ok      {part}")),
            "{}",
            text(&ended.stdout)
        );
    }

    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let mut dead = settings(&entra, None, &store, &[]);
    let ended = run(&dead, &["check"]).await;
    assert_eq!(ended.status.code(), Some(69));
    assert!(text(&ended.stdout).contains("FAILED  upstream"), "{}", text(&ended.stdout));
    assert!(text(&ended.stdout).contains("ok      signing keys"), "{}", text(&ended.stdout));
    dead.push(("SESSION_TYPE".to_owned(), "redis".to_owned()));
    let url = world.store.redis().url().replace("redis://", "redis://nobody:hunter2@");
    for (url, why) in [
        ("redis://127.0.0.1:1/0", "127.0.0.1:1: connection refused"),
        ("redis://nowhere.invalid:6379/0", "nowhere.invalid:6379: host name not found"),
        (&url, "WRONGPASS"),
    ] {
        dead.push(("REDIS_URL".to_owned(), url.to_owned()));
        let told = text(&run(&dead, &["check"]).await.stdout);
        let line = told.lines().find(|line| line.contains("FAILED  session store")).expect(&told);
        assert!(line.contains("no connection to Redis: ") && line.contains(why), "{line}");
    }
}

/// Addresses and causes, and the setting that is wrong.
#[tokio::test]
async fn check_names_the_address_the_cause_and_the_setting_of_each_failure() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let certified = crate::world::certificates::certificates();
    let redis = crate::world::redis::Redis::start_with_tls(certified.path(), &[]).await;
    let missing = format!("{}/nothing-here?tenant", entra.url());
    let away = "http://127.0.0.1:1/v2.0/.well-known/openid-configuration";
    let by_tls = format!("https://localhost:{}/v2.0/metadata", redis.port());
    let custom = "CUSTOM_OIDC_METADATA_URL_VALUE";
    for (name, value, part, expected) in [
        (
            "GATEWAY_UPSTREAM_URL",
            "http://127.0.0.1:1",
            "upstream",
            &["127.0.0.1:1: connection refused (", "GATEWAY_UPSTREAM_URL"][..],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            "http://nowhere.invalid:5000",
            "upstream",
            &["nowhere.invalid:5000: host name not found", "GATEWAY_UPSTREAM_URL"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            "unix:/nowhere/simplechat.sock",
            "upstream",
            &["/nowhere/simplechat.sock: no such socket", "GATEWAY_UPSTREAM_URL"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            &format!("http://{silent}"),
            "upstream",
            &[&format!("{silent}: upstream did not answer in time"), "GATEWAY_UPSTREAM_URL"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            &format!("https://localhost:{}", redis.port()),
            "upstream",
            &[&format!("localhost:{}: certificate not trusted", redis.port()), "SSL_CERT_FILE"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            &entra.url().replace("http://", "https://"),
            "upstream",
            &["127.0.0.1:", ": the server does not speak TLS", "http:// in GATEWAY_UPSTREAM_URL"],
        ),
        (custom, &missing, "signing keys", &[&missing, ": answered 404", custom]),
        (custom, away, "signing keys", &[away, ": connection refused", custom, "HTTPS_PROXY"]),
        (custom, &by_tls, "signing keys", &[&by_tls, ": certificate not trusted", "SSL_CERT_FILE"]),
    ] {
        let more = [(name.to_owned(), value.to_owned())];
        let text = text(&run(&settings(&entra, None, &store, &more), &["check"]).await.stdout);
        let begin = format!("FAILED  {part}: ");
        let line = text.lines().find(|line| line.starts_with(&begin)).expect(&text);
        for expected in expected {
            assert!(line.contains(expected), "{expected} is not in {line}");
        }
        assert!(!line.contains("TENANT_ID") && !line.contains(" { "), "{line}");
        assert!(!line.contains("os error") && !line.contains("error sending"), "{line}");
    }
}

#[tokio::test]
async fn healthcheck_asks_the_running_gateway() {
    let world = World::start(Kind::Files).await;
    let mut settings = settings(&world.entra, Some(&world.flask), &world.store, &[]);
    settings.push(("GATEWAY_LISTEN".to_owned(), world.gateway.address().to_owned()));
    until("upstream answered", async || world.gateway.is_ready().await).await;
    assert_eq!(run(&settings, &["healthcheck"]).await.status.code(), Some(0));
    settings.push(("GATEWAY_LISTEN".to_owned(), "127.0.0.1:1".to_owned()));
    assert_eq!(run(&settings, &["healthcheck"]).await.status.code(), Some(69));
}

#[tokio::test]
async fn operators_see_reasons_on_their_own_listener() {
    let mut world = World::start(Kind::Redis).await;
    let url = world.gateway.ops_url("/health/ready").expect("an operators' listener");
    let ask =
        async || crate::world::json(crate::world::client().get(&url).send().await.unwrap()).await;
    assert_eq!(ask().await["status"], "ok");
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    let told = ask().await;
    assert_eq!(told["status"], "degraded", "{told}");
    assert_eq!(told["degraded"][0]["part"], "sessions", "{told}");
    assert!(world.gateway.is_ready().await, "a shared outage takes no replica out");
}
