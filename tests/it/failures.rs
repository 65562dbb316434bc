//! Failures of the contract and their responses.

use reqwest::{Method, Response};
use serde_json::json;

use crate::{
    entra::{CLIENT, Entra, Mode, OTHER_CLIENT},
    world::{
        self, Kind, Store, World, client, gateway::Gateway, json, process::until, session_in,
        settings, status, try_login,
    },
};

async fn alone(more: &[(&str, &str)]) -> (Gateway, Entra, Store) {
    let world = world::alone(Kind::Redis, more).await;
    world.0.wait_until_it_has_keys().await;
    world
}

fn challenge(answer: &Response) -> Option<String> {
    answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned())
}

/// Checks the common parts of a refusal and returns its challenge.
async fn refused(answer: Response, status: u16) -> Option<String> {
    let challenge = challenge(&answer);
    assert_eq!(answer.status(), status, "{challenge:?}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert!(!answer.headers().contains_key("set-cookie"));
    if status == 401 {
        assert_eq!(answer.headers()["access-control-expose-headers"], "WWW-Authenticate");
    }
    assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
    let problem = json(answer).await;
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["title"].is_string() && problem["request_id"].is_string());
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    assert_eq!((&problem["error"], &problem["message"]), (&problem["detail"], &problem["detail"]));
    challenge
}

#[tokio::test]
async fn requests_without_credentials_get_a_challenge_with_the_metadata_url() {
    let (gateway, _entra, _store) = alone(&[]).await;
    for (path, resource) in [
        ("/external/login", "external/login"),
        ("/external/public_documents", "external"),
        ("/external/logout", "external"),
    ] {
        let expected = format!(
            "Bearer resource_metadata=\"{}\", scope=\"api://{CLIENT}/.default\"",
            gateway.url(&format!("/.well-known/oauth-protected-resource/{resource}"))
        );
        let bare = client().post(gateway.url(path));
        assert_eq!(refused(bare.send().await.unwrap(), 401).await.as_ref(), Some(&expected));
        let basic = client().post(gateway.url(path)).basic_auth("a", Some("b"));
        assert_eq!(refused(basic.send().await.unwrap(), 401).await, Some(expected));
    }
}

#[tokio::test]
async fn malformed_credentials_are_a_bad_request() {
    let (gateway, entra, _store) = alone(&[]).await;
    let url = gateway.url("/external/login");
    let expected = format!(
        "Bearer error=\"invalid_request\", resource_metadata=\"{}\"",
        gateway.url("/.well-known/oauth-protected-resource/external/login")
    );
    let token = entra.token().build();
    let twice = client().post(&url).bearer_auth(&token).bearer_auth(&token);
    assert_eq!(refused(twice.send().await.unwrap(), 400).await.as_ref(), Some(&expected));
    for line in [
        "Bearer".to_owned(),
        format!("Bearer {token} {token}"),
        format!("Bearer\t{token}"),
        format!("Bearer  {token}  {token}"),
    ] {
        let request = client().post(&url).header("authorization", line);
        assert_eq!(refused(request.send().await.unwrap(), 400).await.as_ref(), Some(&expected));
    }
}

/// RFC 9110 §11.4: `1*SP` (spring-projects/spring-security#19500, `bnchrch/auth0_jwks#1`). Covers
/// every reader of the field: login, logout, guard.
#[tokio::test]
async fn one_or_more_spaces_after_bearer_are_accepted() {
    let world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    for spaces in [" ", "  ", "     "] {
        let ask = async |method: Method, path: &str| {
            let request = client().request(method, world.gateway.url(path));
            let request = request.header("authorization", format!("bEARER{spaces}{token}"));
            request.send().await.unwrap()
        };
        let login = ask(Method::POST, "/external/login").await;
        assert_eq!(login.status(), 200, "{spaces:?}");
        let session = session_in(&login);
        // The guard accepts it; upstream reads the field in its own way.
        let guarded = ask(Method::GET, "/external/test/users").await;
        assert_eq!(guarded.status(), 200, "{spaces:?}");
        assert_eq!(ask(Method::POST, "/external/logout").await.status(), 204, "{spaces:?}");
        until("the session has ended", async || {
            status(world.gateway.url(crate::world::API), &session).await == 401
        })
        .await;
    }
}

