//! `/external/*` requires the role `ExternalApi`, in every spelling that upstream understands.

use reqwest::Method;

use crate::{
    entra::USER_OID,
    world::{Kind, World, client},
};

#[tokio::test]
async fn the_guard_admits_users_and_apps_with_the_role() {
    let world = World::start(Kind::Files).await;
    let url = world.gateway.url("/external/public_documents/1");
    for token in [world.entra.token().build(), world.entra.token().app_only().build()] {
        let answer = client().delete(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "upstream itself requires no token here");
    }
    // Upstream's own check accepts v1 tokens only; that refusal is not the gateway's.
    let list = world.gateway.url(&format!("/external/public_documents?user_id={USER_OID}"));
    let v1 = world.entra.token().v1().build();
    assert_eq!(client().get(&list).bearer_auth(v1).send().await.unwrap().status(), 200);
    let answer = client().get(&list).bearer_auth(world.entra.token().build()).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(!answer.headers().contains_key("www-authenticate"), "upstream's answer, unchanged");
}

#[tokio::test]
async fn every_method_is_guarded() {
    let world = World::start(Kind::Files).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let method: Method = method.parse().unwrap();
        let url = world.gateway.url("/external/public_documents/1");
        let answer = client().request(method.clone(), url).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{method}");
    }
    let log = world.upstream_log().await;
    assert!(!log.contains("/external/"), "{log}");
}

/// Probe routes of SimpleChat, with and without sign-in.
#[tokio::test]
async fn only_the_health_probes_need_no_token() {
    let world = World::with(Kind::Files, &[("UPSTREAM_LATER", "on")]).await;
    let ask = async |method: Method, path: &str| {
        client().request(method, world.gateway.url(path)).send().await.unwrap().status().as_u16()
    };
    for probe in ["/external/healthcheck", "/external/healthcheckz"] {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(ask(method.clone(), probe).await, 200, "{method} {probe}");
            assert_eq!(ask(method, &format!("{probe}?x=1")).await, 200, "{probe}");
        }
        for method in [Method::POST, Method::OPTIONS, Method::DELETE] {
            assert_eq!(ask(method.clone(), probe).await, 401, "{method} {probe}");
        }
        for rest in ["/", "x", "zz", "z/", "/x", ";x", "Z"] {
            let path = format!("{probe}{rest}");
            assert_eq!(ask(Method::GET, &path).await, 401, "{path}");
        }
        assert_eq!(ask(Method::GET, &format!("/external/public_documents?x={probe}")).await, 401);
    }
    for odd in ["//external/healthcheckz", "/external/healthcheck%7A", "/external/./healthcheckz"] {
        let request =
            format!("GET {odd} HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n\r\n");
        assert!(world.gateway.raw(request).await.starts_with("HTTP/1.1 400 "), "{odd}");
    }
}

#[tokio::test]
async fn ambiguous_path_spellings_never_reach_upstream() {
    let world = World::start(Kind::Files).await;
    let token = world.entra.token().build();
    for target in [
        "//external/public_documents/1",
        "/%65xternal/public_documents/1",
        "/external%2Fpublic_documents%2F1",
        "/%2Fexternal/public_documents/1",
        "/external//public_documents/1",
        "/x/../external/public_documents/1",
        "/%252Fexternal/public_documents/1",
        "/external/%2e%2e/external/public_documents/1",
        "/external/public_documents/%31",
    ] {
        for authorization in [String::new(), format!("Authorization: Bearer {token}\r\n")] {
            let request = format!(
                "DELETE {target} HTTP/1.1\r\nHost: gw.example\r\n{authorization}Connection: close\r\n\r\n"
            );
            let answer = world.gateway.raw(request).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}");
        }
    }
    // Routing header of gunicorn, which trusts it from loopback.
    for name in ["SCRIPT_NAME", "script_name"] {
        let request = format!(
            "DELETE /a/external/public_documents/1 HTTP/1.1\r\nHost: gw.example\r\n{name}: /a\r\nConnection: close\r\n\r\n"
        );
        let answer = world.gateway.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    let log = world.upstream_log().await;
    let reached: Vec<_> =
        log.lines().filter(|line| line.contains("external") && !line.contains(" 404")).collect();
    assert!(reached.is_empty(), "{reached:?}");
}
