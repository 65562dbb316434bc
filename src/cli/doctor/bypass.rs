//! Tests for ways around the gateway: upstream reachable directly, upstream routes at the gateway's paths.

use std::{net::IpAddr, time::Duration};

use tokio::time::timeout;

use crate::{
    cli::report::Report,
    config::{Config, UpstreamConfig, UpstreamTarget},
    telemetry,
    upstream::Upstream,
};

/// Timeout of one request.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a connection to an address where nothing may listen.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Sample of the gateway's own paths, with the method that its callers use.
const RESERVED: [(&str, &str); 5] = [
    ("POST", "/external/login"),
    ("POST", "/external/logout"),
    ("GET", "/.well-known/oauth-protected-resource/external/login"),
    ("GET", "/gateway/health/live"),
    ("GET", "/gateway/openapi.json"),
];

/// Reports upstream routes at the gateway's paths: callers cannot reach those routes.
pub(super) async fn reserved_paths(upstream: &Upstream, report: &Report) {
    let mut is_free = true;
    for (method, path) in RESERVED {
        let fields = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let head = match timeout(UPSTREAM_TIMEOUT, upstream.ask(method, path, fields)).await {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => {
                report
                    .skip(&format!("{method} {path} on SimpleChat: {}", telemetry::chain(&error)));
                is_free = false;
                continue;
            }
            Err(_) => {
                report.skip(&format!("{method} {path} on SimpleChat: no answer in time"));
                is_free = false;
                continue;
            }
        };
        let is_sign_in =
            (300..400).contains(&head.status) && head.fields.all("location").any(leads_to_sign_in);
        if head.status == 404 || is_sign_in {
            continue;
        }
        is_free = false;
        if head.status >= 500 {
            report.skip(&format!("{method} {path} on SimpleChat: it answers {}", head.status));
        } else {
            report.warn(&format!(
                "SimpleChat answers {} to {method} {path} itself. The gateway serves this path, so that route is unreachable. Check whether GATEWAY_UPSTREAM_URL leads to a later SimpleChat or to another gateway",
                head.status
            ));
        }
    }
    if is_free {
        report.pass("SimpleChat has no route at the gateway's paths");
    }
}

/// True for SimpleChat's redirect to its own sign-in: `/login`, with or without an origin.
fn leads_to_sign_in(location: &[u8]) -> bool {
    let path = location.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
    path == b"/login" || (path.ends_with(b"/login") && path.windows(3).any(|part| part == b"://"))
}

/// Reports addresses at which callers can reach upstream directly.
pub(super) async fn bypass_routes(config: &Config, report: &Report) {
    let UpstreamTarget::Tcp { host, port, .. } = &config.upstream.target else {
        report.pass("SimpleChat listens on a Unix socket");
        return;
    };
    let address: Option<IpAddr> = host.parse().ok();
    if host != "localhost" && !address.is_some_and(|address| address.is_loopback()) {
        report.warn(&format!(
            "GATEWAY_UPSTREAM_URL: {host} is not a loopback address. Direct access to SimpleChat bypasses the gateway: allow connections from the gateway only (private network, access restrictions)"
        ));
        return;
    }
    let interfaces = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            report.skip(&format!("SimpleChat's port on other addresses of this host: {error}"));
            return;
        }
    };
    let mut is_only_here = true;
    for address in interfaces.into_iter().map(|interface| interface.ip()).filter(is_candidate) {
        let target = UpstreamTarget::Tcp { host: address.to_string(), port: *port, tls: false };
        let elsewhere = UpstreamConfig { target, ..config.upstream.clone() };
        let Ok(elsewhere) = Upstream::new(elsewhere) else { continue };
        if matches!(timeout(CONNECT_TIMEOUT, elsewhere.fresh_connection()).await, Ok(Ok(_))) {
            is_only_here = false;
            let at = std::net::SocketAddr::new(address, *port);
            report.warn(&format!(
                "SimpleChat's port also answers at {at}. Direct access to SimpleChat bypasses the gateway. Set GUNICORN_BIND=127.0.0.1:{port} for SimpleChat"
            ));
        }
    }
    if is_only_here {
        report.pass("SimpleChat's port answers on no other address of this host");
    }
    report.skip(
        "direct access to SimpleChat from other hosts (published port, Kubernetes Service): cannot be tested from here",
    );
}

/// True for addresses that other hosts can use. Link-local addresses need an interface name.
fn is_candidate(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_loopback() && !is_link_local
}
