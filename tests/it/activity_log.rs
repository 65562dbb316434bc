//! What is written down of who came in and who was refused, in either database: who, from where, by which
//! request, and nothing that opens anything.

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

/// The columns of a record, in the order of [`of_kind`].
const COLUMNS: &str = "outcome, actor_oid, actor_name, actor_email, client, subject, session, address, request_id, reason, text";

/// Records of a kind, oldest first.
fn of_kind(ground: &Recorded, kind: &str) -> Vec<Vec<String>> {
    let asked = format!("SELECT {COLUMNS} FROM activity WHERE kind = '{kind}' ORDER BY at, id");
    let rows = ground.database.ask(&asked);
    rows.lines().map(|row| row.split('|').map(str::to_owned).collect()).collect()
}

async fn the(ground: &Recorded, kind: &str) -> Vec<String> {
    until(kind, async || of_kind(ground, kind).len() == 1).await;
    of_kind(ground, kind).remove(0)
}

/// The id under which the gateway's log has the last request to a path.
fn request_id(gateway: &Gateway, path: &str) -> Option<String> {
    let log = gateway.process.log();
    let mut lines = log.lines().rev().filter(|line| line.contains("\"request\""));
    let line = lines.find(|line| line.contains(&format!("\"{path}\"")))?;
    let line: Value = serde_json::from_str(line).ok()?;
    line["request_id"].as_str().map(str::to_owned)
}

async fn logged_as(gateway: &Gateway, path: &str) -> String {
    until("the log has the request", async || request_id(gateway, path).is_some()).await;
    request_id(gateway, path).unwrap()
}

/// As whom callers come: the gateway trusts loopback.
const ADDRESS: &str = "203.0.113.7";

async fn post(gateway: &Gateway, path: &str, token: &str) -> reqwest::Response {
    let request = client().post(gateway.url(path)).header("x-forwarded-for", ADDRESS);
    request.bearer_auth(token).send().await.unwrap()
}

#[tokio::test]
async fn a_login_is_written_down_with_who_from_where_and_which_request() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&[]).await;
        let token = ground.entra.token().claim("name", "Ada \u{2665} O'Neil");
        let answer = post(&gateway, "/external/login", &token.build()).await;
        assert_eq!(answer.status(), 200);
        let session = session_in(&answer);
        // It is there by the time of the answer.
        let records = of_kind(&ground, "login");
        assert_eq!(records.len(), 1, "{kind:?}");
        let email = token.claims()["preferred_username"].as_str().unwrap().to_owned();
        let (name, handle) = ("Ada \u{2665} O'Neil", handle(&session));
        let client = token.claims()["azp"].as_str().unwrap().to_owned();
        let request = logged_as(&gateway, "/external/login").await;
        let expected = [
            "success", USER_OID, name, &email, &client, USER_OID, &handle, ADDRESS, &request, "",
            "",
        ];
        assert_eq!(records[0], expected, "{kind:?}");
    }
}

