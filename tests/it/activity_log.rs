//! Records of logins, denials and session ends in both databases: subject, address and request, and
//! no credential.

use serde_json::Value;

use crate::{
    entra::{CLIENT, OTHER_CLIENT, USER_OID},
    world::{
        WithSession, client,
        collector::{Collector, attribute},
        database::{BOTH, DatabaseKind},
        gateway::Gateway,
        logins::handle,
        process::until,
        recorded::{ENABLE, MANAGED, Recorded},
        secrets::Secrets,
        session_in,
    },
};

/// Columns of a record, in the order of [`of_kind`].
const COLUMNS: &str = "outcome, actor_oid, actor_name, actor_email, client, subject, session, address, request_id, reason, text";

/// Records of a kind, oldest first.
fn of_kind(ground: &Recorded, kind: &str) -> Vec<Vec<String>> {
    let query = format!("SELECT {COLUMNS} FROM activity WHERE kind = '{kind}' ORDER BY at, id");
    let rows = ground.database.ask(&query);
    rows.lines().map(|row| row.split('|').map(str::to_owned).collect()).collect()
}

async fn single_record(ground: &Recorded, kind: &str) -> Vec<String> {
    until(kind, async || of_kind(ground, kind).len() == 1).await;
    of_kind(ground, kind).remove(0)
}

/// Request id in the gateway's log of the last request to a path.
fn request_id(gateway: &Gateway, path: &str) -> Option<String> {
    let log = gateway.process.log();
    let mut lines = log.lines().rev().filter(|line| line.contains("\"request\""));
    let line = lines.find(|line| line.contains(&format!("\"{path}\"")))?;
    let line: Value = serde_json::from_str(line).ok()?;
    line["request_id"].as_str().map(str::to_owned)
}

async fn logged_request_id(gateway: &Gateway, path: &str) -> String {
    until("the log has the request", async || request_id(gateway, path).is_some()).await;
    request_id(gateway, path).unwrap()
}

/// Address of the callers, sent in `X-Forwarded-For`: the gateway trusts loopback.
const ADDRESS: &str = "203.0.113.7";

async fn post(gateway: &Gateway, path: &str, token: &str) -> reqwest::Response {
    let request = client().post(gateway.url(path)).header("x-forwarded-for", ADDRESS);
    request.bearer_auth(token).send().await.unwrap()
}

