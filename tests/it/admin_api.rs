//! Administration API `/gateway/api/*` and its access control.

use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::world::{
    API, Kind, Store, World,
    administrators::{Person, managed, managed_in, metadata},
    client,
    gateway::run,
    json,
    postgres::Postgres,
    process::until,
    redis::free_port,
    status, try_login,
};

async fn problem(answer: Response, status: u16) -> Value {
    let content_type = answer.headers().get("content-type").cloned();
    assert_eq!(answer.status(), status, "{}", answer.text().await.unwrap());
    assert_eq!(content_type.unwrap(), "application/problem+json");
    json(answer).await
}

/// Complete administration sequence, over one session store.
async fn administer(kind: Kind, more: &[(&str, &str)]) {
    let (world, _folder) = managed(kind, more).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;

    let before = admin.get_json(gateway, "/gateway/api/access").await;
    assert_eq!((&before["mode"], &before["enabled"]), (&json!("managed"), &json!(false)));
    assert_eq!(before["since"], Value::Null);
    assert_eq!(metadata(gateway).await, 404);
    assert_eq!(try_login(gateway, &world.entra.token().build()).await.status(), 404);

    let hasty = json!({"enabled": true});
    problem(admin.post(gateway, "/gateway/api/access", &hasty).await, 422).await;
    assert_eq!(metadata(gateway).await, 404, "access stays disabled");
    let begun = Instant::now();
    admin.enable(gateway).await;
    until("metadata answers", async || metadata(gateway).await == 200).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let after = admin.get_json(gateway, "/gateway/api/access").await;
    assert_eq!((&after["enabled"], &after["by"]["name"]), (&json!(true), &json!("Grace Hopper")));
    assert_eq!(after["instances"][0]["is_this"], true);
    let served = client()
        .get(gateway.url("/.well-known/oauth-protected-resource/external/login"))
        .send()
        .await
        .unwrap();
    assert_eq!(after["metadata"], json(served).await, "the served document");

    let (one, two) = (
        world.login(&world.entra.token().build()).await,
        world.login(&world.entra.token().build()).await,
    );
    let listed = admin.get_json(gateway, "/gateway/api/sessions").await;
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 2, "{listed}");
    let first = &listed["sessions"][1];
    let subject = first["subject"].as_str().unwrap();
    let activity = admin.get_json(gateway, "/gateway/api/activity?kind=login").await;
    assert_eq!(activity["records"].as_array().unwrap().len(), 2);
    let handles = |list: &Value, of: &str| {
        let all = list.as_array().unwrap().iter();
        let mut handles: Vec<_> = all.map(|it| it[of].as_str().unwrap().to_owned()).collect();
        handles.sort();
        handles
    };
    let handles_of_both = handles(&listed["sessions"], "id");
    assert_eq!(handles(&activity["records"], "session"), handles_of_both);

    // One session by its handle, the other by its whole id, which must not appear in the log.
    let id_of = |cookie: &str| {
        let parts: Vec<_> = cookie.split('.').collect();
        format!("{}.{}", parts[0], parts[1])
    };
    let whole = format!("/gateway/api/sessions/{}", id_of(&one));
    let ended = admin.delete(gateway, &whole).await;
    assert_eq!(json(ended).await["ended"], 1);
    assert_eq!(status(gateway.url(API), &one).await, 401);
    assert_eq!(status(gateway.url(API), &two).await, 200);
    assert!(!gateway.process.log().contains(one.split('.').next().unwrap()));
    assert!(gateway.process.log().contains("/gateway/api/sessions/{id}"));
    let left = admin.get_json(gateway, &format!("/gateway/api/sessions?subject={subject}")).await;
    let handle = left["sessions"][0]["id"].as_str().unwrap().to_owned();
    let ended = admin.delete(gateway, &format!("/gateway/api/sessions/{handle}")).await;
    assert_eq!(ended.status(), 200);
    assert_eq!(status(gateway.url(API), &two).await, 401);
    problem(admin.delete(gateway, &format!("/gateway/api/sessions/{handle}")).await, 404).await;
    for nothing in ["nobody", "%ff", "0123456789abcdef"] {
        let path = format!("/gateway/api/sessions/{nothing}");
        problem(admin.delete(gateway, &path).await, 404).await;
    }
    let activity =
        admin.get_json(gateway, "/gateway/api/activity?kind=session_ended_by_admin").await;
    assert_eq!(handles(&activity["records"], "session"), handles_of_both);
    assert_eq!(activity["records"][0]["actor"]["email"], "grace@contoso.example");

    // A subject is blocked, then unblocked.
    let three = world.login(&world.entra.token().build()).await;
    let block = json!({"subject": subject, "for": "1h"});
    let blocked = admin.post(gateway, "/gateway/api/blocks", &block).await;
    assert_eq!(json(blocked).await["blocks"][0]["who"], subject);
    until("the session has ended", async || status(gateway.url(API), &three).await == 401).await;
    assert_eq!(try_login(gateway, &world.entra.token().build()).await.status(), 403);
    let one_block = format!("/gateway/api/blocks/subject/{subject}");
    assert_eq!(admin.delete(gateway, &one_block).await.status(), 204);
    problem(admin.delete(gateway, &one_block).await, 404).await;
    until("login is open again", async || {
        try_login(gateway, &world.entra.token().build()).await.status() == 200
    })
    .await;

    let four = world.login(&world.entra.token().build()).await;
    let off = json!({"enabled": false, "end_sessions": true});
    assert_eq!(admin.post(gateway, "/gateway/api/access", &off).await.status(), 200);
    assert_eq!(metadata(gateway).await, 404);
    assert_eq!(status(gateway.url(API), &four).await, 401);
    assert_eq!(status(gateway.url(API), &admin.cookie).await, 200, "browser sessions stay valid");
}

