//! The papers for a security review name files, tests and settings: all of them are there. And what they
//! advise works.

use std::{fs, path::Path};

use serde_json::json;

use crate::world::{
    API, Kind, WithSession, World, client, flask::in_repository, gateway::run, json,
    process::until, session_in, status, try_login,
};

const PAPERS: [&str; 19] = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/architecture.md",
    "docs/threat-model.md",
    "docs/asvs.md",
    "docs/hardening.md",
    "docs/fips.md",
    "docs/deploy/README.md",
    "docs/deploy/app-service.md",
    "docs/deploy/container-apps.md",
    "docs/scaling.md",
    "docs/incidents.md",
    "docs/database.md",
    "docs/glossary.md",
    "docs/limits.md",
    "docs/performance.md",
    "docs/reference/cli.md",
    "docs/reference/settings.md",
];

fn text(path: &str) -> String {
    fs::read_to_string(in_repository(path)).expect(path)
}

/// What stands between backticks, outside of drawings.
fn code_spans(markdown: &str) -> Vec<&str> {
    let prose = markdown.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

/// `module::test` or `room::module::test`: whether such a test stands where that says.
fn is_test(name: &str) -> bool {
    let Some((module, function)) = name.rsplit_once("::") else { return false };
    let module = module.replace("::", "/");
    let places = [
        format!("tests/it/{module}.rs"),
        format!("src/{module}.rs"),
        format!("src/{module}/mod.rs"),
        format!("src/{module}/tests.rs"),
    ];
    let files = places.iter().filter_map(|path| fs::read_to_string(in_repository(path)).ok());
    let lines: Vec<String> =
        files.flat_map(|file| file.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let at = lines.iter().position(|line| line.contains(&format!("fn {function}(")));
    // Attributes and the like stand between.
    at.is_some_and(|at| lines[at.saturating_sub(4)..at].iter().any(|line| line.contains("test")))
}

/// Whether a span is a path of this repository, by its beginning.
fn is_path(span: &str) -> bool {
    let rooms = ["src/", "tests/", "docs/", "deploy/", "fips/", "supply/", "openapi/"];
    let tops = ["Cargo.toml", "Cargo.lock", "deny.toml", "build.rs", "Makefile", "CHANGELOG.md"];
    rooms.iter().any(|room| span.starts_with(room) && span.len() > room.len())
        || tops.contains(&span)
}

fn is_setting(span: &str) -> bool {
    span.starts_with("GATEWAY_") && span.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
}

#[test]
fn whatever_the_papers_name_is_there() {
    let settings: String = std::fs::read_dir(in_repository("src/config/settings"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let (mut files, mut tests, mut missing) = (0, 0, Vec::new());
    for paper in PAPERS {
        let paper_text = text(paper);
        for span in code_spans(&paper_text) {
            let is_there = if is_path(span) {
                files += 1;
                // A script may have arguments behind it.
                in_repository(span.split(' ').next().unwrap_or_default()).exists()
            } else if span.contains("::") && span != "file::test" {
                tests += 1;
                is_test(span)
            } else if let Some(name) = span.split('=').next().filter(|name| is_setting(name)) {
                settings.contains(&format!("\"{name}\""))
            } else {
                true
            };
            if !is_there {
                missing.push(format!("{paper}: {span}"));
            }
        }
        let folder = Path::new(paper).parent().unwrap();
        for link in paper_text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !link.starts_with("http")
                && !in_repository(&folder.join(path).display().to_string()).exists()
            {
                missing.push(format!("{paper}: {link}"));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    assert!(files > 100 && tests > 100, "the papers are read: {files}, {tests}");
}

#[test]
fn what_asvs_calls_met_is_shown() {
    let asvs = text("docs/asvs.md");
    let mut items = Vec::new();
    for row in asvs.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| item")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [item, verdict, why, shown] = cells[..] else { panic!("{row}") };
        let evidence = code_spans(shown);
        match verdict {
            "met" => assert!(evidence.iter().any(|span| is_path(span)), "{item}"),
            "deviation" => assert!(!why.is_empty() && !evidence.is_empty(), "{item}: and why?"),
            "n/a" => assert!(!why.is_empty(), "{item}: and why?"),
            other => panic!("{item}: {other}"),
        }
        items.push(item.split(' ').next().unwrap());
    }
    let count = items.len();
    items.dedup();
    assert!(count == items.len() && count > 70, "{count} items");
}

/// The rights that `docs/hardening.md` gives the gateway's own user in Redis.
fn rights() -> Vec<String> {
    let page = text("docs/hardening.md");
    let span = code_spans(&page).into_iter().find(|span| span.starts_with("~session:*"));
    span.expect("the rights").split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_rights_in_redis_that_the_hardening_page_gives_are_enough() {
    let mut world = World::start(Kind::Redis).await;
    let mut rule = vec!["ACL", "SETUSER", "gateway", "on", ">pw"];
    let rights = rights();
    rule.extend(rights.iter().map(String::as_str));
    assert_eq!(world.store.redis().ask(&rule), "OK");
    let url = world.store.redis().url().replace("redis://", "redis://gateway:pw@");
    world.restart_gateway_with(&[("REDIS_URL", &url), ("GATEWAY_SESSIONS_PER_SUBJECT", "1")]).await;

    let token = world.entra.token().build();
    let answer = try_login(&world.gateway, &token).await;
    assert_eq!(answer.status(), 200, "{}", world.store.redis().ask(&["ACL", "LOG"]));
    let first = session_in(&answer);
    assert_eq!(status(world.gateway.url(API), &first).await, 200);
    let second = world.login(&token).await;
    let logout = client().post(world.gateway.url("/external/logout")).bearer_auth(&token);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    let made_up =
        client().post(world.gateway.url("/external/logout")).session(&format!("{first}9"));
    assert_eq!(made_up.send().await.unwrap().status(), 204);
    for session in [&first, &second] {
        assert_ne!(status(world.gateway.url(API), session).await, 200);
    }
    let nobody = world.entra.token().roles(&[]).build();
    assert_eq!(try_login(&world.gateway, &nobody).await.status(), 403);
    world.restart_gateway_with(&[("REDIS_URL", &url)]).await;
    let expiries = "gateway:{notes}:expiries";
    let stale = "AAAAAAAAAAAAAAAAAAAAAA.1";
    world.store.redis().ask(&["ZADD", expiries, "1", stale]);
    world.store.redis().ask(&["XADD", "gateway:ended", "*", "id", stale]);
    until("it has swept", async || {
        let redis = world.store.redis();
        redis.ask(&["ZSCORE", expiries, stale]).is_empty()
            && !redis.ask(&["XRANGE", "gateway:ended", "-", "+"]).contains(stale)
    })
    .await;
    let doctor = run(&world.settings_with(&[("REDIS_URL", &url)]), &["doctor"]).await;
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains("ok      canary: session removed"), "{told}");
    let ready = world.gateway.ops_url("/health/ready").expect("operators' listener");
    let ready = json(client().get(ready).send().await.unwrap()).await;
    assert_eq!(ready["degraded"], json!([]), "{ready}");
    assert_eq!(world.store.redis().ask(&["ACL", "LOG"]), "", "{}", world.gateway.process.log());
    let denied = world.store.redis().ask(&["-u", &url, "GET", "another:1"]);
    assert!(denied.contains("NOPERM"), "{denied}");
}
