//! Protected-resource metadata (RFC 9728), with correct URLs behind proxies.

use reqwest::{Method, Response};
use serde_json::json;

use crate::{
    entra::{CLIENT, Entra, TENANT},
    world::{Kind, Store, alone, client, gateway::Gateway, json},
};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

async fn gateway(more: &[(&str, &str)]) -> (Gateway, Entra, Store) {
    alone(Kind::Files, more).await
}

async fn ask(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = client().get(gateway.url(&format!("{WELL_KNOWN}{path}")));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn resource(gateway: &Gateway, headers: &[(&str, &str)]) -> String {
    let answer = ask(gateway, "/external/login", headers).await;
    assert_eq!(answer.status(), 200, "{headers:?}");
    let resource = json(answer).await["resource"].as_str().unwrap().to_owned();
    resource.strip_suffix("/external/login").unwrap().to_owned()
}

#[tokio::test]
async fn the_metadata_document_matches_the_contract() {
    let (gateway, entra, _store) = gateway(&[]).await;
    for (path, suffix) in
        [("", ""), ("/external", "/external"), ("/external/login", "/external/login")]
    {
        let answer = ask(&gateway, path, &[]).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.headers()["cache-control"], "no-cache");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert!(answer.headers()["vary"].to_str().unwrap().contains("X-Forwarded-Host"));
        let expected = json!({
            "resource": gateway.url(suffix),
            "authorization_servers": [format!("{}/{TENANT}/v2.0", entra.url())],
            "scopes_supported": [format!("api://{CLIENT}/.default")],
            "bearer_methods_supported": ["header"],
            "resource_name": "SimpleChat",
            "resource_documentation": "https://microsoft.github.io/simplechat/",
        });
        assert_eq!(json(answer).await, expected);
    }
}

#[tokio::test]
async fn metadata_is_cached_by_etag_and_readable_from_every_origin() {
    let (gateway, _entra, _store) = gateway(&[]).await;
    let tag = ask(&gateway, "", &[]).await.headers()["etag"].to_str().unwrap().to_owned();
    let again = ask(&gateway, "", &[("if-none-match", &tag)]).await;
    assert_eq!(again.status(), 304);
    assert_eq!(again.headers()["etag"], tag.as_str());
    assert_eq!(
        ask(&gateway, "", &[("host", "other.example"), ("if-none-match", &tag)]).await.status(),
        200
    );

    let head = client().head(gateway.url(WELL_KNOWN)).send().await.unwrap();
    assert_eq!(head.status(), 200);
    let length: usize = head.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(length, ask(&gateway, "", &[]).await.text().await.unwrap().len());
    let preflight =
        client().request(Method::OPTIONS, gateway.url(&format!("{WELL_KNOWN}/external/login")));
    let preflight = preflight.header("origin", "https://inspector.example").send().await.unwrap();
    assert_eq!(preflight.status(), 204);
    assert_allows_mcp_clients_headers(&preflight);
}

/// GDKsoftware/Delphi-MCP-Server#16, open-metadata/OpenMetadata#30673, windmill-labs/windmill#10535.
fn assert_allows_mcp_clients_headers(preflight: &Response) {
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap();
    let allowed: Vec<_> = allowed.split(", ").collect();
    for name in [
        "authorization",
        "content-type",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "last-event-id",
    ] {
        assert!(allowed.contains(&name), "{name}: {allowed:?}");
    }
}

#[tokio::test]
async fn every_preflight_allows_the_headers_of_mcp_clients() {
    let page = "https://page.example";
    let (gateway, _entra, _store) = gateway(&[("GATEWAY_ALLOWED_ORIGINS", page)]).await;
    let metadata = ["", "/external", "/external/login"].map(|path| format!("{WELL_KNOWN}{path}"));
    for path in metadata.iter().map(String::as_str).chain(["/external/login"]) {
        let preflight = client()
            .request(Method::OPTIONS, gateway.url(path))
            .header("origin", page)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,mcp-protocol-version");
        let preflight = preflight.send().await.unwrap();
        assert_eq!(preflight.status(), 204, "{path}");
        assert_allows_mcp_clients_headers(&preflight);
    }
}