#[tokio::test]
async fn the_admin_api_works_end_to_end_with_file_sessions() {
    administer(Kind::Files, &[]).await;
}

#[tokio::test]
async fn the_admin_api_works_end_to_end_with_redis_sessions_under_another_key_prefix() {
    administer(Kind::Redis, &[("SESSION_KEY_PREFIX", "chat:")]).await;
}

#[tokio::test]
async fn non_administrators_are_refused_and_the_denial_is_recorded() {
    let (world, _folder) = managed(Kind::Redis, &[("GATEWAY_SESSION_ROLES", "*")]).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    admin.enable(gateway).await;
    let minted = Person {
        cookie: world.login(&world.entra.token().roles(&["Admin", "ExternalApi"]).build()).await,
    };
    let user = Person::with_roles(gateway, "User").await;
    let claims = json!({"oid": "99999999-0000-0000-0000-000000000002", "roles": "Admin"});
    let text = Person::with_claims(gateway, claims).await;
    let anonymous = Person { cookie: "A".repeat(43) };
    let decision = json!({"enabled": false});

    let mut expected = 0;
    for (person, reason) in [
        (&minted, "minted_session"),
        (&user, "not_an_administrator"),
        (&text, "not_an_administrator"),
    ] {
        let refused =
            problem(person.post(gateway, "/gateway/api/access", &decision).await, 403).await;
        assert!(refused["detail"].is_string());
        let page = person.get(gateway, "/gateway/admin").await;
        assert_eq!(page.status(), 403);
        assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        expected += 2;
        let denials = admin.denials(gateway, expected).await;
        assert_eq!(denials[0]["reason"], reason);
        assert_eq!(denials[0]["outcome"], "failure");
    }
    let denials = admin.denials(gateway, 6).await;
    assert_eq!(denials.len(), 6);
    assert_eq!(denials[0]["actor"]["oid"], "99999999-0000-0000-0000-000000000002");
    assert!(denials[5]["session"].is_string() && denials[5]["subject"].is_string());

    // The name is that of the token from which the session was created.
    assert_eq!(denials[5]["actor"]["name"], "Ada Example");
    let log = admin.get(gateway, "/gateway/admin/activity?kind=admin_denied").await;
    let log = log.text().await.unwrap();
    for words in ["gateway-issued session", "the app role Admin is not assigned", "Ada Example"] {
        assert!(log.contains(words), "{words}: {log}");
    }

    // Anonymous requests are not recorded: they are asked to sign in.
    let unsigned =
        problem(anonymous.post(gateway, "/gateway/api/access", &decision).await, 401).await;
    assert_eq!(unsigned["detail"], "Sign in to SimpleChat first");
    let page = anonymous.get(gateway, "/gateway/admin/sessions").await;
    assert_eq!(page.status(), 401);
    assert!(page.text().await.unwrap().contains("href=\"/login\""));
    let bearer = client().get(gateway.url("/gateway/api/access"));
    let bearer = bearer.bearer_auth(world.entra.token().roles(&["Admin"]).build());
    problem(bearer.send().await.unwrap(), 401).await;
    assert_eq!(admin.denials(gateway, 6).await.len(), 6);
    let still = admin.get_json(gateway, "/gateway/api/access").await;
    assert_eq!(still["enabled"], true);
}

/// CSRF token in a page's forms.
async fn token(person: &Person, world: &World) -> String {
    let page = person.get(&world.gateway, "/gateway/admin/sessions").await.text().await.unwrap();
    let (_, rest) = page.split_once("name=\"csrf\" value=\"").expect("a form");
    rest.split_once('"').unwrap().0.to_owned()
}

