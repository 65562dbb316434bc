//! Upstream's own documents below `/.well-known/`, and its other paths next to the gateway's:
//! answered by upstream, byte for byte.

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response as Answer},
};
use reqwest::{Method, Response};

use crate::{
    entra::Entra,
    world::{Kind, Store, WithSession, World, client, gateway::Gateway, json, login, settings},
};

const ROOT: &str = "/.well-known/oauth-protected-resource";
/// The gateway's paths while external access is on.
const OWN: [&str; 3] = [
    ROOT,
    "/.well-known/oauth-protected-resource/external",
    "/.well-known/oauth-protected-resource/external/login",
];
/// Always upstream's paths.
const UPSTREAMS: [&str; 15] = [
    "/.well-known/oauth-protected-resource/",
    "/.well-known/oauth-protected-resource/api/mcp",
    "/.well-known/oauth-protected-resource/api/mcp?x=1",
    "/.well-known/oauth-protected-resource/api/mcp/",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-protected-resource/external/",
    "/.well-known/oauth-protected-resource/external/x",
    "/.well-known/oauth-protected-resource/external%2Flogin",
    "/.well-known/oauth-protected-resource//external",
    "/.well-known/oauth-protected-resources",
    "/.well-known/security.txt",
    "/.well-known/",
    "/api/mcp",
    "/gateway",
    "/gateways/health/live",
];
/// Always upstream's paths; while external access is on, its 401 becomes 404.
const DISCOVERY: [&str; 4] = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-authorization-server/api/mcp",
    "/.well-known/openid-configuration",
    "/register",
];
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT, Method::DELETE];

async fn start_later_simplechat(more: &[(&str, &str)]) -> World {
    let settings = [&[("UPSTREAM_LATER", "on")], more].concat();
    World::with(Kind::Files, &settings).await
}

/// Status, header fields of the document, and body.
async fn parts_of(answer: Response) -> (u16, Vec<(String, String)>, String) {
    let status = answer.status().as_u16();
    let is_of_hop = |name: &str| matches!(name, "date" | "connection" | "server");
    let fields = answer.headers().iter().filter(|(name, _)| !is_of_hop(name.as_str()));
    let mut fields: Vec<_> =
        fields.map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
    fields.sort();
    // Flask lists the methods of a route in arbitrary order.
    fields.iter_mut().filter(|(name, _)| name == "allow").for_each(|(_, value)| {
        let mut methods: Vec<_> = value.trim_matches('"').split(", ").collect();
        methods.sort_unstable();
        *value = methods.join(", ");
    });
    (status, fields, answer.text().await.unwrap())
}

/// Upstream's answer to a request: direct, and through the gateway.
async fn both(
    world: &World,
    method: &Method,
    path: &str,
) -> [(u16, Vec<(String, String)>, String); 2] {
    let ask = async |url: String| {
        let request = client().request(method.clone(), url).header("host", "localhost");
        parts_of(request.send().await.unwrap()).await
    };
    let direct = format!("{}{path}", world.flask.url());
    [ask(direct).await, ask(world.gateway.url(path)).await]
}

