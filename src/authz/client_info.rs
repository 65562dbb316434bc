//! Client information: the client's address, scheme and public origin, from the peer, `X-Forwarded-*` headers
//! and the trusted proxies.
//!
//! ```text
//! X-Forwarded-For: 198.51.100.7, 203.0.113.9, 10.0.0.4     peer 10.0.0.2
//!                  └ not read    └ the client └ trusted      └ trusted
//! ```
//!
//! The chain is walked from the right over trusted addresses; the first untrusted address is the client.
//! Scheme and host are those that the outermost trusted proxy wrote: every proxy that appends to a list adds
//! one entry, so a list holds at most as many entries as there are trusted hops. Headers of an untrusted peer
//! are not read. `Forwarded` (RFC 7239) is never read.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use uuid::Uuid;

/// Scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("https") {
            Some(Self::Https)
        } else if text.eq_ignore_ascii_case("http") {
            Some(Self::Http)
        } else {
            None
        }
    }

    /// Name in lower case, as upstream expects it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// `host[:port]` of a `Host` header (RFC 9110 §7.2), in lower case, without user information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// Parses a host name, an IPv4 address or an IPv6 address in brackets, with an optional port. An empty
    /// port (`host:`) is valid and means none (RFC 3986 §3.2.3).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']')?;
                address.parse::<Ipv6Addr>().ok()?;
                (&text[..address.len() + 2], after)
            }
            None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|port| *port != 0)?)
            }
            Some("") => None,
            None if port.is_empty() => None,
            _ => return None,
        };
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let is_host = host.starts_with('[')
            || (!host.is_empty() && host.len() <= 255 && host.bytes().all(is_name));
        is_host.then(|| Self { host: host.to_ascii_lowercase(), port })
    }

    /// The host without the port.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

/// An origin: `scheme://host[:port]` (RFC 6454 §6.2), without the scheme's default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: Scheme,
    authority: Authority,
}

impl Origin {
    /// Parses an origin. One trailing slash is accepted; a path, query or user is not.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let authority = Authority::parse(rest.strip_suffix('/').unwrap_or(rest))?;
        Some(Self::new(Scheme::parse(scheme)?, authority))
    }

    fn new(scheme: Scheme, mut authority: Authority) -> Self {
        authority.port = authority.port.filter(|port| *port != scheme.default_port());
        Self { scheme, authority }
    }

    fn is_at(&self, authority: &Authority) -> bool {
        self.authority.host == authority.host
            && authority.port.filter(|port| *port != self.scheme.default_port())
                == self.authority.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

/// Peers whose forwarding headers are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrustedProxies {
    /// None.
    None,
    /// Private addresses: for scheme and client address, and for listed hosts.
    Private,
    /// These networks, also for any host.
    Networks(Vec<IpNet>),
}

impl TrustedProxies {
    fn trusts(&self, address: IpAddr) -> bool {
        match self {
            Self::None => false,
            Self::Private => is_private(address),
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

/// True for loopback, RFC 1918, RFC 6598, link-local and unique local addresses.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xC0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Headers that determine [`ClientInfo`]: one entry per field line, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct Forwarding<'a> {
    /// `Host`; `None` if the request has none.
    pub(crate) host: Option<&'a str>,
    /// `X-Forwarded-For`.
    pub(crate) x_for: Vec<&'a str>,
    /// `X-Forwarded-Proto`.
    pub(crate) x_proto: Vec<&'a str>,
    /// `X-Forwarded-Host`.
    pub(crate) x_host: Vec<&'a str>,
    /// `X-Azure-FDID`: id of the Azure Front Door that forwarded the request.
    pub(crate) front_door: Vec<&'a str>,
    /// `X-Azure-ClientIP`: client address of that Front Door.
    pub(crate) front_door_client: Vec<&'a str>,
}

/// Reasons for which the public origin cannot be determined.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginError {
    #[error("The Host header is malformed")]
    Host,
    #[error("The X-Forwarded-Proto header of a trusted proxy is malformed or repeated")]
    ForwardedProto,
    #[error("The X-Forwarded-Host header of a trusted proxy is malformed or repeated")]
    ForwardedHost,
}

/// Public origin of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicOrigin {
    /// A known origin.
    Known(Origin),
    /// The request's host is not in `GATEWAY_PUBLIC_URLS`; the value is the first origin there.
    Unlisted(Origin),
    /// The request has no host (HTTP/1.0), and `GATEWAY_PUBLIC_URLS` is empty.
    Unnamed,
}

/// A client's address and scheme, and the public origin of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    /// The client's address.
    pub(crate) client: IpAddr,
    /// `X-Forwarded-For` for upstream: the client, then the trusted proxies, the peer last.
    pub(crate) chain: Vec<IpAddr>,
    /// True if the peer's forwarding headers are read.
    pub(crate) peer_is_trusted: bool,
    /// Scheme between the client and the outermost proxy.
    pub(crate) scheme: Scheme,
    /// Public origin that the client used.
    pub(crate) origin: PublicOrigin,
    /// True if the request came through the configured Front Door, or if none is configured.
    pub(crate) is_via_front_door: bool,
}

impl ClientInfo {
    /// Public host, for upstream's `X-Forwarded-Host`.
    pub(crate) fn public_host(&self) -> Option<&Authority> {
        match &self.origin {
            PublicOrigin::Known(origin) => Some(&origin.authority),
            PublicOrigin::Unlisted(_) | PublicOrigin::Unnamed => None,
        }
    }
}