#[tokio::test]
async fn cross_site_requests_and_wrong_csrf_tokens_are_refused_and_recorded() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    let other = Person::admin(gateway).await;
    let (own, others) = (token(&admin, &world).await, token(&other, &world).await);
    assert!(own != others && own.len() == 43);
    let send = async |token: Option<&str>, headers: &[(&str, &str)]| {
        let token = token.map_or_else(String::new, |token| format!("&csrf={token}"));
        let mut request = admin
            .ask(Method::POST, gateway.url("/gateway/admin/access/enable"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("accept=yes{token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    let here = gateway.url("");
    for (token, headers, reason) in [
        (Some(&*own), [("origin", "https://evil.example")].as_slice(), "foreign_origin"),
        (Some(&own), &[("origin", "null")], "foreign_origin"),
        (
            Some(&own),
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", "document"),
            ],
            "foreign_origin",
        ),
        (Some(&own), &[("sec-fetch-site", "same-site"), ("origin", &here)], "foreign_origin"),
        (Some(&own), &[("sec-fetch-site", "none")], "foreign_origin"),
        (None, &[("origin", &here)], "csrf"),
        (Some(&others), &[("origin", &here), ("sec-fetch-site", "same-origin")], "csrf"),
        (Some("AAAA"), &[], "csrf"),
    ] {
        let count = admin.denials(gateway, 0).await.len();
        let answer = send(token, headers).await;
        assert_eq!(answer.status(), 403, "{headers:?}");
        let denials = admin.denials(gateway, count + 1).await;
        assert_eq!(denials[0]["reason"], reason, "{headers:?}");
        assert_eq!(denials[0]["actor"]["name"], "Grace Hopper");
    }
    assert_eq!(admin.get_json(gateway, "/gateway/api/access").await["enabled"], false);
    // A cross-site page may link to the page, but reads nothing.
    let get = |site: &'static str, mode: &'static str, path: &str| {
        admin
            .ask(Method::GET, gateway.url(path))
            .header("sec-fetch-site", site)
            .header("sec-fetch-mode", mode)
            .header("sec-fetch-dest", if mode == "navigate" { "document" } else { "empty" })
            .send()
    };
    for (site, mode, path, status) in [
        ("cross-site", "navigate", "/gateway/admin", 200),
        ("none", "navigate", "/gateway/api/access", 200),
        ("same-origin", "cors", "/gateway/api/access", 200),
        ("cross-site", "no-cors", "/gateway/admin", 403),
        ("cross-site", "navigate", "/gateway/api/access", 403),
        ("same-site", "cors", "/gateway/api/access", 403),
    ] {
        let answer = get(site, mode, path).await.unwrap();
        assert_eq!(answer.status(), status, "{site} {mode} {path}");
    }
    // JSON requests need a content type that no form can send; a wrong CSRF token is refused.
    let post = || admin.ask(Method::POST, gateway.url("/gateway/api/access"));
    let body = json!({"enabled": true, "exposure_accepted": true}).to_string();
    let plain = post().header("content-type", "text/plain").body(body.clone());
    problem(plain.send().await.unwrap(), 415).await;
    let wrong = post().header("content-type", "application/json").header("x-csrf-token", &others);
    problem(wrong.body(body.clone()).send().await.unwrap(), 403).await;
    let right = post().header("content-type", "application/json").header("x-csrf-token", &own);
    assert_eq!(right.body(body).send().await.unwrap().status(), 200);
    // The form, as the page sends it, needs the consent box as well.
    admin.post(gateway, "/gateway/api/access", &json!({"enabled": false})).await;
    let unticked = admin
        .ask(Method::POST, gateway.url("/gateway/admin/access/enable"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("csrf={own}"));
    let unticked = unticked.send().await.unwrap();
    assert_eq!(unticked.headers()["location"], "/gateway/admin?done=not-accepted");
    assert_eq!(admin.get_json(gateway, "/gateway/api/access").await["enabled"], false);
    let accepted = send(Some(&own), &[("origin", &here), ("sec-fetch-site", "same-origin")]).await;
    assert_eq!(accepted.status(), 303);
    assert_eq!(accepted.headers()["location"], "/gateway/admin?done=enabled");
}

#[tokio::test]
async fn every_admin_response_forbids_caching_framing_and_cross_origin_use() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let admin = Person::admin(&world.gateway).await;
    for path in [
        "/gateway/admin",
        "/gateway/admin/guide",
        "/gateway/admin/sessions",
        "/gateway/admin/activity",
        "/gateway/admin/activity.csv",
        "/gateway/admin/activity.jsonl",
        "/gateway/admin/health",
        "/gateway/admin/page.css",
        "/gateway/admin/page.js",
        "/gateway/admin/nothing",
        "/gateway/api/access",
        "/gateway/api/nothing",
    ] {
        for who in [Some(&admin), None] {
            let url = world.gateway.url(path);
            let answer = match who {
                Some(admin) => admin.get(&world.gateway, path).await,
                None => client().get(url).send().await.unwrap(),
            };
            let headers = answer.headers();
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
            assert!(
                policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'")
            );
            for (name, value) in [
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(headers[name], value, "{path}");
            }
            assert!(
                headers.contains_key("permissions-policy")
                    && headers.contains_key("referrer-policy")
            );
            let is_asset = path.contains("/page.");
            if who.is_none() && !is_asset && !path.ends_with("nothing") {
                assert_eq!(answer.status(), 401, "{path}");
            }
            let page = answer.text().await.unwrap();
            if path.starts_with("/gateway/admin") && !is_asset {
                for inline in ["<style", " style=", " onclick=", "javascript:"] {
                    assert!(!page.contains(inline), "{path}: {inline}");
                }
            }
        }
    }
}

/// Includes spellings that match no route.
#[tokio::test]
async fn every_response_below_gateway_has_a_deny_all_content_security_policy() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let admin = Person::admin(&world.gateway).await;
    for path in [
        "/gateway/",
        "/gateway/%61dmin",
        "/gateway/ADMIN",
        "/gateway/admin%2factivity",
        "/gateway//admin",
        "/gateway/./admin",
        "/gateway/administrators",
        "/gateway/%61pi/access",
        "/gateway/docs",
        "/gateway/docs/",
        "/gateway/openapi.json",
        "/gateway/health/live",
        "/gateway/health/%",
        "/gateway/\u{e4}",
    ] {
        for method in ["GET", "PROPFIND"] {
            let cookie = &admin.cookie;
            let got = world
                .gateway
                .raw(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nCookie: session={cookie}\r\nConnection: close\r\n\r\n"))
                .await;
            for field in [
                "content-security-policy: default-src 'none'; ",
                "x-content-type-options: nosniff\r\n",
                "referrer-policy: ",
            ] {
                assert_eq!(got.matches(&format!("\r\n{field}")).count(), 1, "{path} {field} {got}");
            }
            assert!(got.contains("frame-ancestors 'none'"), "{path} {got}");
        }
    }
}

/// The OpenAPI document describes an object without other members.
#[tokio::test]
async fn a_decision_must_be_one_json_object_with_documented_members_only() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let (gateway, admin) = (&world.gateway, Person::admin(&world.gateway).await);
    admin.enable(gateway).await;
    let send = async |path: &str, body: &str| {
        let request = admin.ask(Method::POST, gateway.url(path));
        let request = request.header("content-type", "application/json").body(body.to_owned());
        request.send().await.unwrap()
    };
    let who = "00000000-0000-0000-0000-0000000000bb";
    for (path, bodies) in [
        (
            "/gateway/api/access",
            &[
                "[false]",
                "[false,false,false]",
                " [true, true]",
                "[{\"enabled\":false}]",
                "{\"enabled\":false,\"other\":1}",
                "{\"enabled\":false,\"enabled\":false}",
                "{\"enabled\":\"false\"}",
                "{\"enabled\":0}",
                "{\"enabled\":null}",
                "{\"enabled\":false}{}",
                "{\"enabled\":false},",
                "{}",
                "null",
                "false",
                "\"false\"",
                "",
                "\u{feff}{\"enabled\":false}",
            ][..],
        ),
        (
            "/gateway/api/blocks",
            &[
                "[\"00000000-0000-0000-0000-0000000000bb\",null,\"1h\"]",
                "[null,\"00000000-0000-0000-0000-0000000000bb\",\"1h\"]",
                "{\"subject\":\"00000000-0000-0000-0000-0000000000bb\",\"for\":\"1h\",\"x\":1}",
                "{\"subject\":[\"00000000-0000-0000-0000-0000000000bb\"],\"for\":\"1h\"}",
                "{\"subject\":\"00000000-0000-0000-0000-0000000000bb\",\"for\":[\"1h\"]}",
            ],
        ),
    ] {
        for body in bodies {
            let problem = problem(send(path, body).await, 422).await;
            assert!(problem["detail"].is_string(), "{path} {body}");
        }
    }
    assert_eq!(admin.get_json(gateway, "/gateway/api/access").await["enabled"], true);
    assert_eq!(admin.get_json(gateway, "/gateway/api/blocks").await["blocks"], json!([]));
    let block = format!(" \r\n\t{{\"subject\":\"{who}\", \"for\":\"1h\"}} \n");
    assert_eq!(send("/gateway/api/blocks", &block).await.status(), 200);
    assert_eq!(send("/gateway/api/access", "\n{\"enabled\":false}").await.status(), 200);
}

#[tokio::test]
async fn oversized_bodies_are_refused_and_the_connection_stays_in_sync() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    let head = |more: &str| {
        format!(
            "POST /gateway/api/access HTTP/1.1\r\nHost: {}\r\nCookie: session={}\r\nContent-Type: application/json\r\n{more}\r\n\r\n",
            gateway.address(),
            admin.cookie
        )
    };
    let next = format!(
        "GET /gateway/health/live HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        gateway.address()
    );
    let statuses = |answer: &str| -> Vec<String> {
        let heads = answer.split("HTTP/1.1 ").skip(1);
        heads.map(|head| head.chars().take(3).collect()).collect()
    };
    let decision = "{\"enabled\":false}";
    let sized = format!("{}{decision}{next}", head(&format!("Content-Length: {}", decision.len())));
    assert_eq!(statuses(&gateway.raw(sized).await), ["200", "200"]);
    let chunks: Vec<_> = decision.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    let chunks = chunks.concat();
    let chunked = format!("{}{chunks}0\r\n\r\n{next}", head("Transfer-Encoding: chunked"));
    assert_eq!(statuses(&gateway.raw(chunked).await), ["200", "200"]);
    let awaiting = format!(
        "{}{decision}{next}",
        head(&format!("Expect: 100-continue\r\nContent-Length: {}", decision.len()))
    );
    assert_eq!(statuses(&gateway.raw(awaiting).await).last().unwrap(), "200");
    // The rest of an oversized body is not read: the connection closes after the response.
    let long = "x".repeat(64 * 1024 + 1);
    let sized = format!("{}{long}{next}", head(&format!("Content-Length: {}", long.len())));
    assert_eq!(statuses(&gateway.raw(sized).await), ["413"]);
    let chunked = format!(
        "{}{:x}\r\n{long}\r\n0\r\n\r\n{next}",
        head("Transfer-Encoding: chunked"),
        long.len()
    );
    assert_eq!(statuses(&gateway.raw(chunked).await), ["413"]);
    let cut = format!("{}zz\r\n", head("Transfer-Encoding: chunked"));
    assert_eq!(statuses(&gateway.raw(cut).await), ["400"]);
    let slow = head("Content-Length: 17");
    assert_eq!(statuses(&gateway.raw(slow).await), ["408"]);
    // Other routes of the gateway skip request bodies.
    let logout = format!(
        "POST /external/logout HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello{next}"
    );
    assert_eq!(statuses(&gateway.raw(logout).await), ["401", "200"]);
}