async fn assert_are_upstreams(world: &World, paths: &[&str]) {
    for path in paths {
        for method in METHODS {
            let [direct, through] = both(world, &method, path).await;
            assert_eq!(through, direct, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn while_access_is_off_upstream_serves_every_document() {
    let world = start_later_simplechat(&[("GATEWAY_EXTERNAL_ACCESS", "off")]).await;
    assert_are_upstreams(&world, &OWN).await;
    assert_are_upstreams(&world, &UPSTREAMS).await;
    assert_are_upstreams(&world, &DISCOVERY).await;
    let root = client().get(world.gateway.url(ROOT)).send().await.unwrap();
    assert_eq!(json(root).await["mcp_endpoint"], "/api/mcp");
    for method in [Method::POST, Method::GET, Method::OPTIONS] {
        let login = client().request(method, world.gateway.url("/external/login"));
        assert_eq!(login.send().await.unwrap().status(), 404);
    }
}

#[tokio::test]
async fn while_access_is_on_the_gateway_answers_only_for_its_own_resources() {
    let world = start_later_simplechat(&[]).await;
    assert_are_upstreams(&world, &UPSTREAMS).await;
    for path in OWN {
        let answer = client().get(world.gateway.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(json(answer).await["resource_name"], "SimpleChat", "{path}");
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let answer = client().request(method, world.gateway.url(path)).send().await.unwrap();
            assert_eq!(answer.status(), 405, "{path}");
        }
    }
    for path in DISCOVERY {
        for method in METHODS {
            let [direct, through] = both(&world, &method, path).await;
            if direct.0 == 401 {
                assert_eq!(through.0, 404, "{method} {path}");
            } else {
                assert_eq!(through, direct, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn with_root_metadata_of_upstream_only_the_path_without_a_resource_changes() {
    let world = start_later_simplechat(&[("GATEWAY_ROOT_METADATA", "upstream")]).await;
    assert_are_upstreams(&world, &[ROOT]).await;
    assert_are_upstreams(&world, &UPSTREAMS).await;
    for path in &OWN[1..] {
        let answer = client().get(world.gateway.url(path)).send().await.unwrap();
        assert_eq!(json(answer).await["resource_name"], "SimpleChat", "{path}");
    }
}

#[tokio::test]
async fn other_spellings_of_the_gateways_paths_go_to_upstream() {
    let world = start_later_simplechat(&[]).await;
    for target in [
        "//gateway/health/live",
        "/gateway%2Fhealth/live",
        "/%67ateway/health/live",
        "/GATEWAY/health/live",
        "//.well-known/oauth-protected-resource/external",
        "/.well-known/oauth-protected-resource%2Fexternal",
    ] {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = world.gateway.raw(request).await;
        assert!(answer.contains("\r\nServer: gunicorn\r\n"), "{target}: {answer}");
    }
}

/// A gateway in front of an upstream that answers with the status in `X-Status` and, without
/// `X-Bare`, with the header fields of a sign-in.
async fn start_with_sign_in() -> (Gateway, Entra, Store) {
    start(Kind::Files, &[]).await
}

async fn start(kind: Kind, more: &[(&str, &str)]) -> (Gateway, Entra, Store) {
    async fn answer(headers: HeaderMap, request: Request<Body>) -> Answer {
        let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
        let status = headers.get("x-status").map_or("200", |it| it.to_str().unwrap());
        let status: StatusCode = status.parse().unwrap();
        if headers.contains_key("x-bare") {
            return status.into_response();
        }
        let fields = [
            (header::LOCATION, "https://login.example/upstream"),
            (header::SET_COOKIE, "upstream=1"),
            (header::WWW_AUTHENTICATE, "Basic realm=\"upstream\""),
        ];
        (status, fields, "upstream's body").into_response()
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let (entra, store) = (Entra::start().await, Store::start(kind).await);
    let more = [&[("GATEWAY_UPSTREAM_URL", &*upstream)], more].concat();
    let more: Vec<_> = more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let gateway = Gateway::start(&settings(&entra, None, &store, &more)).await;
    gateway.wait_until_it_has_keys().await;
    (gateway, entra, store)
}

#[tokio::test]
async fn a_redirect_or_401_of_upstream_is_404_on_discovery_paths() {
    let (gateway, _entra, _store) = start_with_sign_in().await;
    let paths = DISCOVERY.iter().copied().chain([
        "/.well-known/oauth-authorization-server/external/login",
        "/.well-known/openid-configuration/external",
    ]);
    for path in paths {
        for method in METHODS {
            for (status, expected) in [
                (200, 200),
                (301, 404),
                (302, 404),
                (303, 404),
                (307, 404),
                (308, 404),
                (401, 404),
                (400, 400),
                (403, 403),
                (404, 404),
                (405, 405),
                (500, 500),
            ] {
                let request = client()
                    .request(method.clone(), gateway.url(path))
                    .header("x-status", status.to_string());
                let request =
                    if method == Method::POST { request.body("{\"a\": 1}") } else { request };
                let answer = request.send().await.unwrap();
                let here = format!("{method} {path} {status}");
                assert_eq!(answer.status(), expected, "{here}");
                let is_upstreams = answer.headers().contains_key("set-cookie");
                assert_eq!(is_upstreams, status == expected, "{here}");
                if !is_upstreams {
                    let headers = answer.headers();
                    assert_eq!(headers["cache-control"], "no-store", "{here}");
                    assert_eq!(headers["content-type"], "application/problem+json", "{here}");
                    assert!(!headers.contains_key("location"), "{here}");
                    assert!(!headers.contains_key("www-authenticate"), "{here}");
                    assert!(!answer.text().await.unwrap().contains("upstream"), "{here}");
                }
            }
        }
    }
    // Paths that clients do not guess pass.
    for path in ["/", "/api/x", "/.well-known/oauth-protected-resource/mcp", "/registers"] {
        let request = client().get(gateway.url(path)).header("x-status", "302");
        assert_eq!(request.send().await.unwrap().status(), 302, "{path}");
    }
}

#[tokio::test]
async fn guessed_documents_below_the_gateways_resources_are_404_and_stay_guarded() {
    let (gateway, entra, _store) = start_with_sign_in().await;
    let token = entra.token().build();
    for issuer in ["/external", "/external/login"] {
        for document in ["oauth-authorization-server", "openid-configuration"] {
            let url = gateway.url(&format!("{issuer}/.well-known/{document}"));
            for method in METHODS {
                let ask = |status: &'static str, token: Option<&str>| {
                    let request = client().request(method.clone(), &url);
                    let request = request.header("x-status", status);
                    let request = match token {
                        Some(token) => request.bearer_auth(token),
                        None => request,
                    };
                    async { request.send().await.unwrap().status().as_u16() }
                };
                assert_eq!(ask("200", None).await, 404, "{method} {url}");
                assert_eq!(ask("200", Some("a.b.c")).await, 404, "{method} {url}");
                assert_eq!(ask("200", Some(&token)).await, 200, "{method} {url}");
                assert_eq!(ask("302", Some(&token)).await, 404, "{method} {url}");
            }
        }
    }
}

#[tokio::test]
async fn while_access_is_off_upstreams_redirects_and_401_pass() {
    let (gateway, _entra, _store) = start(Kind::Files, &[("GATEWAY_EXTERNAL_ACCESS", "off")]).await;
    for path in DISCOVERY {
        for status in ["302", "401"] {
            let request = client().get(gateway.url(path)).header("x-status", status);
            assert_eq!(request.send().await.unwrap().status().as_str(), status, "{path}");
        }
    }
}

/// A 401 without a cookie for an active session is retried first, and then replaced by 404 as well.
#[tokio::test]
async fn a_401_on_discovery_paths_is_404_with_a_session() {
    let (gateway, entra, _store) = start(Kind::Redis, &[]).await;
    let session = login(&gateway, &entra.token().build()).await;
    for path in DISCOVERY {
        for method in [Method::GET, Method::HEAD] {
            let request = client().request(method, gateway.url(path)).session(&session);
            let request = request.header("x-status", "401").header("x-bare", "yes");
            assert_eq!(request.send().await.unwrap().status(), 404, "{path}");
        }
    }
}