/// Settings of proxies and public origins.
#[derive(Debug, Clone)]
pub(crate) struct EdgePolicy {
    /// Public origins, the canonical one first; empty: derived from each request.
    pub(crate) public_urls: Vec<Origin>,
    /// Peers whose forwarding headers are read.
    pub(crate) trusted: TrustedProxies,
    /// Id of the Azure Front Door that every request must come through.
    pub(crate) front_door: Option<Uuid>,
}

impl EdgePolicy {
    /// Determines the client information of a request from `peer`.
    ///
    /// # Errors
    /// A malformed `Host`, or a malformed or repeated forwarding header of a trusted peer.
    pub(crate) fn resolve(
        &self,
        peer: IpAddr,
        headers: &Forwarding<'_>,
    ) -> Result<ClientInfo, OriginError> {
        let peer = peer.to_canonical();
        let peer_is_trusted = self.trusted.trusts(peer);
        // From the peer outwards, over trusted addresses.
        let mut chain = vec![peer];
        let mut trusted_hops = usize::from(peer_is_trusted);
        let entries: Vec<_> = list(&headers.x_for).filter(|_| peer_is_trusted).collect();
        for entry in entries.into_iter().rev() {
            let Some(from) = node(entry) else { break };
            chain.push(from);
            if !self.trusted.trusts(from) {
                break;
            }
            trusted_hops += 1;
        }
        let is_via_front_door = self.is_via_front_door(headers);
        if self.front_door.is_some()
            && is_via_front_door
            && let [client] = *headers.front_door_client
            && let Some(client) = node(client)
            && chain.last() != Some(&client)
        {
            // Front Door knows its client, regardless of the hops in between.
            chain.push(client);
        }
        let client = *chain.last().unwrap_or(&peer);
        chain.reverse();

        let (proto, host) =
            if peer_is_trusted { self.outermost(headers, trusted_hops)? } else { (None, None) };
        let scheme = match proto {
            Some(text) => Scheme::parse(text).ok_or(OriginError::ForwardedProto)?,
            None => Scheme::Http,
        };
        let forwarded_host = match host {
            Some(text) => Some(Authority::parse(text).ok_or(OriginError::ForwardedHost)?),
            None => None,
        };
        let own_host = match headers.host {
            Some("") | None => None,
            Some(text) => Some(Authority::parse(text).ok_or(OriginError::Host)?),
        };

        let (scheme, origin) = match self.public_urls.first() {
            None => {
                let origin = forwarded_host
                    .or(own_host)
                    .map_or(PublicOrigin::Unnamed, |a| PublicOrigin::Known(Origin::new(scheme, a)));
                (scheme, origin)
            }
            Some(canonical) => {
                let listed = [forwarded_host, own_host]
                    .into_iter()
                    .flatten()
                    .find_map(|host| self.public_urls.iter().find(|origin| origin.is_at(&host)));
                match listed {
                    Some(origin) => (origin.scheme, PublicOrigin::Known(origin.clone())),
                    None => (scheme, PublicOrigin::Unlisted(canonical.clone())),
                }
            }
        };
        Ok(ClientInfo { client, chain, peer_is_trusted, scheme, origin, is_via_front_door })
    }

    fn is_via_front_door(&self, headers: &Forwarding<'_>) -> bool {
        let Some(ours) = self.front_door else { return true };
        let [id] = *headers.front_door else { return false };
        id.parse::<Uuid>().is_ok_and(|id| id == ours)
    }

    /// Names of the request headers that [`Self::resolve`] may read, for `Vary`.
    pub(crate) fn varies_on(&self) -> &'static str {
        match self.trusted {
            TrustedProxies::None => "Host",
            TrustedProxies::Private | TrustedProxies::Networks(_) => {
                "Host, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-For"
            }
        }
    }

    fn reads_forwarded_host(&self) -> bool {
        matches!(self.trusted, TrustedProxies::Networks(_)) || !self.public_urls.is_empty()
    }

    /// Scheme and host that the outermost trusted proxy wrote.
    fn outermost<'a>(
        &self,
        headers: &Forwarding<'a>,
        trusted_hops: usize,
    ) -> Result<(Option<&'a str>, Option<&'a str>), OriginError> {
        let proto = outermost_entry(&headers.x_proto, trusted_hops)
            .map_err(|()| OriginError::ForwardedProto)?;
        let host = if self.reads_forwarded_host() {
            outermost_entry(&headers.x_host, trusted_hops)
                .map_err(|()| OriginError::ForwardedHost)?
        } else {
            None
        };
        Ok((proto, host))
    }
}

/// Entry of a one-line header that the outermost of `trusted_hops` proxies wrote. A second line, or more
/// entries than trusted proxies, is an error: a client may have sent the surplus.
fn outermost_entry<'a>(lines: &[&'a str], trusted_hops: usize) -> Result<Option<&'a str>, ()> {
    match lines {
        [] => Ok(None),
        [line] => {
            let mut entries = line.split(',').map(str::trim);
            let outermost = entries.next().filter(|entry| !entry.is_empty()).ok_or(())?;
            if entries.count() < trusted_hops { Ok(Some(outermost)) } else { Err(()) }
        }
        _ => Err(()),
    }
}

fn list<'a>(lines: &[&'a str]) -> impl Iterator<Item = &'a str> {
    lines.iter().flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
}

/// Parses an address with an optional port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    entry
        .parse::<IpAddr>()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| bracketed().map(IpAddr::V6))
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests;