#[tokio::test]
async fn administrators_get_503_while_the_session_store_is_unavailable() {
    let (mut world, _folder) = managed(Kind::Redis, &[]).await;
    let admin = Person::admin(&world.gateway).await;
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };
    redis.end();
    problem(admin.get(&world.gateway, "/gateway/api/access").await, 503).await;
    let decision = json!({"enabled": true, "exposure_accepted": true});
    problem(admin.post(&world.gateway, "/gateway/api/access", &decision).await, 503).await;
    let page = admin.get(&world.gateway, "/gateway/admin").await;
    assert_eq!(page.status(), 503);
    let page = page.text().await.unwrap();
    assert!(page.contains("Temporarily unavailable") && page.contains("href=\"/gateway/admin\""));
    assert!(
        page.contains("The session store is unavailable, so your session cannot be verified"),
        "{page}"
    );
}

/// Queued decisions cannot be recorded first, and would later revoke a decision recorded before
/// them.
#[tokio::test]
async fn enabling_and_unblocking_are_refused_while_queued_decisions_cannot_be_read() {
    let (world, folder) = managed(Kind::Redis, &[]).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    let subject = "99999999-0000-0000-0000-000000000003";
    let block = json!({"subject": subject, "for": "1h"});
    let blocked = admin.post(gateway, "/gateway/api/blocks", &block).await;
    assert_eq!(blocked.status(), 200);
    // Value of another type than the gateway reads there.
    let waiting = "gateway:{notes}:waiting:decisions";
    world.store.redis().ask(&["SET", waiting, "x"]);
    let enable = json!({"enabled": true, "exposure_accepted": true});
    problem(admin.post(gateway, "/gateway/api/access", &enable).await, 503).await;
    let path = format!("/gateway/api/blocks/subject/{subject}");
    problem(admin.delete(gateway, &path).await, 503).await;
    let settings = managed_in(&folder);
    let more: Vec<_> = settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut settings = world.settings_with(&more);
    settings.retain(|(name, _)| name != "GATEWAY_EXPOSURE_ACCEPTED_BY");
    for line in [
        "access enable --accepted-by Ada --i-understand-ids-become-public".to_owned(),
        format!("access unblock --subject {subject}"),
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        let output = run(&settings, &arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{line}: {stderr}");
        assert!(
            stderr.contains("nothing has changed") && stderr.contains("recorded first"),
            "{stderr}"
        );
    }
    let disable = json!({"enabled": false});
    assert_eq!(admin.post(gateway, "/gateway/api/access", &disable).await.status(), 200);
    world.store.redis().ask(&["DEL", waiting]);
    assert_eq!(admin.get_json(gateway, "/gateway/api/access").await["enabled"], false);
    assert_eq!(admin.get_json(gateway, "/gateway/api/blocks").await["blocks"][0]["who"], subject);
    assert_eq!(admin.delete(gateway, &path).await.status(), 204);
    assert_eq!(admin.post(gateway, "/gateway/api/access", &enable).await.status(), 200);
}

#[tokio::test]
async fn without_the_database_only_restricting_decisions_are_accepted() {
    let mut postgres = Postgres::start().await;
    let url = postgres.url();
    let more = [("GATEWAY_EXTERNAL_ACCESS", "managed"), ("DATABASE_URL", url.as_str())];
    let world = World::with(Kind::Files, &more).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    assert_eq!(admin.get(gateway, "/gateway/api/access").await.status(), 200);
    postgres.stop().await;
    let decision = json!({"enabled": true, "exposure_accepted": true});
    problem(admin.post(gateway, "/gateway/api/access", &decision).await, 503).await;
    problem(admin.get(gateway, "/gateway/api/activity").await, 503).await;
    let subject = "99999999-0000-0000-0000-000000000003";
    let block = json!({"subject": subject, "for": "1h"});
    let blocked = admin.post(gateway, "/gateway/api/blocks", &block).await;
    assert_eq!(blocked.status(), 200);
    assert_eq!(json(blocked).await["blocks"][0]["who"], subject);
    let page = admin.get(gateway, "/gateway/admin").await;
    assert_eq!(page.status(), 503);
    let page = page.text().await.unwrap();
    assert!(page.contains("Status unknown") && !page.contains("Enable external access"));
    // Views without the database work, and the refusal names them.
    let log = admin.get(gateway, "/gateway/admin/activity").await;
    assert_eq!(log.status(), 503);
    let log = log.text().await.unwrap();
    assert!(log.contains("Sessions and Health are available without the database"), "{log}");
    assert!(log.contains("href=\"/gateway/admin/sessions\""), "{log}");
    assert_eq!(admin.get(gateway, "/gateway/api/sessions").await.status(), 200);
    assert_eq!(admin.get(gateway, "/gateway/admin/health").await.status(), 200);
    postgres.start_again().await;
    until("the database is available again", async || {
        admin.get(gateway, "/gateway/api/access").await.status() == 200
    })
    .await;
    let after = admin.get_json(gateway, "/gateway/api/access").await;
    assert_eq!((&after["enabled"], &after["since"]), (&json!(false), &Value::Null));
    let recorded = "SELECT count(*) FROM activity WHERE kind = 'subject_blocked'";
    until("the block is recorded", async || postgres.ask(recorded) == "1").await;
    assert_eq!(admin.get_json(gateway, "/gateway/api/blocks").await["blocks"][0]["who"], subject);
}

#[tokio::test]
async fn decisions_are_refused_where_a_setting_controls_external_access() {
    let decision = json!({"enabled": false});
    // On by setting, accepted by a name; without a database.
    let world = World::start(Kind::Files).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    let current = admin.get_json(gateway, "/gateway/api/access").await;
    assert_eq!((&current["mode"], &current["enabled"]), (&json!("on"), &json!(true)));
    assert_eq!(current["by"]["name"], "a test");
    for path in ["/gateway/api/activity", "/gateway/api/blocks"] {
        problem(admin.get(gateway, path).await, 409).await;
    }
    problem(admin.post(gateway, "/gateway/api/access", &decision).await, 409).await;
    let page = admin.get(gateway, "/gateway/admin").await.text().await.unwrap();
    assert!(
        page.contains("GATEWAY_EXTERNAL_ACCESS=on") && page.contains("<strong>a test</strong>")
    );
    assert!(page.contains("DATABASE_URL"), "the page names the missing setting");
    for view in ["sessions", "health", "guide", "activity"] {
        let path = format!("/gateway/admin/{view}");
        assert_eq!(admin.get(gateway, &path).await.status(), 200, "{view}");
    }
    // Off by setting, with a database: blocks and the activity log work.
    let (world, _folder) = managed(Kind::Files, &[("GATEWAY_EXTERNAL_ACCESS", "off")]).await;
    let admin = Person::admin(&world.gateway).await;
    problem(admin.post(&world.gateway, "/gateway/api/access", &decision).await, 409).await;
    assert_eq!(admin.get(&world.gateway, "/gateway/api/activity").await.status(), 200);
    let page = admin.get(&world.gateway, "/gateway/admin").await.text().await.unwrap();
    assert!(page.contains("GATEWAY_EXTERNAL_ACCESS=off"));
}

// The activity view shows callers and reasons without opening a row, in words; codes are for
// programs.
#[tokio::test]
async fn the_activity_view_names_verified_callers_and_shows_reasons_in_words() {
    let (world, _folder) = managed(Kind::Files, &[("GATEWAY_SESSIONS_PER_SUBJECT", "2")]).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    admin.enable(gateway).await;
    let mut last = String::new();
    for _ in 0..3 {
        last = world.login(&world.entra.token().build()).await;
    }
    let logout = client().post(gateway.url("/external/logout"));
    let logout = logout.header("cookie", format!("session={last}")).send().await.unwrap();
    assert_eq!(logout.status(), 204);
    let named = |name: &str| world.entra.token().roles(&["User"]).claim("name", json!(name));
    let hostile = "<script>alert(1)</script>";
    for name in ["Mary Jackson", hostile] {
        let token = named(name).claim("preferred_username", json!("mary@contoso.example")).build();
        let denied = problem(try_login(gateway, &token).await, 403).await;
        assert!(denied["detail"].is_string());
    }
    // Claims of unverified tokens are not recorded: one token is for another tenant, one is signed
    // with an unknown key.
    let unverified = "Unverified Caller";
    let tenant = json!("99999999-9999-9999-9999-999999999999");
    for token in [
        named(unverified).claim("tid", tenant).build(),
        named(unverified).signed_with_unpublished_key().build(),
    ] {
        problem(try_login(gateway, &token).await, 401).await;
    }
    until("all denials are recorded", async || {
        let path = "/gateway/api/activity?kind=login_denied";
        let denied = admin.get_json(gateway, path).await;
        denied["records"].as_array().unwrap().len() == 4
    })
    .await;

    let records = async |kind: &str| {
        let path = format!("/gateway/api/activity?kind={kind}");
        let page = admin.get_json(gateway, &path).await;
        page["records"].as_array().unwrap().clone()
    };
    let denied = records("login_denied").await;
    let actors: Vec<_> = denied.iter().map(|it| (&it["reason"], &it["actor"]["name"])).collect();
    assert_eq!(
        actors,
        [
            (&json!("token_signature"), &Value::Null),
            (&json!("token_tenant"), &Value::Null),
            (&json!("scope_missing"), &json!(hostile)),
            (&json!("scope_missing"), &json!("Mary Jackson")),
        ]
    );
    assert_eq!(denied[2]["actor"]["email"], "mary@contoso.example");
    assert_eq!(denied[2]["actor"]["oid"], denied[2]["subject"]);
    assert!(!gateway.process.log().contains(unverified));
    let reasons: Vec<_> = records("logout").await.iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons, [Value::Null, json!("too_many")], "codes are public names");

    let page = admin.get(gateway, "/gateway/admin/activity").await.text().await.unwrap();
    // Visible without opening a row.
    let summaries: Vec<_> =
        page.split("<summary>").skip(1).filter_map(|it| it.split("</summary>").next()).collect();
    for words in [
        "replaced by a newer sign-in: limit of 2 sessions per person",
        "the access token lacks a scope required to sign in",
        "the access token belongs to another tenant",
        "the signature of the access token is not valid",
    ] {
        assert!(summaries.iter().any(|it| it.contains(words)), "{words}: {summaries:?}");
    }
    let logged_out = summaries.iter().filter(|it| it.contains("logged out")).count();
    assert_eq!(logged_out, 1, "only the session that its caller ended: {summaries:?}");
    assert!(page.contains(">Mary Jackson<") && page.contains("mary@contoso.example"), "{page}");
    assert!(!page.contains("<script>alert") && page.contains("&#60;script&#62;"), "{page}");
    let found = admin.get(gateway, "/gateway/admin/activity?person=mary%20jack").await;
    assert_eq!(found.text().await.unwrap().matches("<summary>").count(), 1);

    let printed = async |arguments: &[&str]| {
        let output = run(&world.settings_with(&[]), arguments).await;
        String::from_utf8(output.stdout).unwrap()
    };
    let text = printed(&["activity"]).await;
    for words in [
        "session replaced",
        "reason=replaced by a newer sign-in: limit of 2 sessions per person",
        "reason=the access token lacks a scope required to sign in",
        "by=mary@contoso.example",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("scope_missing"), "{text}");
    let lines = printed(&["activity", "--json"]).await;
    assert!(
        lines.contains("\"reason\":\"too_many\"") && lines.contains("scope_missing"),
        "{lines}"
    );
}

