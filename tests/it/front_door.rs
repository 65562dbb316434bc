//! Azure Front Door in front of the gateway: requests that bypass it are refused, and its headers
//! name the client.

use reqwest::{Method, RequestBuilder};

use crate::world::{Kind, World, client, json, process::until};

const ID: &str = "12345678-1111-2222-3333-444455556666";

fn ask(world: &World, method: Method, path: &str, headers: &[(&str, &str)]) -> RequestBuilder {
    let request = client().request(method, world.gateway.url(path));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn requests_that_bypass_the_front_door_are_refused() {
    let settings = [("GATEWAY_FRONT_DOOR_ID", ID), ("UPSTREAM_LATER", "on")];
    let world = World::with(Kind::Files, &settings).await;
    let other = ID.replace('1', "9");
    let paths = [
        "/",
        "/api/get_conversations",
        "/external/login",
        "/external/public_documents",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/api/mcp",
        "/gateway/openapi.json",
    ];
    for path in paths {
        for headers in
            [&[][..], &[("x-azure-fdid", &*other)], &[("x-azure-fdid", ID), ("x-azure-fdid", ID)]]
        {
            assert_eq!(status(ask(&world, Method::GET, path, headers)).await, 403, "{path}");
        }
        let through = ask(&world, Method::GET, path, &[("x-azure-fdid", ID)]);
        assert_ne!(status(through).await, 403, "{path}");
    }
    // The platform's probes do not pass through Front Door.
    for path in [
        "/gateway/health/live",
        "/gateway/health/ready",
        "/external/healthcheck",
        "/external/healthcheckz",
        "/robots933456.txt",
    ] {
        assert_eq!(status(ask(&world, Method::GET, path, &[])).await, 200, "{path}");
    }
}

#[tokio::test]
async fn the_client_address_is_taken_from_the_front_doors_header() {
    let settings = [("GATEWAY_FRONT_DOOR_ID", ID), ("GATEWAY_LOGIN_FAILURE_LIMIT", "2/1m")];
    let world = World::with(Kind::Files, &settings).await;
    let through = [("x-azure-fdid", ID), ("x-forwarded-for", "192.0.2.1, 203.0.113.9:4711")];
    let from = |client: &'static str| {
        let headers = [&through[..], &[("x-azure-clientip", client), ("x-azure-socketip", client)]];
        headers.concat()
    };
    let echo =
        json(ask(&world, Method::GET, "/test/echo", &from("198.51.100.7")).send().await.unwrap());
    let echo = echo.await;
    let of = |name: &str| {
        let headers = echo["headers"].as_array().unwrap().iter();
        headers
            .filter(|header| header[0] == name)
            .map(|header| header[1].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("x-forwarded-for"), ["198.51.100.7, 203.0.113.9, 127.0.0.1"]);
    assert!(of("x-azure-clientip").is_empty() && of("x-azure-socketip").is_empty());

    // One failing caller does not lock out the others, although all come through the same Front
    // Door.
    let good = world.entra.token().build();
    let login = async |client: &'static str, token: &str| {
        let request = ask(&world, Method::POST, "/external/login", &from(client));
        status(request.bearer_auth(token)).await
    };
    for expected in [401, 401, 429] {
        assert_eq!(login("198.51.100.7", "x.y.z").await, expected);
    }
    assert_eq!(login("198.51.100.7", &good).await, 429);
    assert_eq!(login("198.51.100.8", &good).await, 200);
}

#[tokio::test]
async fn operators_are_warned_when_every_request_has_one_public_address() {
    const WARNING: &str = "all requests so far have the same public client address";
    let world = World::with(Kind::Files, &[("GATEWAY_WORKERS", "1")]).await;
    let http = client();
    let ask = async |address: &str| {
        let request = http.get(world.gateway.url("/gateway/health/live"));
        request.header("x-forwarded-for", address).send().await.unwrap();
    };
    for _ in 0..120 {
        ask("203.0.113.9").await;
    }
    until("the warning is logged", async || world.gateway.process.log().contains(WARNING)).await;
    assert_eq!(world.gateway.process.log().matches(WARNING).count(), 1);

    let busy = world.another_gateway().await;
    for round in 0..120 {
        let request = http.get(busy.url("/gateway/health/live"));
        let address = format!("203.0.113.{}", 9 + round % 2);
        request.header("x-forwarded-for", address).send().await.unwrap();
    }
    assert!(!busy.process.log().contains(WARNING));
}
