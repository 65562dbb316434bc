//! Required content of the log, and content that callers cannot put into it.

use serde_json::Value;

use crate::{
    entra::{OTHER_CLIENT, USER_OID},
    world::{
        self, Kind, client,
        database::DatabaseKind,
        gateway::Gateway,
        json,
        process::until,
        recorded::{ENABLE, Recorded},
        try_login,
    },
};

/// Lines of the log, each of which is one JSON object.
fn lines(gateway: &Gateway) -> Vec<Value> {
    let log = gateway.process.log();
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[tokio::test]
async fn the_log_has_logins_and_refusals_with_their_requests() {
    let (gateway, entra, _store) = world::alone(Kind::Redis, &[]).await;
    gateway.wait_until_it_has_keys().await;
    assert_eq!(try_login(&gateway, &entra.token().build()).await.status(), 200);
    let refused = json(try_login(&gateway, &entra.token().roles(&[]).build()).await).await;
    let guard = client().get(gateway.url("/external/x?secret=1")).bearer_auth("a.b.c");
    let guarded = json(guard.send().await.unwrap()).await;
    let requests =
        |lines: &[Value]| lines.iter().filter(|line| line["message"] == "request").count();
    until("three requests are logged", async || requests(&lines(&gateway)) == 3).await;

    let lines = lines(&gateway);
    let created: Vec<_> =
        lines.iter().filter(|line| line["message"] == "session created").collect();
    assert_eq!(created.len(), 1);
    assert_eq!(created[0]["subject"], USER_OID);
    assert_eq!(created[0]["client"], OTHER_CLIENT);
    assert_eq!(created[0]["client.address"], "127.0.0.1");
    let of_login = lines.iter().find(|line| {
        line["message"] == "request" && line["request_id"] == created[0]["request_id"]
    });
    assert_eq!(of_login.expect("its request")["http.response.status_code"], 200);
    assert!(created[0]["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "UTC");
    for (answer, path) in [(refused, "/external/login"), (guarded, "/external/x")] {
        let about = |message: &str| {
            let mut found = lines.iter().filter(|line| line["message"] == message);
            found.find(|line| line["request_id"] == answer["request_id"]).cloned().expect(message)
        };
        assert_eq!(about("request refused")["status"], answer["status"]);
        assert_eq!(about("request refused")["client.address"], "127.0.0.1");
        assert!(about("request refused")["error"].as_str().is_some_and(|error| !error.is_empty()));
        assert_eq!(about("request")["url.path"], path, "without its query");
        assert_eq!(about("request")["client.address"], "127.0.0.1");
    }
}

#[tokio::test]
async fn a_caller_cannot_inject_log_lines() {
    let (gateway, _entra, _store) = world::alone(Kind::Files, &[]).await;
    let forged = "\"}%0a%0d{\"message\":\"request\",\"x\":\"\\";
    // Raw controls: C1, directional marks, embeddings, isolates.
    let paths: [&[u8]; 7] = [
        b"/gateway/\xc2\x9b31m\xc2\x9f",
        b"/gateway/\xd8\x9c\xe2\x80\x8e\xe2\x80\x8f\xe2\x80\xae\xe2\x80\xaa\xe2\x81\xa6\xe2\x81\xa9",
        b"/gateway/%0a%0D%1b[31m",
        b"/gateway/\xc2\x85\xe2\x80\xa8\xff",
        b"/gateway/a\x0bb",
        b"/gateway/\x1b[2K",
        forged.as_bytes(),
    ];
    for path in paths {
        let request =
            [b"GET /gateway", path, b" HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n"];
        gateway.raw(request.concat()).await;
    }
    let requests =
        |lines: &[Value]| lines.iter().filter(|line| line["message"] == "request").count();
    until("all requests are logged", async || requests(&lines(&gateway)) >= paths.len()).await;
    assert_eq!(requests(&lines(&gateway)), paths.len());
    let log = gateway.process.log();
    assert!(!log.contains(['\u{1b}', '\u{b}', '\r']), "{log}");
    assert_eq!(controls(&log), "");
    let lines = lines(&gateway);
    let is_same = |path: &str| lines.iter().any(|line| line["url.path"] == path);
    assert!(is_same("/gateway/gateway/\u{9b}31m\u{9f}"), "it parses to the same text: {log}");
}

/// Characters that a terminal would interpret as control characters.
fn controls(text: &str) -> String {
    let is_bidirectional = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| c.is_control() && *c != '\n' || is_bidirectional(*c)).collect()
}

/// Covers display names and text from administrators.
#[tokio::test]
async fn names_cannot_control_a_terminal_through_the_log_or_commands() {
    const NAME: &str = "Ada\u{9b}31m\u{202e}\u{7f}\u{2066}";
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let gateway = ground.gateway(&[]).await;
    let token = ground.entra.token().claim("name", NAME).build();
    assert_eq!(try_login(&gateway, &token).await.status(), 200);
    let enable = ENABLE.replace("Ada", NAME);
    ground.command(&enable).await;
    until("the login is recorded", async || {
        ground.database.count("activity WHERE kind = 'login'") == 1
    })
    .await;

    for (command, place) in [
        ("activity --kind login", "/actor/name"),
        ("activity --kind external_access_enabled", "/actor/name"),
        ("sessions list", "/name"),
        ("access status", "/by/name"),
    ] {
        let printed = ground.command(command).await;
        assert_eq!(controls(&printed), "", "{command}: {printed}");
        let json = ground.command(&format!("{command} --json")).await;
        assert_eq!(controls(&json), "", "{command}: {json}");
        assert!(json.contains("\\u009b31m\\u202e\\u007f\\u2066"), "escaped once: {json}");
        let document: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!(document.pointer(place).and_then(Value::as_str), Some(NAME), "{json}");
    }
    until("the login is logged", async || gateway.process.log().contains("session created")).await;
    let log = gateway.process.log();
    assert_eq!(controls(&log), "");
    assert!(log.contains("Ada\\u009b31m"), "{log}");
}