#[tokio::test]
async fn the_activity_log_is_paged_by_the_api_and_exported_as_csv_and_jsonl() {
    let (world, _folder) = managed(Kind::Files, &[]).await;
    let gateway = &world.gateway;
    // Spreadsheets would evaluate such a name as a formula.
    let name = "=HYPERLINK(\"https://evil.example\")";
    let claims =
        json!({"oid": "99999999-0000-0000-0000-000000000004", "name": name, "roles": ["Admin"]});
    let admin = Person::with_claims(gateway, claims).await;
    admin.enable(gateway).await;
    for _ in 0..4 {
        world.login(&world.entra.token().build()).await;
    }
    let first = admin.get_json(gateway, "/gateway/api/activity?kind=login&limit=3").await;
    assert_eq!(first["records"].as_array().unwrap().len(), 3);
    let before = first["before"].as_str().unwrap();
    let rest = format!("/gateway/api/activity?kind=login&limit=3&before={before}");
    let rest = admin.get_json(gateway, &rest).await;
    assert_eq!((rest["records"].as_array().unwrap().len(), &rest["before"]), (1, &Value::Null));
    for wrong in ["kind=nothing", "limit=0", "since=yesterday", "before=x"] {
        let path = format!("/gateway/api/activity?{wrong}");
        problem(admin.get(gateway, &path).await, 422).await;
    }
    let file = admin.get(gateway, "/gateway/admin/activity.csv?kind=exposure_accepted").await;
    assert_eq!(
        file.headers()["content-disposition"],
        "attachment; filename=\"gateway-activity.csv\""
    );
    let csv = file.text().await.unwrap();
    assert!(csv.contains("\"'=HYPERLINK(\"\"https://evil.example\"\")\""), "{csv}");
    assert_eq!(csv.lines().count(), 2);
    let lines = admin.get(gateway, "/gateway/admin/activity.jsonl?kind=login").await;
    let lines = lines.text().await.unwrap();
    assert_eq!(lines.lines().count(), 4);
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    let page = admin.get(gateway, "/gateway/admin/activity").await.text().await.unwrap();
    assert!(page.contains("=HYPERLINK(&#34;https://evil.example&#34;)"), "the name is escaped");
    let since = "/gateway/admin/activity?since=2026-01-02T03:04:05%2B01:00&person=%22%3E";
    let page = admin.get(gateway, since).await.text().await.unwrap();
    assert!(page.contains("value=\"2026-01-02T02:04:05\""), "in UTC, as the input field requires");
    assert!(page.contains("value=\"&#34;&#62;\"") && page.contains("No matching records."));
}

