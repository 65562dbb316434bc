//! Deployment files `deploy/` and `compose.yaml` and their pages: they parse, setting names are
//! correct, ids are placeholders. Azure's resource types are not checked: only syntax, and the
//! gateway's part of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    entra::USER_OID,
    world::{
        API, Kind, World,
        flask::in_repository,
        gateway::run,
        process::{Process, until},
        settings, status,
        tools::{checkov, installed},
    },
};

/// Samples for settings whose value is an expression.
const SAMPLES: [(&str, &str); 9] = [
    ("TENANT_ID", PLACEHOLDER_ID),
    ("CLIENT_ID", PLACEHOLDER_ID),
    ("AZURE_ENVIRONMENT", "usgovernment"),
    ("GATEWAY_PUBLIC_URLS", "https://chat.example,https://simplechat.azurewebsites.us"),
    ("GATEWAY_EXTERNAL_ACCESS", "on"),
    ("GATEWAY_EXPOSURE_ACCEPTED_BY", "Ada Lovelace, 2026-11-22"),
    ("REDIS_URL", "cache.redis.cache.usgovcloudapi.net"),
    ("REDIS_PASSWORD", "a key"),
    ("DATABASE_URL", "postgres://u:made-up-word@db.example/gateway?sslmode=verify-full"),
];
const PLACEHOLDER_ID: &str = "00000000-0000-0000-0000-000000000000";

/// Accepted checkov findings in `deploy/`, each with its reason. checkov takes every kind of
/// `sites/config` for the one named `web`, so that all of these but the last are also reported for
/// app settings and sign-in.
const EXCEPTIONS: [(&str, &str); 8] = [
    (
        "CKV_AZURE_13",
        "sign-in is authsettingsV2; it looks for siteAuthEnabled of its first version",
    ),
    ("CKV_AZURE_63", "HTTP logs are on, in `web`, where they belong"),
    ("CKV_AZURE_65", "detailed error pages are IIS'; this is Linux"),
    ("CKV_AZURE_66", "failed request tracing is IIS'; this is Linux"),
    ("CKV_AZURE_80", ".NET is not used"),
    ("CKV_AZURE_88", "nothing is stored on the app's disk: sessions are in Redis"),
    (
        "CKV_AZURE_222",
        "people reach it there; SimpleChat's own deployment decides (private networking)",
    ),
    ("CKV_AZURE_56", "a web app, not a function app; its sign-in is this very resource"),
];