#[tokio::test]
async fn without_public_urls_trusted_proxies_determine_the_origin() {
    // The peer is loopback, which is a private address.
    let (gateway, _entra, _store) = gateway(&[]).await;
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("host", "chat.example")], "http://chat.example"),
        (&[("host", "chat.example:80")], "http://chat.example"),
        (&[("host", "chat.example"), ("x-forwarded-proto", "https")], "https://chat.example"),
        (&[("host", "chat.example:443"), ("x-forwarded-proto", "https")], "https://chat.example"),
        (
            &[("host", "chat.example:8443"), ("x-forwarded-proto", "https")],
            "https://chat.example:8443",
        ),
        (&[("host", "[2001:db8::1]:8080")], "http://[2001:db8::1]:8080"),
        // App Service and Container Apps: Host is public, the forwarded host is not trusted.
        (
            &[
                ("host", "chat.azurewebsites.net"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-for", "203.0.113.7:55101"),
                ("x-arr-ssl", "2048|256"),
            ],
            "https://chat.azurewebsites.net",
        ),
        // Two proxies in a row; the inner one appends.
        (
            &[
                ("host", "chat.example"),
                ("x-forwarded-proto", "https,http"),
                ("x-forwarded-for", "203.0.113.7, 10.0.0.4"),
            ],
            "https://chat.example",
        ),
        (
            &[("host", "chat.example"), ("forwarded", "proto=https;host=evil.example")],
            "http://chat.example",
        ),
    ];
    for (headers, expected) in cases {
        assert_eq!(resource(&gateway, headers).await, *expected, "{headers:?}");
    }
    for bad in [
        &[("x-forwarded-proto", "https"), ("x-forwarded-proto", "https")][..],
        &[("x-forwarded-proto", "gopher")],
        &[("x-forwarded-proto", "https, http")],
        &[("host", "a.example/b")],
        &[("host", "user@a.example")],
    ] {
        assert_eq!(ask(&gateway, "", bad).await.status(), 400, "{bad:?}");
    }
}

#[tokio::test]
async fn forwarding_headers_of_an_untrusted_peer_are_ignored() {
    let (gateway, _entra, _store) = gateway(&[("GATEWAY_TRUSTED_PROXIES", "192.0.2.0/24")]).await;
    let headers = [
        ("host", "chat.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1;proto=https;host=evil.example"),
    ];
    assert_eq!(resource(&gateway, &headers).await, "http://chat.example");
}

#[tokio::test]
async fn listed_proxies_may_set_the_host() {
    let (gateway, _entra, _store) = gateway(&[("GATEWAY_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let front_door = [
        ("host", "origin.internal"),
        ("x-forwarded-host", "Chat.Example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "203.0.113.7"),
    ];
    assert_eq!(resource(&gateway, &front_door).await, "https://chat.example");
    let forged = [("x-forwarded-host", "a.example, b.example")];
    assert_eq!(ask(&gateway, "", &forged).await.status(), 400);
}

#[tokio::test]
async fn the_forwarded_header_of_a_trusted_proxy_is_ignored() {
    for trusted in ["127.0.0.1", "everyone"] {
        let (gateway, _entra, _store) = gateway(&[("GATEWAY_TRUSTED_PROXIES", trusted)]).await;
        let forwarded = "for=\"[2001:db8::7]:1\";host=\"evil.example:8443\";proto=https";
        let alone = [("host", "chat.example"), ("forwarded", forwarded)];
        assert_eq!(resource(&gateway, &alone).await, "http://chat.example", "{trusted}");
        let beside = [
            ("host", "internal"),
            ("x-forwarded-host", "chat.example"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "proto=gopher;host=\"a b\""),
        ];
        assert_eq!(resource(&gateway, &beside).await, "https://chat.example", "{trusted}");
    }
}

#[tokio::test]
async fn with_public_urls_an_unlisted_host_is_refused_and_never_echoed() {
    let urls = "https://chat.example, https://api.chat.example:8443";
    let (gateway, _entra, _store) =
        gateway(&[("GATEWAY_PUBLIC_URLS", urls), ("WEBSITE_HOSTNAME", "chat.azurewebsites.net")])
            .await;
    for (headers, expected) in [
        (&[("host", "chat.example")][..], "https://chat.example"),
        (
            &[("host", "internal"), ("x-forwarded-host", "api.chat.example:8443")],
            "https://api.chat.example:8443",
        ),
        (
            &[("host", "chat.azurewebsites.net"), ("x-forwarded-proto", "http")],
            "https://chat.azurewebsites.net",
        ),
    ] {
        assert_eq!(resource(&gateway, headers).await, expected, "{headers:?}");
    }
    let answer = ask(&gateway, "", &[("host", "evil.example")]).await;
    assert_eq!(answer.status(), 421);
    assert_eq!(answer.headers()["access-control-allow-origin"], "*", "a page may read the reason");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let text = answer.text().await.unwrap();
    assert!(text.contains("GATEWAY_PUBLIC_URLS") && !text.contains("evil"), "{text}");
    let login = client()
        .post(gateway.url("/external/login"))
        .header("host", "evil.example")
        .send()
        .await
        .unwrap();
    let challenge = login.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(
        challenge.contains(
            "\"https://chat.example/.well-known/oauth-protected-resource/external/login\""
        ),
        "{challenge}"
    );
}