/// jetty#7269, apache/trafficserver#13049.
#[tokio::test]
async fn a_refusal_names_the_malformed_host_or_forwarding_header() {
    let (gateway, ..) = alone(&[("GATEWAY_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    for (named, fields) in [
        ("Host", "Host: a:0\r\n"),
        ("Host", "Host: a:x\r\n"),
        ("Host", "Host: a b\r\n"),
        ("Host", "Host: \u{e4}.example\r\n"),
        ("Host", "Host: a.example, b.example\r\n"),
        ("Host", "Host: a.example/\r\n"),
        ("X-Forwarded-Proto", "Host: a\r\nX-Forwarded-Proto: gopher\r\n"),
        (
            "X-Forwarded-Proto",
            "Host: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Proto: https\r\n",
        ),
        ("X-Forwarded-Host", "Host: a\r\nX-Forwarded-Host: a/b\r\n"),
        ("X-Forwarded-Host", "Host: a\r\nX-Forwarded-Host: a\r\nX-Forwarded-Host: b\r\n"),
    ] {
        for path in ["/x", "/external/login", "/.well-known/oauth-protected-resource"] {
            let got = gateway
                .raw(format!("GET {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n"))
                .await;
            assert!(got.starts_with("HTTP/1.1 400 "), "{fields} {got}");
            let problem: serde_json::Value =
                serde_json::from_str(got.split_once("\r\n\r\n").unwrap().1).unwrap();
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.starts_with(&format!("The {named} header ")), "{fields} {detail}");
        }
    }
    // `Forwarded` is never read, so it is never malformed.
    for forwarded in ["proto=gopher", "for=192.0.2.1;host=\"a b\""] {
        let head = format!("Host: a\r\nForwarded: {forwarded}\r\nConnection: close");
        let got = gateway.raw(format!("POST /external/login HTTP/1.1\r\n{head}\r\n\r\n")).await;
        assert!(got.starts_with("HTTP/1.1 401 "), "{forwarded} {got}");
    }
}

#[tokio::test]
async fn malformed_foreign_and_expired_tokens_are_refused_by_login_and_guard() {
    let (gateway, entra, store) = alone(&[("GATEWAY_LOGIN_FAILURE_LIMIT", "off")]).await;
    let kinds = entra.every_malformed_kind();
    assert!(kinds.len() > 25, "{}", kinds.len());
    for (kind, token) in kinds {
        for path in ["/external/login", "/external/public_documents"] {
            let answer = client().post(gateway.url(path)).bearer_auth(&token).send().await.unwrap();
            let code = answer.status().as_u16();
            let challenge =
                refused(answer, if code == 400 { 400 } else { 401 }).await.unwrap_or_default();
            if code == 401 {
                assert!(
                    challenge.starts_with("Bearer error=\"invalid_token\", resource_metadata="),
                    "{kind}: {challenge}"
                );
                assert!(challenge.contains("error_description="), "{kind}: {challenge}");
            }
            let beginning = token.get(..40).unwrap_or("a token that is too short");
            assert!(!challenge.contains(beginning), "{kind} is echoed");
        }
    }
    assert_eq!(store.redis().ask(&["KEYS", "session:*"]), "");
    assert!(!gateway.process.log().contains("panicked"));
}

#[tokio::test]
async fn valid_tokens_without_the_role_scope_or_client_are_refused() {
    let (gateway, entra, _store) = alone(&[("GATEWAY_ALLOWED_CLIENTS", OTHER_CLIENT)]).await;
    let login = async |token: String| refused(try_login(&gateway, &token).await, 403).await;
    let scope = format!(
        "Bearer error=\"insufficient_scope\", resource_metadata=\"{}\", scope=\"api://{CLIENT}/ExternalApi\"",
        gateway.url("/.well-known/oauth-protected-resource/external/login")
    );
    assert_eq!(login(entra.token().roles(&["User"]).build()).await, Some(scope.clone()));
    assert_eq!(
        login(entra.token().roles(&["User", "Admin"]).scopes("x/ExternalApi externalapi").build())
            .await,
        Some(scope)
    );
    assert_eq!(login(entra.token().app_only().build()).await, None, "app-only");
    let other = json!("99999999-0000-0000-0000-000000000000");
    assert_eq!(login(entra.token().claim("azp", other.clone()).build()).await, None, "client");

    let guard = async |token: String| {
        let request = client().get(gateway.url("/external/public_documents")).bearer_auth(token);
        refused(request.send().await.unwrap(), 403).await
    };
    for token in [
        entra.token().roles(&["User", "Admin"]).scopes("ExternalApi").build(),
        entra.token().roles(&["externalapi", "ExternalApi "]).build(),
        entra.token().claim("roles", json!("ExternalApi")).build(),
        // Apps without an assigned role, or whose roles are not a list.
        entra.token().app_only().without("idtyp").without("roles").build(),
        entra.token().v1().without("scp").claim("roles", json!({"ExternalApi": true})).build(),
        entra.token().claim("azp", other).build(),
    ] {
        assert_eq!(guard(token).await, None);
    }
}

#[tokio::test]
async fn a_listed_login_scope_is_enough_to_log_in() {
    let (gateway, entra, _store) = alone(&[("GATEWAY_LOGIN_SCOPES", "ExternalApi,Other")]).await;
    for scopes in ["ExternalApi", "openid Other"] {
        let token = entra.token().roles(&["User"]).scopes(scopes).build();
        assert_eq!(try_login(&gateway, &token).await.status(), 200, "{scopes}");
    }
}

#[tokio::test]
async fn other_methods_get_405_with_the_allowed_methods() {
    let (gateway, entra, _store) = alone(&[]).await;
    for (method, path, allow) in [
        (Method::GET, "/external/login", "POST"),
        (Method::PUT, "/external/login", "POST"),
        (Method::GET, "/external/logout", "POST"),
        (Method::POST, "/.well-known/oauth-protected-resource", "GET"),
        (Method::DELETE, "/gateway/health/live", "GET"),
    ] {
        let request =
            client().request(method, gateway.url(path)).bearer_auth(entra.token().build());
        let answer = request.send().await.unwrap();
        assert!(answer.headers()["allow"].to_str().unwrap().contains(allow), "{path}");
        assert_eq!(refused(answer, 405).await, None);
    }
}

#[tokio::test]
async fn with_external_access_off_login_is_404_and_no_id_is_disclosed() {
    let (gateway, entra, _store) = alone(&[("GATEWAY_EXTERNAL_ACCESS", "off")]).await;
    for (method, path) in [
        (Method::POST, "/external/login"),
        (Method::GET, "/external/login"),
        (Method::OPTIONS, "/external/login"),
    ] {
        let request =
            client().request(method, gateway.url(path)).bearer_auth(entra.token().build());
        assert_eq!(refused(request.send().await.unwrap(), 404).await, None, "{path}");
    }
    // The guard still applies; its challenge is `Bearer` only.
    let request = client().get(gateway.url("/external/public_documents"));
    assert_eq!(refused(request.send().await.unwrap(), 401).await.as_deref(), Some("Bearer"));
    let request = client().get(gateway.url("/external/public_documents")).bearer_auth("a.b.c");
    let challenge = refused(request.send().await.unwrap(), 401).await;
    assert_eq!(challenge.as_deref(), Some("Bearer error=\"invalid_token\""));
    let logout = client().post(gateway.url("/external/logout")).bearer_auth(entra.token().build());
    assert_eq!(logout.send().await.unwrap().status(), 204, "logout still works");
}

#[tokio::test]
async fn without_signing_keys_only_login_and_guard_are_unavailable() {
    let (entra, store) = (Entra::start().await, Store::start(Kind::Redis).await);
    entra.set(Mode::Down);
    let gateway = Gateway::start(&settings(&entra, None, &store, &[])).await;
    let token = entra.token().build();
    assert_eq!(refused(try_login(&gateway, &token).await, 503).await, None);
    let guard = client().get(gateway.url("/external/x")).bearer_auth(&token);
    assert_eq!(refused(guard.send().await.unwrap(), 503).await, None);
    let bare = client().post(gateway.url("/external/login"));
    assert!(
        refused(bare.send().await.unwrap(), 401).await.is_some(),
        "missing credentials are refused first"
    );
    let metadata = client().get(gateway.url("/.well-known/oauth-protected-resource"));
    assert_eq!(metadata.send().await.unwrap().status(), 200);
    entra.set(Mode::Up);
    until("login recovers by itself", async || try_login(&gateway, &token).await.status() == 200)
        .await;
}

#[tokio::test]
async fn without_the_session_store_login_and_logout_get_503_and_proxying_continues() {
    let mut world = World::start(Kind::Redis).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    let Store::Redis(redis, _) = &mut world.store else { unreachable!() };

    redis.freeze();
    let begun = tokio::time::Instant::now();
    assert_eq!(refused(try_login(&world.gateway, &token).await, 503).await, None);
    assert!(begun.elapsed().as_millis() < 2500, "{:?}", begun.elapsed());
    redis.thaw();
    until("login recovers", async || try_login(&world.gateway, &token).await.status() == 200).await;

    redis.end();
    assert_eq!(refused(try_login(&world.gateway, &token).await, 503).await, None);
    let logout = client().post(world.gateway.url("/external/logout"));
    let logout = logout.header("cookie", format!("session={session}"));
    assert_eq!(refused(logout.send().await.unwrap(), 503).await, None);
    let proxied = client().get(world.gateway.url("/test/echo")).send().await.unwrap();
    assert_eq!(proxied.status(), 200);
    redis.begin().await;
    until("login recovers", async || try_login(&world.gateway, &token).await.status() == 200).await;
    let fresh = session_in(&try_login(&world.gateway, &token).await);
    until("Flask honours it", async || {
        status(world.gateway.url(crate::world::API), &fresh).await == 200
    })
    .await;
}

#[tokio::test]
async fn an_unavailable_upstream_gets_502_and_a_hanging_one_504() {
    let (gateway, _entra, _store) = alone(&[]).await;
    assert_eq!(refused(client().get(gateway.url("/api/x")).send().await.unwrap(), 502).await, None);
    assert!(!gateway.is_ready().await);

    let world = World::with(Kind::Files, &[("GATEWAY_TIMEOUT_RESPONSE", "1s")]).await;
    let hangs = client().get(world.gateway.url("/test/hang?seconds=20")).send().await.unwrap();
    assert_eq!(refused(hangs, 504).await, None);
    let dies = client().get(world.gateway.url("/test/die")).send().await.unwrap();
    assert_eq!(refused(dies, 502).await, None);
    assert!(world.gateway.is_ready().await);
}

/// V1 token of this tenant for another application. `with_nonce`: as issued for Microsoft Graph,
/// whose signature only Graph can verify.
fn token_for(entra: &Entra, audience: &str, with_nonce: bool) -> String {
    let token = entra.token().v1().claim("aud", audience);
    if !with_nonce {
        return token.build();
    }
    let key = entra.published_key();
    token
        .header("nonce", "x")
        .signed_with_unpublished_key()
        .kid(key["kid"].as_str().unwrap())
        .build()
}

/// AzureAD/azure-activedirectory-identitymodel-extensions-for-dotnet#609: the most common mistake
/// is a scope of Microsoft Graph.
#[tokio::test]
async fn a_token_for_another_application_gets_a_challenge_with_the_scope_to_request() {
    let (on, entra, _store) = alone(&[("GATEWAY_LOGIN_FAILURE_LIMIT", "off")]).await;
    let (off, entra_of_off, _store) = alone(&[("GATEWAY_EXTERNAL_ACCESS", "off")]).await;
    let graph = "The access token is meant for Microsoft Graph";
    let another = "Invalid token audience";
    for (audience, text) in [
        ("00000003-0000-0000-c000-000000000000", graph),
        ("https://graph.microsoft.com", graph),
        ("https://graph.microsoft.com/", graph),
        ("https://graph.microsoft.us/", graph),
        ("https://dod-graph.microsoft.us", graph),
        ("https://microsoftgraph.chinacloudapi.cn/", graph),
        ("https://management.azure.com/", another),
        ("https://management.core.windows.net/", another),
        ("https://vault.azure.net", another),
        ("https://graph.windows.net", another),
        ("https://graph.microsoft.com.example", another),
        (OTHER_CLIENT, another),
    ] {
        for with_nonce in [false, true] {
            if with_nonce && text == another {
                continue;
            }
            let token = token_for(&entra, audience, with_nonce);
            for path in ["/external/login", "/external/public_documents"] {
                let answer = client().post(on.url(path)).bearer_auth(&token).send().await.unwrap();
                let challenge = refused(answer, 401).await.unwrap();
                let description =
                    challenge.split("error_description=").nth(1).unwrap_or(&challenge);
                let expected = format!("\"{text}; ask for the scope api://{CLIENT}/.default\"");
                assert_eq!(description, expected, "{audience}");
            }
            let token = token_for(&entra_of_off, audience, with_nonce);
            let guarded = client().get(off.url("/external/public_documents")).bearer_auth(token);
            let answer = guarded.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{audience}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
            assert_eq!(json(answer).await["detail"], text, "no id while external access is off");
        }
    }
}