#[tokio::test]
async fn a_login_is_recorded_with_subject_address_and_request_id() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&[]).await;
        let token = ground.entra.token().claim("name", "Ada \u{2665} O'Neil");
        let answer = post(&gateway, "/external/login", &token.build()).await;
        assert_eq!(answer.status(), 200);
        let session = session_in(&answer);
        // The record exists when the response arrives.
        let records = of_kind(&ground, "login");
        assert_eq!(records.len(), 1, "{kind:?}");
        let email = token.claims()["preferred_username"].as_str().unwrap().to_owned();
        let (name, handle) = ("Ada \u{2665} O'Neil", handle(&session));
        let client = token.claims()["azp"].as_str().unwrap().to_owned();
        let request = logged_request_id(&gateway, "/external/login").await;
        let expected = [
            "success", USER_OID, name, &email, &client, USER_OID, &handle, ADDRESS, &request, "",
            "",
        ];
        assert_eq!(records[0], expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_denied_login_records_identity_only_from_a_verified_token() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&[("GATEWAY_ALLOWED_CLIENTS", CLIENT)]).await;
        let verified = || ground.entra.token().claim("azp", CLIENT);
        let token = || verified().claim("name", "Mallory");
        let refused = [
            // These tokens fail verification.
            (token().signed_with_unpublished_key().build(), 401, None),
            (token().expires_in(-600).build(), 401, None),
            ("eyJhbGciOiJub25lIn0.e30.".to_owned(), 401, None),
            (verified().roles(&[]).scopes("Other").build(), 403, Some(CLIENT)),
            (verified().claim("azp", OTHER_CLIENT).build(), 403, Some(OTHER_CLIENT)),
        ];
        let count = refused.len();
        for (token, status, known) in refused {
            let before = of_kind(&ground, "login_denied").len();
            let answer = post(&gateway, "/external/login", &token).await;
            assert_eq!(answer.status(), status);
            until("the denial is recorded", async || {
                of_kind(&ground, "login_denied").len() == before + 1
            })
            .await;
            let record = of_kind(&ground, "login_denied").pop().unwrap();
            let [outcome, oid, name, email, client, subject, session, address, request, reason, _] =
                &record[..]
            else {
                panic!("{record:?}")
            };
            assert_eq!(outcome, "failure");
            assert_eq!(address, ADDRESS);
            assert!(!request.is_empty() && !reason.is_empty(), "{record:?}");
            // Identity from the verified token, otherwise nothing.
            let identity = match known {
                Some(client) => [USER_OID, "Ada Example", "ada@contoso.example", USER_OID, client],
                None => [""; 5],
            };
            assert_eq!([&**oid, name, email, subject, client], identity, "{record:?}");
            assert_eq!(session, "", "{record:?}");
        }
        // Requests without credentials look for the metadata; they are not recorded.
        let rejected = client().post(gateway.url("/external/login")).send().await.unwrap();
        assert_eq!(rejected.status(), 401);
        assert_eq!(of_kind(&ground, "login_denied").len(), count, "{kind:?}");
        assert!(!ground.database.dump().contains("Mallory"), "{kind:?}");
        assert!(of_kind(&ground, "login").is_empty(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_logout_and_a_session_expiry_are_each_recorded_once() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let short = [("GATEWAY_SESSION_MAX_AGE", "4s")];
        let (gateway, second) = tokio::join!(ground.gateway(&short), ground.gateway(&short));
        let token = ground.entra.token().build();
        let first = session_in(&post(&gateway, "/external/login", &token).await);
        let expires = session_in(&post(&gateway, "/external/login", &token).await);
        let logout = client().post(gateway.url("/external/logout")).session(&first);
        let logout = logout.header("x-forwarded-for", ADDRESS).send().await.unwrap();
        assert_eq!(logout.status(), 204);
        let record = single_record(&ground, "logout").await;
        let request = logged_request_id(&gateway, "/external/logout").await;
        assert_eq!((&*record[5], &record[6]), (USER_OID, &handle(&first)), "{kind:?}");
        assert_eq!((&*record[7], &record[8]), (ADDRESS, &request), "{kind:?}");
        // The session has already ended.
        let again = client().post(gateway.url("/external/logout")).session(&first);
        assert_eq!(again.send().await.unwrap().status(), 204);

        let record = single_record(&ground, "session_expired").await;
        assert_eq!((&*record[5], &record[6]), (USER_OID, &handle(&expires)), "{kind:?}");
        // Both instances sweep, and an instance also sweeps at its start.
        drop((gateway, second));
        let third = ground.gateway(&short).await;
        until("the instance sends a heartbeat", async || ground.database.count("instances") >= 1)
            .await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(of_kind(&ground, "session_expired").len(), 1, "{kind:?}");
        assert_eq!(of_kind(&ground, "logout").len(), 1, "{kind:?}");
        drop(third);
    }
}

#[tokio::test]
async fn a_replaced_session_is_recorded_with_the_reason() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let gateway = ground.gateway(&[("GATEWAY_SESSIONS_PER_SUBJECT", "2")]).await;
    let token = ground.entra.token().build();
    let oldest = session_in(&post(&gateway, "/external/login", &token).await);
    let second = session_in(&post(&gateway, "/external/login", &token).await);
    // The third login sends a session cookie and exceeds the limit.
    let login = client().post(gateway.url("/external/login")).bearer_auth(&token).session(&second);
    assert_eq!(login.send().await.unwrap().status(), 200);
    until("both session ends are recorded", async || of_kind(&ground, "logout").len() == 2).await;
    let mut ended: Vec<_> = of_kind(&ground, "logout")
        .into_iter()
        .map(|record| (record[9].clone(), record[6].clone()))
        .collect();
    ended.sort();
    let of = |reason: &str, session: &str| (reason.to_owned(), handle(session));
    assert_eq!(ended, [of("replaced", &second), of("too_many", &oldest)]);
}

