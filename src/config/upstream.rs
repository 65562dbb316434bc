//! Settings of the upstream connection, its retries and its request buffers.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tokio::sync::Semaphore;
use url::Url;

use super::{
    Reader,
    reader::{at_least_one, delay, flag, size, timeout},
};
use crate::authz::client_info::Authority;

/// Address, timeouts and buffers of upstream.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamConfig {
    pub(crate) target: UpstreamTarget,
    /// `Host` sent; `None`: the caller's.
    pub(crate) host: Option<String>,
    /// `Host` of requests that have none (HTTP/1.0): upstream's own address.
    pub(crate) authority: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    /// Bytes of one request body that are buffered before it is forwarded.
    pub(crate) request_hold: usize,
    /// Limit of all buffered bodies together, in bytes.
    pub(crate) request_hold_total: usize,
    /// Number of longer bodies forwarded at the same time.
    pub(crate) streaming_uploads: usize,
    /// Time that further ones wait for an upload slot.
    pub(crate) slot_timeout: Duration,
    /// True if a request that a fresh worker treated as anonymous is repeated once.
    pub(crate) retry_anonymous: bool,
    /// Time that App Service's warm-up request waits for upstream.
    pub(crate) warmup_wait: Duration,
}

/// Address of upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpstreamTarget {
    /// Host and port, with or without TLS.
    Tcp { host: String, port: u16, tls: bool },
    /// A Unix socket.
    Unix(PathBuf),
}

impl UpstreamTarget {
    /// True if connections to it use TLS.
    pub(crate) fn has_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }
}

/// Reads the settings. `own`: the gateway's own listeners, by setting.
pub(super) fn read(reader: &mut Reader, own: &[(&str, SocketAddr)]) -> UpstreamConfig {
    let target = reader.require("GATEWAY_UPSTREAM_URL", upstream_target);
    let target = target.unwrap_or_else(|| UpstreamTarget::Unix(PathBuf::new()));
    for (setting, own) in own {
        if is_at(&target, own) {
            let problem = format!("is the gateway's own listener ({setting})");
            reader.problem("GATEWAY_UPSTREAM_URL", &problem);
        }
    }
    let host = reader.read("GATEWAY_UPSTREAM_HOST", |text| {
        Authority::parse(text)
            .map(|a| a.to_string())
            .ok_or_else(|| "expected host[:port]".to_owned())
    });
    let authority = match &target {
        UpstreamTarget::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
        UpstreamTarget::Tcp { host, port, .. } => format!("{host}:{port}"),
        UpstreamTarget::Unix(_) => "localhost".to_owned(),
    };
    let request_hold = reader.require("GATEWAY_REQUEST_HOLD", size).unwrap_or_default();
    let request_hold_total = reader.require("GATEWAY_REQUEST_HOLD_TOTAL", size).unwrap_or_default();
    if request_hold_total < request_hold {
        reader.problem("GATEWAY_REQUEST_HOLD_TOTAL", "must be at least GATEWAY_REQUEST_HOLD");
    }
    UpstreamConfig {
        target,
        host,
        authority,
        connect_timeout: timeout(reader, "GATEWAY_TIMEOUT_CONNECT"),
        response_timeout: timeout(reader, "GATEWAY_TIMEOUT_RESPONSE"),
        request_hold,
        request_hold_total,
        streaming_uploads: reader
            .require("GATEWAY_STREAMING_UPLOADS", at_least_one)
            .map_or(1, |max| max.min(Semaphore::MAX_PERMITS)),
        slot_timeout: timeout(reader, "GATEWAY_TIMEOUT_SLOT"),
        retry_anonymous: reader.require("GATEWAY_RETRY_ANONYMOUS", flag).unwrap_or_default(),
        warmup_wait: delay(reader, "GATEWAY_WARMUP_WAIT"),
    }
}

fn is_at(target: &UpstreamTarget, own: &SocketAddr) -> bool {
    let UpstreamTarget::Tcp { host, port, .. } = target else { return false };
    let address = host.parse::<IpAddr>();
    let is_local = host == "localhost"
        || address.as_ref().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    let listens_locally = own.ip().is_unspecified() || own.ip().is_loopback();
    *port == own.port() && (address == Ok(own.ip()) || is_local && listens_locally)
}

fn upstream_target(text: &str) -> Result<UpstreamTarget, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        return if path.is_absolute() {
            Ok(UpstreamTarget::Unix(path))
        } else {
            Err("expected unix:/absolute/path".to_owned())
        };
    }
    let url = Url::parse(text).map_err(|_| "expected a URL".to_owned())?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("expected http://, https:// or unix:".to_owned()),
    };
    let is_bare = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) if is_bare => {
            let host = match host {
                url::Host::Domain(name) => name.to_owned(),
                url::Host::Ipv4(address) => address.to_string(),
                url::Host::Ipv6(address) => address.to_string(),
            };
            Ok(UpstreamTarget::Tcp { host, port, tls })
        }
        _ => Err("expected scheme, host and port only".to_owned()),
    }
}
