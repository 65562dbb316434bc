//! What upstream does beside the gateway: who else reaches it, what it answers at the gateway's paths.

use std::{net::IpAddr, time::Duration};

use tokio::time::timeout;

use crate::{
    cli::report::Report,
    config::{Config, UpstreamConfig, UpstreamTarget},
    telemetry,
    upstream::Upstream,
};

/// For one question.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// For an address that is perhaps not there.
const SHORT: Duration = Duration::from_secs(2);

/// Some of the gateway's own paths, with the method that its callers use.
const RESERVED: [(&str, &str); 5] = [
    ("POST", "/external/login"),
    ("POST", "/external/logout"),
    ("GET", "/.well-known/oauth-protected-resource/external/login"),
    ("GET", "/gateway/health/live"),
    ("GET", "/gateway/openapi.json"),
];

/// Whether upstream answers where the gateway does: then nobody reaches that any more.
pub(super) async fn reserved_paths(upstream: &Upstream, report: &Report) {
    let mut is_fine = true;
    for (method, path) in RESERVED {
        let fields = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let head = match timeout(UPSTREAM_TIMEOUT, upstream.ask(method, path, fields)).await {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => {
                report
                    .untried(&format!("{method} {path} on upstream: {}", telemetry::chain(&error)));
                is_fine = false;
                continue;
            }
            Err(_) => {
                report.untried(&format!("{method} {path} on upstream: no answer in time"));
                is_fine = false;
                continue;
            }
        };
        let is_sign_in =
            (300..400).contains(&head.status) && head.fields.all("location").any(leads_to_sign_in);
        if head.status == 404 || is_sign_in {
            continue;
        }
        is_fine = false;
        if head.status >= 500 {
            report.untried(&format!("{method} {path} on upstream: it answers {}", head.status));
        } else {
            report.advise(&format!(
                "upstream answers {} to {method} {path} itself; the gateway answers there now, so nobody reaches upstream's own. Is it a later SimpleChat, or another gateway?",
                head.status
            ));
        }
    }
    if is_fine {
        report.fine("upstream answers at none of the gateway's paths");
    }
}

/// SimpleChat's redirect to its own sign-in: `/login`, perhaps with the origin before it.
fn leads_to_sign_in(location: &[u8]) -> bool {
    let path = location.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
    path == b"/login" || (path.ends_with(b"/login") && path.windows(3).any(|part| part == b"://"))
}

/// Whether upstream is reached past the gateway.
pub(super) async fn bypass_routes(config: &Config, report: &Report) {
    let UpstreamTarget::Tcp { host, port, .. } = &config.upstream.target else {
        report.fine("upstream listens on a Unix socket");
        return;
    };
    let address: Option<IpAddr> = host.parse().ok();
    if host != "localhost" && !address.is_some_and(|address| address.is_loopback()) {
        report.advise(&format!(
            "GATEWAY_UPSTREAM_URL: {host} is no loopback address. Whoever reaches it goes past the gateway, guard and all: let the gateway alone reach it (a private network, access restrictions)"
        ));
        return;
    }
    let interfaces = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            report.untried(&format!("upstream on this host's other addresses: {error}"));
            return;
        }
    };
    let mut is_alone = true;
    for address in interfaces.into_iter().map(|interface| interface.ip()).filter(is_to_be_tried) {
        let target = UpstreamTarget::Tcp { host: address.to_string(), port: *port, tls: false };
        let elsewhere = UpstreamConfig { target, ..config.upstream.clone() };
        let Ok(elsewhere) = Upstream::new(elsewhere) else { continue };
        if matches!(timeout(SHORT, elsewhere.fresh_connection()).await, Ok(Ok(_))) {
            is_alone = false;
            let at = std::net::SocketAddr::new(address, *port);
            report.advise(&format!(
                "upstream's port answers at {at} as well: whoever reaches that goes past the gateway, guard and all. Set GUNICORN_BIND=127.0.0.1:{port} for SimpleChat"
            ));
        }
    }
    if is_alone {
        report.fine("upstream's port answers on no other address of this host");
    }
    report.untried(
        "whether upstream is reachable from other hosts (a published port, a Service of its own)",
    );
}

/// Link-local addresses need an interface beside them.
fn is_to_be_tried(address: &IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !address.is_loopback() && !is_link_local
}