const PAGES: [&str; 3] =
    ["docs/deploy/app-service.md", "docs/deploy/container-apps.md", "docs/deploy/README.md"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Output of `tests/deploy/read.py` for a folder with the layout of this repository.
fn read(root: &Path) -> Value {
    let output = Command::new(installed("deploy", "python"))
        .arg(in_repository("tests/deploy/read.py"))
        .arg(root)
        .output();
    let output = output.expect("run `make setup`");
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

static READ: LazyLock<Value> = LazyLock::new(|| read(&in_repository("")));

type Settings = BTreeMap<String, String>;

/// Values by name; expressions are replaced by their sample.
fn filled_in(environment: &Value, also: &Value) -> Settings {
    let value_of = |name: &str, value: &Value| {
        let sample = SAMPLES.iter().find(|(sampled, _)| *sampled == name);
        let value = value.as_str().or(sample.map(|(_, value)| *value));
        value.unwrap_or_else(|| panic!("no sample for {name}")).to_owned()
    };
    let parts = [environment, also].into_iter().filter_map(Value::as_object);
    parts.flatten().map(|(name, value)| (name.clone(), value_of(name, value))).collect()
}

fn bicep(file: &str) -> &'static Value {
    let parsed = &READ["bicep"][file];
    assert!(parsed.is_object(), "{file}");
    parsed
}

/// Environment of the gateway's container, by deployment.
fn gateways() -> Vec<(&'static str, Settings)> {
    let app_service = bicep("deploy/app-service/main.bicep");
    let names = app_service["environments"]["environmentVariables"].as_object().expect("names");
    let set_by_name = names.iter().map(|(name, from)| {
        let from = from.as_str().expect("the name of an app setting");
        let set = app_service["settings"].get(from);
        (name.clone(), set.unwrap_or_else(|| panic!("no app setting {from}")).clone())
    });
    let environment = Value::Object(set_by_name.collect());
    let container_apps = &bicep("deploy/container-apps/main.bicep")["environments"];
    let own = &container_apps["gatewaySettings"];
    let mut with_redis = filled_in(own, &container_apps["redisSettings"]);
    with_redis.extend(filled_in(&container_apps["databaseSettings"], &Value::Null));
    vec![
        ("App Service", filled_in(&environment, &Value::Null)),
        ("Container Apps with Redis and a database", with_redis),
        ("Container Apps with files", filled_in(own, &container_apps["fileSettings"])),
        (
            "compose.yaml",
            filled_in(&READ["compose"]["services"]["gateway"]["environment"], &Value::Null),
        ),
    ]
}

/// Writes the sample of each secret to a file, whose path replaces that of the deployment.
fn with_secret_files(settings: Settings) -> (TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let in_file = |(name, value): (String, String)| {
        let secret = name.strip_suffix("_FILE");
        match SAMPLES.iter().find(|(sampled, _)| Some(*sampled) == secret) {
            Some((secret, sample)) => {
                let path = folder.path().join(secret);
                fs::write(&path, sample).unwrap();
                (name, path.display().to_string())
            }
            None => (name, value),
        }
    };
    let settings = settings.into_iter().map(in_file).collect();
    (folder, settings)
}

/// Names of all settings, including those that name a file with a secret.
async fn known() -> BTreeSet<String> {
    let shown = text(&run(&[], &["settings"]).await.stdout);
    let lines = shown.lines().filter(|line| !line.starts_with(' '));
    let names = lines.filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    let names: BTreeSet<_> =
        names.flat_map(|name| [name.to_owned(), format!("{name}_FILE")]).collect();
    assert!(names.len() > 80, "{names:?}");
    names
}

#[test]
fn the_bicep_files_parse() {
    let files = READ["bicep"].as_object().unwrap();
    let declared: usize =
        files.values().map(|file| file["resources"].as_array().unwrap().len()).sum();
    let problems: Vec<_> =
        files.values().flat_map(|file| file["problems"].as_array().unwrap()).collect();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((files.len(), declared), (3, 6));

    let folder = tempfile::tempdir().unwrap();
    for file in ["compose.yaml", ".env.example"] {
        fs::copy(in_repository(file), folder.path().join(file)).unwrap();
    }
    fs::create_dir_all(folder.path().join("deploy/broken")).unwrap();
    let broken = "param siteName string\nresource a 'Microsoft.Web/sites@2024-11-01' = {\n  name: siteName\n";
    fs::write(folder.path().join("deploy/broken/main.bicep"), broken).unwrap();
    let found = &read(folder.path())["bicep"]["deploy/broken/main.bicep"]["problems"];
    assert!(!found.as_array().unwrap().is_empty(), "a brace is missing: {found}");
}

#[test]
fn checkov_finds_nothing_but_the_exceptions() {
    let report = checkov("bicep", &in_repository("deploy"));
    let (summary, results) = (&report["summary"], &report["results"]);
    let of = |kind: &str, field: &str| -> BTreeSet<String> {
        let checks = results[kind].as_array().expect("checks").iter();
        checks.map(|check| check[field].as_str().unwrap().to_owned()).collect()
    };
    let found: Vec<_> = of("failed_checks", "resource")
        .into_iter()
        .chain(of("passed_checks", "resource"))
        .collect();
    for resource in ["settings", "web", "signIn"] {
        assert!(
            found.contains(&format!("Microsoft.Web/sites/config.{resource}")),
            "{resource}: {found:?}"
        );
    }
    // checkov has no checks for Container Apps: only the count shows that it read that file.
    assert_eq!(summary["resource_count"], 33, "checkov reads all files: {summary}");
    let excused: BTreeSet<_> = EXCEPTIONS.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(of("failed_checks", "check_id"), excused);
}

#[tokio::test]
async fn deployments_set_only_settings_that_the_gateway_accepts() {
    let known = known().await;
    for (place, settings) in gateways() {
        let (_secrets, settings) = with_secret_files(settings);
        let foreign: Vec<_> = settings.keys().filter(|name| !known.contains(*name)).collect();
        assert!(foreign.is_empty(), "{place}: {foreign:?}");
        assert!(settings.len() > 8, "{place}: {settings:?}");
        for cloud in ["public", "usgovernment", "china"] {
            let mut settings = settings.clone();
            settings.insert("AZURE_ENVIRONMENT".to_owned(), cloud.to_owned());
            // No server listens there.
            settings.insert("GATEWAY_LISTEN".to_owned(), "127.0.0.1:1".to_owned());
            let settings: Vec<_> = settings.into_iter().collect();
            let ended = run(&settings, &["healthcheck"]).await;
            assert_eq!(ended.status.code(), Some(69), "{place}: {}", text(&ended.stderr));
        }
    }
}

/// Files that operators copy from.
fn files() -> Vec<PathBuf> {
    let mut files = vec![in_repository("compose.yaml"), in_repository(".env.example")];
    files.extend([in_repository("docs/scaling.md"), in_repository("docs/incidents.md")]);
    let mut folders = vec![in_repository("deploy"), in_repository("docs/deploy")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    // Generated locally, and ignored by git.
    files.retain(|path| !path.starts_with(in_repository("deploy/compose/tls")));
    files
}

/// Runs of letters, digits and the characters in `also`.
fn words<'a>(text: &'a str, also: &'a [char]) -> impl Iterator<Item = &'a str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !also.contains(&c))
}

