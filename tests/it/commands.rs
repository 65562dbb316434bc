//! Command line: output and exit codes.

use crate::{
    entra::Entra,
    world::{Kind, Store, World, flask::in_repository, gateway::run, process::until, settings},
};

fn minimal_settings() -> Vec<(String, String)> {
    ["TENANT_ID", "CLIENT_ID"]
        .map(|name| (name.to_owned(), "11111111-2222-3333-4444-555555555555".to_owned()))
        .into()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_bad_command_line_exits_with_64_and_bad_settings_with_78() {
    assert_eq!(run(&minimal_settings(), &["sing"]).await.status.code(), Some(64));
    assert_eq!(run(&minimal_settings(), &["--help"]).await.status.code(), Some(0));
    assert!(text(&run(&[], &["--version"]).await.stdout).starts_with("simplechat-gateway 0."));
    for command in ["serve", "check", "healthcheck"] {
        let mut settings = minimal_settings();
        settings.push(("GATEWAY_LISTEM".to_owned(), "1".to_owned()));
        settings.push(("GATEWAY_EXTERNAL_ACCESS".to_owned(), "on".to_owned()));
        let ended = run(&settings, &[command]).await;
        assert_eq!(ended.status.code(), Some(78), "{command}");
        let printed = text(&ended.stderr);
        assert!(printed.contains("2 problems"), "{printed}");
        assert!(
            printed.contains("GATEWAY_LISTEM") && printed.contains("GATEWAY_EXPOSURE_ACCEPTED_BY"),
            "{printed}"
        );
    }
}

#[tokio::test]
async fn settings_shows_every_setting_once_and_no_secret() {
    let mut settings = minimal_settings();
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
    assert_eq!(ended.status.code(), Some(78), "settings and their problems are printed");
    assert!(text(&ended.stdout).contains("GATEWAY_LOGIN_LIMIT=many"));
    let printed = text(&ended.stderr);
    assert!(
        printed.contains("GATEWAY_LISTN") && printed.contains("GATEWAY_LOGIN_LIMIT"),
        "{printed}"
    );
}

#[tokio::test]
async fn the_settings_reference_contains_the_table_of_the_program() {
    let table = text(&run(&[], &["settings", "--markdown"]).await.stdout);
    let page = std::fs::read_to_string(in_repository("docs/reference/settings.md")).unwrap();
    let marked = format!("<!-- settings -->\n{table}<!-- end of settings -->\n");
    assert!(page.contains(&marked), "run `make docs`");
}

#[tokio::test]
async fn the_environment_overrides_the_configuration_file() {
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
    assert_eq!(
        run(&minimal_settings(), &["check", "--config", &file]).await.status.code(),
        Some(78)
    );
}

#[tokio::test]
async fn check_tests_every_dependency_and_names_those_that_fail() {
    let world = World::start(Kind::Redis).await;
    let good = settings(&world.entra, Some(&world.flask), &world.store, &[]);
    let ended = run(&good, &["check"]).await;
    assert_eq!(ended.status.code(), Some(0), "{}{}", text(&ended.stdout), text(&ended.stderr));
    for part in ["SimpleChat", "session store", "signing keys"] {
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
    assert!(text(&ended.stdout).contains("FAIL    SimpleChat"), "{}", text(&ended.stdout));
    assert!(text(&ended.stdout).contains("ok      signing keys"), "{}", text(&ended.stdout));
    dead.push(("SESSION_TYPE".to_owned(), "redis".to_owned()));
    let url = world.store.redis().url().replace("redis://", "redis://unknown:hunter2@");
    for (url, cause) in [
        ("redis://127.0.0.1:1/0", "127.0.0.1:1: connection refused"),
        ("redis://nowhere.invalid:6379/0", "nowhere.invalid:6379: host name not found"),
        (&url, "WRONGPASS"),
    ] {
        dead.push(("REDIS_URL".to_owned(), url.to_owned()));
        let printed = text(&run(&dead, &["check"]).await.stdout);
        let line =
            printed.lines().find(|line| line.contains("FAIL    session store")).expect(&printed);
        assert!(line.contains("no connection to Redis: ") && line.contains(cause), "{line}");
    }
}

#[tokio::test]
async fn check_names_the_address_the_cause_and_the_setting_of_each_failure() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let certified = crate::world::certificates::certificates();
    let redis = crate::world::redis::Redis::start_with_tls(certified.path(), &[]).await;
    let missing = format!("{}/nothing-here?tenant", entra.url());
    let closed = "http://127.0.0.1:1/v2.0/.well-known/openid-configuration";
    let by_tls = format!("https://localhost:{}/v2.0/metadata", redis.port());
    let custom = "CUSTOM_OIDC_METADATA_URL_VALUE";
    for (name, value, part, expected) in [
        (
            "GATEWAY_UPSTREAM_URL",
            "http://127.0.0.1:1",
            "SimpleChat",
            &["127.0.0.1:1: connection refused. Fix: ", "GATEWAY_UPSTREAM_URL"][..],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            "http://nowhere.invalid:5000",
            "SimpleChat",
            &["nowhere.invalid:5000: host name not found", "GATEWAY_UPSTREAM_URL"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            "unix:/nowhere/simplechat.sock",
            "SimpleChat",
            &["/nowhere/simplechat.sock: no such socket", "GATEWAY_UPSTREAM_URL"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            &format!("http://{silent}"),
            "SimpleChat",
            &[&format!("{silent}: SimpleChat did not respond in time"), "GATEWAY_UPSTREAM_URL"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            &format!("https://localhost:{}", redis.port()),
            "SimpleChat",
            &[&format!("localhost:{}: certificate not trusted", redis.port()), "SSL_CERT_FILE"],
        ),
        (
            "GATEWAY_UPSTREAM_URL",
            &entra.url().replace("http://", "https://"),
            "SimpleChat",
            &["127.0.0.1:", ": the server does not speak TLS", "http:// in GATEWAY_UPSTREAM_URL"],
        ),
        (custom, &missing, "signing keys", &[&missing, ": answered 404", custom]),
        (custom, closed, "signing keys", &[closed, ": connection refused", custom, "HTTPS_PROXY"]),
        (custom, &by_tls, "signing keys", &[&by_tls, ": certificate not trusted", "SSL_CERT_FILE"]),
    ] {
        let more = [(name.to_owned(), value.to_owned())];
        let text = text(&run(&settings(&entra, None, &store, &more), &["check"]).await.stdout);
        let begin = format!("FAIL    {part}: ");
        let line = text.lines().find(|line| line.starts_with(&begin)).expect(&text);
        for expected in expected {
            assert!(line.contains(expected), "{expected} is not in {line}");
        }
        assert!(!line.contains("TENANT_ID") && !line.contains(" { "), "{line}");
        assert!(!line.contains("os error") && !line.contains("error sending"), "{line}");
    }
}

#[tokio::test]
async fn healthcheck_reports_the_state_of_the_running_gateway() {
    let world = World::start(Kind::Files).await;
    let mut settings = settings(&world.entra, Some(&world.flask), &world.store, &[]);
    settings.push(("GATEWAY_LISTEN".to_owned(), world.gateway.address().to_owned()));
    until("upstream has answered", async || world.gateway.is_ready().await).await;
    assert_eq!(run(&settings, &["healthcheck"]).await.status.code(), Some(0));
    settings.push(("GATEWAY_LISTEN".to_owned(), "127.0.0.1:1".to_owned()));
    assert_eq!(run(&settings, &["healthcheck"]).await.status.code(), Some(69));
}

#[tokio::test]
async fn the_ops_listener_reports_the_reasons_of_a_degraded_state() {
    let mut world = World::start(Kind::Redis).await;
    let url = world.gateway.ops_url("/health/ready").expect("an operators' listener");
    let ask =
        async || crate::world::json(crate::world::client().get(&url).send().await.unwrap()).await;
    assert_eq!(ask().await["status"], "ok");
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    let detail = ask().await;
    assert_eq!(detail["status"], "degraded", "{detail}");
    assert_eq!(detail["degraded"][0]["part"], "sessions", "{detail}");
    assert!(world.gateway.is_ready().await, "a shared outage does not make a replica unready");
}