#[tokio::test]
async fn who_is_refused_is_written_down_as_far_as_the_token_was_believed() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&[("GATEWAY_ALLOWED_CLIENTS", CLIENT)]).await;
        let verified = || ground.entra.token().claim("azp", CLIENT);
        let token = || verified().claim("name", "Mallory");
        let refused = [
            // Nothing of these was ever verified.
            (token().signed_by_stranger().build(), 401, None),
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
            until("it is written down", async || {
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
            // Who it was, where the token was verified, and else nothing at all.
            let who = match known {
                Some(client) => [USER_OID, "Ada Example", "ada@contoso.example", USER_OID, client],
                None => [""; 5],
            };
            assert_eq!([&**oid, name, email, subject, client], who, "{record:?}");
            assert_eq!(session, "", "{record:?}");
        }
        // Whoever asks without credentials wants to find the metadata.
        let nobody = client().post(gateway.url("/external/login")).send().await.unwrap();
        assert_eq!(nobody.status(), 401);
        assert_eq!(of_kind(&ground, "login_denied").len(), count, "{kind:?}");
        assert!(!ground.database.dump().contains("Mallory"), "{kind:?}");
        assert!(of_kind(&ground, "login").is_empty(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_logout_and_the_end_of_a_session_are_written_down_once() {
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
        let record = the(&ground, "logout").await;
        let request = logged_as(&gateway, "/external/logout").await;
        assert_eq!((&*record[5], &record[6]), (USER_OID, &handle(&first)), "{kind:?}");
        assert_eq!((&*record[7], &record[8]), (ADDRESS, &request), "{kind:?}");
        // There is nothing left to end.
        let again = client().post(gateway.url("/external/logout")).session(&first);
        assert_eq!(again.send().await.unwrap().status(), 204);

        let record = the(&ground, "session_expired").await;
        assert_eq!((&*record[5], &record[6]), (USER_OID, &handle(&expires)), "{kind:?}");
        // Both instances sweep; the next one to start does so at once.
        drop((gateway, second));
        let third = ground.gateway(&short).await;
        until("it says that it runs", async || ground.database.count("instances") >= 1).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(of_kind(&ground, "session_expired").len(), 1, "{kind:?}");
        assert_eq!(of_kind(&ground, "logout").len(), 1, "{kind:?}");
        drop(third);
    }
}

#[tokio::test]
async fn a_session_that_gives_way_to_another_is_written_down() {
    let ground = Recorded::start(DatabaseKind::Sqlite).await;
    let gateway = ground.gateway(&[("GATEWAY_SESSIONS_PER_SUBJECT", "2")]).await;
    let token = ground.entra.token().build();
    let oldest = session_in(&post(&gateway, "/external/login", &token).await);
    let second = session_in(&post(&gateway, "/external/login", &token).await);
    // The third sends one along, and is one too many.
    let login = client().post(gateway.url("/external/login")).bearer_auth(&token).session(&second);
    assert_eq!(login.send().await.unwrap().status(), 200);
    until("both are written down", async || of_kind(&ground, "logout").len() == 2).await;
    let mut ended: Vec<_> = of_kind(&ground, "logout")
        .into_iter()
        .map(|record| (record[9].clone(), record[6].clone()))
        .collect();
    ended.sort();
    let of = |reason: &str, session: &str| (reason.to_owned(), handle(session));
    assert_eq!(ended, [of("replaced", &second), of("too_many", &oldest)]);
}

#[tokio::test]
async fn which_settings_a_gateway_saw_and_who_accepted_them_is_written_down_at_its_start() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let accepted = [("GATEWAY_EXPOSURE_ACCEPTED_BY", "Ada, 2026-11-26")];
        let _gateway = ground.gateway(&accepted).await;
        let seen = the(&ground, "settings_seen").await;
        assert!(seen[10].contains("GATEWAY_EXTERNAL_ACCESS=on"), "{kind:?}: {seen:?}");
        let accepted = the(&ground, "exposure_accepted").await;
        assert_eq!(accepted[2], "Ada, 2026-11-26", "{kind:?}");
        assert!(accepted[10].contains(CLIENT), "{kind:?}: {accepted:?}");
    }
}

#[tokio::test]
async fn collectors_get_the_same_records() {
    let collector = Collector::start().await;
    let ground = Recorded::start(BOTH[0]).await;
    let settings = collector.settings();
    let more: Vec<_> = settings.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let gateway = ground.gateway(&more).await;
    let answer = post(&gateway, "/external/login", &ground.entra.token().build()).await;
    let session = session_in(&answer);
    let nobody = ground.entra.token().roles(&[]).scopes("Other").build();
    assert_eq!(post(&gateway, "/external/login", &nobody).await.status(), 403);
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
    let asked = format!("SELECT {columns} FROM activity ORDER BY id");
    let told = || -> Vec<String> {
        let mut told = Vec::new();
        for record in collector.records() {
            let has = |name: &str| {
                let of_record = (name == "event.name").then(|| record.event_name.clone());
                let of_record =
                    of_record.filter(|name| !name.is_empty() && !name.contains("event "));
                attribute(&record.attributes, name).or(of_record).unwrap_or_default()
            };
            if !has("event.id").is_empty() {
                told.push(names.map(has).join("|"));
            }
        }
        told.sort();
        told
    };
    until("all of them are there", async || {
        let written = ground.database.ask(&asked);
        let mut written: Vec<_> = written.lines().collect();
        written.sort_unstable();
        written.len() >= 5 && told() == written
    })
    .await;
}

#[tokio::test]
async fn nothing_that_opens_anything_is_ever_in_the_database() {
    for kind in BOTH {
        let ground = Recorded::start(kind).await;
        let gateway = ground.gateway(&[MANAGED]).await;
        ground.command(ENABLE).await;
        let token = ground.entra.token().build();
        let is_on = async || post(&gateway, "/external/login", &token).await.status() == 200;
        until("it is on", is_on).await;
        let answer = post(&gateway, "/external/login", &token).await;
        let session = session_in(&answer);
        // In places where they do not belong.
        let odd = client().post(gateway.url("/external/login")).header("user-agent", &token);
        let odd = odd.header("x-request-id", &session);
        assert_eq!(odd.bearer_auth(&token).send().await.unwrap().status(), 200);
        let stranger = ground.entra.token().signed_by_stranger().build();
        assert_eq!(post(&gateway, "/external/login", &stranger).await.status(), 401);
        let in_query = client().post(gateway.url(&format!("/external/login?token={token}")));
        in_query.bearer_auth(&stranger).send().await.unwrap();
        let guarded = client().get(gateway.url("/external/x")).session(&session);
        guarded.bearer_auth(&token).send().await.unwrap();
        let logout = client().post(gateway.url("/external/logout")).session(&session);
        logout.bearer_auth(&token).send().await.unwrap();
        ground.command(&format!("access block --subject {USER_OID} --for 1h --by Ada")).await;
        ground.command("sessions end --all --by Ada").await;
        until("it is shut", async || {
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