#[tokio::test]
async fn files_to_copy_from_contain_real_names_and_commands_and_placeholder_ids() {
    let known = known().await;
    let help = text(&run(&[], &["--help"]).await.stdout);
    let (mut names, mut commands, mut wrong) = (0, 0, Vec::new());
    for path in files() {
        let (file, text) = (path.display(), fs::read_to_string(&path).unwrap());
        for word in words(&text, &['_']).filter(|word| word.starts_with("GATEWAY_")) {
            names += 1;
            // Abbreviations in lists: `GATEWAY_TIMEOUT_…`.
            if !known.contains(word) && !word.ends_with('_') {
                wrong.push(format!("{file}: {word}"));
            }
        }
        for word in words(&text, &['-']).filter(|word| is_guid(word)) {
            let mut digits = word.bytes().filter(|byte| *byte != b'-');
            let first = digits.next();
            if !digits.all(|digit| Some(digit) == first) {
                wrong.push(format!("{file}: {word}"));
            }
        }
        for call in text.split("simplechat-gateway ").skip(1) {
            let command = words(call, &[]).next().unwrap_or_default();
            if command.starts_with(|c: char| c.is_ascii_lowercase()) {
                commands += 1;
                if !help.contains(&format!("\n  {command} ")) {
                    wrong.push(format!("{file}: simplechat-gateway {command}"));
                }
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(names > 60 && commands > 5, "the files are read: {names}, {commands}");
}

fn is_guid(word: &str) -> bool {
    let parts: Vec<_> = word.split('-').map(str::len).collect();
    parts == [8, 4, 4, 4, 12] && word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[test]
fn ids_and_secrets_have_no_defaults() {
    let files = READ["bicep"].as_object().unwrap();
    for (file, parsed) in files {
        for (name, default) in parsed["defaults"].as_object().unwrap() {
            let is_personal = ["Id", "Image", "Server", "Uri", "Host", "Secrets"]
                .iter()
                .any(|end| name.ends_with(end));
            let default = default.as_str().unwrap_or("''");
            assert!(!is_personal || default == "''", "{file}: {name} = {default}");
        }
        let environments = parsed["environments"].as_object().unwrap().values();
        for settings in environments.chain([&parsed["settings"]]) {
            let password = settings.get("REDIS_PASSWORD").and_then(Value::as_str);
            assert!(
                password.is_none_or(|password| password == "REDIS_PASSWORD"),
                "{file}: {password:?}"
            );
            assert!(settings.get("SECRET_KEY").is_none(), "{file}: it is not needed here");
        }
    }
}

/// Text between the first occurrence of `start` and the next `end`.
fn block<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end}")).0
}

// Bicep passed REDIS_PASSWORD and DATABASE_URL in the environment; docs/hardening.md advises files.
#[test]
fn on_container_apps_the_gateway_reads_its_secrets_from_files() {
    let environments = &bicep("deploy/container-apps/main.bicep")["environments"];
    let text = fs::read_to_string(in_repository("deploy/container-apps/main.bicep")).unwrap();
    let mounts = block(&text, "var secretMounts", "\n]");
    let files = block(&text, "var secretFiles", "] : [])");
    for (settings, secret, vault) in [
        ("redisSettings", "REDIS_PASSWORD", "redis-key"),
        ("databaseSettings", "DATABASE_URL", "database-url"),
    ] {
        let settings = &environments[settings];
        assert!(settings.get(secret).is_none(), "{secret} is in the environment");
        let path = settings[format!("{secret}_FILE")].as_str().unwrap();
        let (folder, name) = path.rsplit_once('/').unwrap();
        assert_eq!(name, secret);
        assert!(mounts.contains(&format!("mountPath: '{folder}'")), "{mounts}");
        let item = format!("secretRef: '{vault}'\n    path: '{secret}'");
        assert!(files.contains(&item), "{files}");
    }
    // SimpleChat reads its secrets from the environment only; the gateway's volume is not mounted
    // there.
    let simplechat = block(&text, "name: 'simplechat'\n", "scale:");
    assert!(simplechat.contains("sessionsMount") && !simplechat.contains("secretMounts"));
    // App Service has no secret files, as the page states.
    let page = fs::read_to_string(in_repository("docs/deploy/app-service.md")).unwrap();
    assert!(page.contains("**Secrets come by environment.**"));
}

#[test]
fn simplechat_is_reachable_through_the_gateway_only() {
    let bound = [
        &bicep("deploy/app-service/main.bicep")["settings"],
        &bicep("deploy/container-apps/main.bicep")["environments"]["simpleChatOwnSettings"],
        &READ["compose"]["services"]["simplechat"]["environment"],
    ];
    for settings in bound {
        assert_eq!(settings["GUNICORN_BIND"], "127.0.0.1:5000", "{settings}");
        // The second value is the longest token that the gateway accepts, as `check` prints it.
        assert_eq!(
            settings["GUNICORN_CMD_ARGS"],
            "--forwarder-headers=X-NONE --limit-request-field_size=16408",
            "{settings}"
        );
    }
    for (place, settings) in gateways() {
        assert_eq!(settings["GATEWAY_UPSTREAM_URL"], "http://127.0.0.1:5000", "{place}");
    }
    let services = &READ["compose"]["services"];
    assert_eq!(services["simplechat"]["network_mode"], "service:gateway");
    assert!(
        services["simplechat"].get("ports").is_none() && services["redis"].get("ports").is_none()
    );
    for port in services["gateway"]["ports"].as_array().unwrap() {
        assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{port}");
    }
    // App Service redirects external applications to a sign-in page unless these paths are
    // excluded; doctor requires the same.
    let doctor = fs::read_to_string(in_repository("src/registration/easy_auth.rs")).unwrap();
    let app_service = fs::read_to_string(in_repository("deploy/app-service/main.bicep")).unwrap();
    for path in ["/.well-known/oauth-protected-resource*", "/external/*"] {
        assert!(
            doctor.contains(&format!("\"{path}\"")) && app_service.contains(&format!("'{path}'"))
        );
    }
}

#[test]
fn each_deployment_page_has_a_diagram_and_lists_what_was_not_run() {
    for page in PAGES {
        let text = fs::read_to_string(in_repository(page)).unwrap();
        let diagrams: Vec<_> = text
            .split("```mermaid\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect();
        assert!(!diagrams.is_empty(), "{page}");
        for diagram in diagrams {
            assert!(
                diagram.starts_with("flowchart ") && diagram.contains("-->"),
                "{page}: {diagram}"
            );
            let balance = |open: char, close: char| {
                diagram.matches(open).count() == diagram.matches(close).count()
            };
            assert!(
                balance('[', ']') && balance('(', ')') && diagram.matches('"').count() % 2 == 0,
                "{page}: {diagram}"
            );
            assert_eq!(
                diagram.matches("subgraph ").count(),
                diagram.lines().filter(|line| line.trim() == "end").count(),
                "{page}: {diagram}"
            );
        }
        for part in ["## Not run here", "simplechat-gateway doctor", "Rolling back", "incidents.md"]
        {
            assert!(text.contains(part), "{page}: {part}");
        }
    }
}

/// Stand-in for `az`, with the answers of an App Service behind the gateway, or of one after `azd
/// up`.
fn az(folder: &Path, is_overwritten: bool) -> PathBuf {
    let [runs, health, main, bind, excluded] = if is_overwritten {
        [
            "DOCKER|registry.example/simplechat:latest",
            "/external/healthcheck",
            "none",
            "unset",
            "none",
        ]
    } else {
        let excluded = "/.well-known/oauth-protected-resource* /external/*";
        ["SITECONTAINERS", "/gateway/health/ready", "gateway", "127.0.0.1:5000", excluded]
    };
    let port = if is_overwritten { "unset" } else { "8080" };
    let script = format!(
        "#!/bin/sh\ncase \"$1 $2 $3\" in\n\
         'webapp show '*) printf '%s\\r\\n' /subscriptions/0/sites/app app.example ;;\n\
         'webapp config show') printf '%s\\n' '{runs}' '{health}' ;;\n\
         'webapp sitecontainers list') echo '{main}' ;;\n\
         'webapp config appsettings') printf '%s\\n' '{bind}' '{port}' ;;\n\
         'rest --method get') echo '{excluded}' ;;\n\
         *) echo \"unexpected: $*\" >&2; exit 3 ;;\nesac\n"
    );
    let path = folder.join("az");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn check_after_azd(az: &Path, url: String) -> Output {
    let path = format!("{}:/usr/bin:/bin", az.parent().unwrap().display());
    let mut command = Command::new("sh");
    command.arg(in_repository("deploy/app-service/check-after-azd.sh"));
    command.env_clear().env("PATH", path).args(["group", "app", &url]);
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn check_after_azd_detects_whether_the_gateway_is_in_front() {
    let world = World::start(Kind::Files).await;
    let folder = tempfile::tempdir().unwrap();
    let ended = check_after_azd(&az(folder.path(), false), world.gateway.url("")).await;
    assert_eq!(ended.status.code(), Some(0), "{}{}", text(&ended.stdout), text(&ended.stderr));

    let ended = check_after_azd(&az(folder.path(), true), world.flask.url()).await;
    let printed = text(&ended.stdout);
    assert_eq!((ended.status.code(), printed.matches("WRONG").count()), (Some(1), 7), "{printed}");

    // SimpleChat in place of the gateway is detected from outside only.
    let ended = check_after_azd(&az(folder.path(), false), world.flask.url()).await;
    assert_eq!((ended.status.code(), text(&ended.stdout).matches("WRONG").count()), (Some(1), 1));

    fs::write(folder.path().join("az"), "#!/bin/sh\nexit 1\n").unwrap();
    let ended = check_after_azd(&folder.path().join("az"), world.gateway.url("")).await;
    assert_eq!(ended.status.code(), Some(2), "{}", text(&ended.stdout));
}

#[tokio::test]
async fn the_gateway_reaches_the_compose_redis_by_tls() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("certificates.sh");
    fs::copy(in_repository("deploy/compose/certificates.sh"), &script).unwrap();
    let made = Command::new("sh").arg(&script).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let tls = folder.path().join("tls");
    let roots = fs::read_to_string(tls.join("roots.crt")).unwrap();
    assert!(roots.contains(&fs::read_to_string(tls.join("ca.crt")).unwrap()));

    let compose = &READ["compose"];
    let command = compose["services"]["redis"]["command"].as_array().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let words = command.iter().map(|word| match word.as_str().unwrap() {
        "6380" => port.to_string(),
        word => word.replace("/run/tls", &tls.display().to_string()),
    });
    let words: Vec<_> = words.collect();
    let mut server = Command::new(&words[0]);
    let _server =
        Process::start(server.args(&words[1..]).args(["--bind", "127.0.0.1"]), &[], "KILL");

    let world = World::start(Kind::Redis).await;
    let mut settings = settings(&world.entra, Some(&world.flask), &world.store, &[]);
    settings.retain(|(name, _)| !name.starts_with("REDIS_") && name != "SESSION_TYPE");
    let (_, of_compose) = gateways().pop().unwrap();
    assert_eq!((&*of_compose["REDIS_URL"], &*of_compose["SESSION_TYPE"]), ("redis", "redis"));
    settings.extend(
        [
            // In compose a host name without a port: rediss://redis:6380/0.
            ("REDIS_URL", format!("rediss://127.0.0.1:{port}/0")),
            ("REDIS_PASSWORD", of_compose["REDIS_PASSWORD"].clone()),
            (
                "REDIS_CA_FILE",
                of_compose["REDIS_CA_FILE"].replace("/run/tls", &tls.display().to_string()),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    until("the session store passes", async || {
        let printed = text(&run(&settings, &["check"]).await.stdout);
        printed.contains("ok      session store")
    })
    .await;
    settings.retain(|(name, _)| name != "REDIS_CA_FILE");
    let printed = text(&run(&settings, &["check"]).await.stdout);
    assert!(printed.contains("FAIL    session store"), "its certificate is not trusted: {printed}");
}

#[tokio::test]
async fn sessions_revoked_by_the_script_stay_revoked() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let [first, second] = [world.login(&token).await, world.login(&token).await];
    let end = async |more: &[&str]| {
        let mut command = Command::new("sh");
        command.arg(in_repository("deploy/end-sessions.sh")).arg(world.store.redis().url());
        command.args(more);
        let ended = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        text(&ended.stdout)
    };
    assert_eq!(end(&[PLACEHOLDER_ID]).await, "ended 0 sessions\n");
    assert_eq!(status(world.gateway.url(API), &first).await, 200);
    let (record, copy) = (format!("session:{first}"), "copy");
    assert_eq!(world.store.redis().ask(&["COPY", &record, copy]), "1");
    assert_eq!(end(&[USER_OID]).await, "ended 2 sessions\n");
    for session in [&first, &second] {
        until("it is refused", async || status(world.gateway.url(API), session).await != 200).await;
        // Without a gateway, SimpleChat refuses it as well.
        assert_ne!(status(format!("{}{API}", world.flask.url()), session).await, 200);
    }
    // A record written back by a request in progress does not revive the session.
    world.store.redis().ask(&["COPY", copy, &record, "REPLACE"]);
    until("it is refused", async || status(world.gateway.url(API), &first).await != 200).await;

    let third = world.login(&token).await;
    assert_ne!(end(&[]).await, "ended 0 sessions\n");
    until("it is refused", async || status(world.gateway.url(API), &third).await != 200).await;
}