#[tokio::test]
async fn startup_records_the_settings_and_who_accepted_the_exposure() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let accepted = [("GATEWAY_EXPOSURE_ACCEPTED_BY", "Ada, 2026-11-26")];
        let _gateway = ground.gateway(&accepted).await;
        let startup = single_record(&ground, "settings_seen").await;
        assert!(startup[10].contains("GATEWAY_EXTERNAL_ACCESS=on"), "{kind:?}: {startup:?}");
        let accepted = single_record(&ground, "exposure_accepted").await;
        assert_eq!(accepted[2], "Ada, 2026-11-26", "{kind:?}");
        assert!(accepted[10].contains(CLIENT), "{kind:?}: {accepted:?}");
    }
}

#[tokio::test]
async fn the_collector_receives_the_same_records_as_the_database() {
    let collector = Collector::start().await;
    let ground = Recorded::start(BOTH[0]).await;
    let settings = collector.settings();
    let more: Vec<_> = settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let gateway = ground.gateway(&more).await;
    let answer = post(&gateway, "/external/login", &ground.entra.token().build()).await;
    let session = session_in(&answer);
    let rejected = ground.entra.token().roles(&[]).scopes("Other").build();
    assert_eq!(post(&gateway, "/external/login", &rejected).await.status(), 403);
    let logout = client().post(gateway.url("/external/logout")).session(&session);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    let columns = "id, kind, outcome, subject, session, address, request_id, reason";
    let names = [
        "event.id",
        "event.name",
        "outcome",
        "subject",
        "session",
        "client.address",
        "request_id",
        "reason",
    ];
    let query = format!("SELECT {columns} FROM activity ORDER BY id");
    let exported = || -> Vec<String> {
        let mut exported = Vec::new();
        for record in collector.records() {
            let has = |name: &str| {
                let of_record = (name == "event.name").then(|| record.event_name.clone());
                let of_record =
                    of_record.filter(|name| !name.is_empty() && !name.contains("event "));
                attribute(&record.attributes, name).or(of_record).unwrap_or_default()
            };
            if !has("event.id").is_empty() {
                exported.push(names.map(has).join("|"));
            }
        }
        exported.sort();
        exported
    };
    until("the collector has all records", async || {
        let written = ground.database.ask(&query);
        let mut written: Vec<_> = written.lines().collect();
        written.sort_unstable();
        written.len() >= 5 && exported() == written
    })
    .await;
}

#[tokio::test]
async fn no_credential_is_ever_stored_in_the_database() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&[MANAGED]).await;
        ground.command(ENABLE).await;
        let token = ground.entra.token().build();
        let is_on = async || post(&gateway, "/external/login", &token).await.status() == 200;
        until("external access is on", is_on).await;
        let answer = post(&gateway, "/external/login", &token).await;
        let session = session_in(&answer);
        // Credentials in headers where they do not belong.
        let odd = client().post(gateway.url("/external/login")).header("user-agent", &token);
        let odd = odd.header("x-request-id", &session);
        assert_eq!(odd.bearer_auth(&token).send().await.unwrap().status(), 200);
        let forged = ground.entra.token().signed_with_unpublished_key().build();
        assert_eq!(post(&gateway, "/external/login", &forged).await.status(), 401);
        let in_query = client().post(gateway.url(&format!("/external/login?token={token}")));
        in_query.bearer_auth(&forged).send().await.unwrap();
        let guarded = client().get(gateway.url("/external/x")).session(&session);
        guarded.bearer_auth(&token).send().await.unwrap();
        let logout = client().post(gateway.url("/external/logout")).session(&session);
        logout.bearer_auth(&token).send().await.unwrap();
        ground.command(&format!("access block --subject {USER_OID} --for 1h --by Ada")).await;
        ground.command("sessions end --all --by Ada").await;
        until("the block is enforced", async || {
            post(&gateway, "/external/login", &token).await.status() == 403
        })
        .await;
        let mut gateway = gateway;
        gateway.process.signal("TERM");
        assert_eq!(gateway.process.ended().await.code(), Some(0));

        let dump = ground.database.dump();
        for kind in ["login", "login_denied", "logout", "session_ended_by_admin"] {
            assert!(dump.contains(kind), "{kind} in {dump}");
        }
        Secrets::of(&ground.settings(&[])).assert_absent_in(&dump);
        let signature = token.rsplit('.').next().unwrap();
        for secret in [signature, &session, session.split('.').next().unwrap()] {
            assert!(!dump.contains(secret), "{kind:?}");
        }
    }
}