/// Asserts that the page has every setting that `server_minimal.py` of SimpleChat's pull request
/// 722 requires (e913f2f1), each with a value except the client's own id.
fn assert_mcp_server_settings(page: &str, entra: &str) {
    let (_, block) = page.split_once("id=\"environment\">").unwrap();
    let (block, _) = block.split_once("</code>").unwrap();
    for name in [
        "SIMPLECHAT_BASE_URL",
        "SIMPLECHAT_VERIFY_SSL",
        "MCP_REQUIRE_AUTH",
        "MCP_PRM_METADATA_PATH",
        "MCP_SESSION_TOKEN_TTL_SECONDS",
        "FASTMCP_HOST",
        "FASTMCP_PORT",
        "FASTMCP_SCHEME",
        "OAUTH_TOKEN_URL",
        "OAUTH_CLIENT_ID",
        "OAUTH_CLIENT_SECRET",
        "OAUTH_SCOPES",
        "OAUTH_TIMEOUT_SECONDS",
    ] {
        let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = value.unwrap_or_else(|| panic!("{name}: {block}"));
        assert_eq!(value.is_empty(), name == "OAUTH_CLIENT_ID", "{name}");
    }
    let tenant = crate::entra::TENANT;
    for (name, endpoint) in [
        ("OAUTH_AUTHORIZATION_URL", "authorize"),
        ("OAUTH_TOKEN_URL", "token"),
        ("OAUTH_DEVICE_CODE_URL", "devicecode"),
    ] {
        let line = format!("{name}={entra}/{tenant}/oauth2/v2.0/{endpoint}\n");
        assert!(block.contains(&line), "{line}: {block}");
    }
}

#[tokio::test]
async fn the_guide_shows_the_values_of_this_deployment_and_its_checks_pass() {
    let address = format!("127.0.0.1:{}", free_port());
    let origin = format!("http://{address}");
    let more = [
        ("GATEWAY_LISTEN", address.as_str()),
        ("GATEWAY_PUBLIC_URLS", &origin),
        ("GATEWAY_CANARY_INTERVAL", "1s"),
    ];
    let (world, _folder) = managed(Kind::Files, &more).await;
    let gateway = &world.gateway;
    let admin = Person::admin(gateway).await;
    let states = async || {
        let guide = admin.get_json(gateway, "/gateway/api/guide").await;
        let checks = guide["checks"].as_array().unwrap().iter();
        let states = checks.map(|it| format!("{} {}", it["id"], it["state"]).replace('"', ""));
        states.collect::<Vec<_>>()
    };
    let guide = admin.get_json(gateway, "/gateway/api/guide").await;
    let (values, client) = (&guide["values"], crate::entra::CLIENT);
    for (name, value) in [
        ("origin", origin.clone()),
        ("metadata_url", format!("{origin}/.well-known/oauth-protected-resource/external/login")),
        ("login_url", format!("{origin}/external/login")),
        ("tenant", crate::entra::TENANT.to_owned()),
        ("client", client.to_owned()),
        ("scope", format!("api://{client}/.default")),
    ] {
        assert_eq!(values[name], value, "{name}");
    }
    assert_eq!(guide["manifest"]["identifierUris"][0], format!("api://{client}"));
    assert!(guide["commands"].as_str().unwrap().contains(client));
    let page = admin.get(gateway, "/gateway/admin/guide").await.text().await.unwrap();
    assert_mcp_server_settings(&page, &world.entra.url());
    let excluded = &guide["easy_auth"]["properties"]["globalValidation"]["excludedPaths"];
    assert_eq!(excluded[1], "/external/*");
    let before = states().await;
    for state in [
        "access not_yet",
        "keys ok",
        "store ok",
        "upstream ok",
        "honoured unknown",
        "public_url ok",
        "metadata not_yet",
        "first_login not_yet",
    ] {
        assert!(before.iter().any(|it| it == state), "{state}: {before:?}");
    }
    admin.enable(gateway).await;
    world.login(&world.entra.token().build()).await;
    until("all checks pass", async || states().await.iter().all(|it| it.ends_with(" ok"))).await;
    // Requested with an unlisted host: the values are those of the listed one.
    let answer =
        admin.ask(Method::GET, gateway.url("/gateway/api/guide")).header("host", "elsewhere");
    let guide = json(answer.send().await.unwrap()).await;
    assert_eq!(guide["values"]["origin"], origin);
    let check = guide["checks"].as_array().unwrap().iter().find(|it| it["id"] == "public_url");
    assert_eq!(check.unwrap()["state"], "not_yet");
}
