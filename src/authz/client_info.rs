//! Which way a request came: the client's address and the public origin, from forwarding headers
//! times trusted peers.
//!
//! ```text
//! X-Forwarded-For: 198.51.100.7, 203.0.113.9, 10.0.0.4     peer 10.0.0.2
//!                  └ never read  └ the client └ trusted      └ trusted
//! ```
//!
//! The chain is walked from the right over trusted addresses; the first that is not trusted is the
//! client. Scheme and host count as the outermost trusted proxy wrote them: every proxy that appends
//! to a list adds one entry, so the entry counts that stands as far from the right as there are
//! trusted hops. A header that an untrusted peer sent is never read.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use uuid::Uuid;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
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

    /// In lower case, as upstream wants it.
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

/// `host[:port]` as in a `Host` header (RFC 9110 §7.2): in lower case, no user information.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// `None` when it is not a host name, an IPv4 address or an IPv6 address in brackets. An empty port
    /// (`host:`) is valid and means none (RFC 3986 §3.2.3).
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

    /// Without the port.
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

/// `scheme://host[:port]` (RFC 6454 §6.2), without a port that the scheme implies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: Scheme,
    authority: Authority,
}

impl Origin {
    /// Reads an origin; a single trailing slash is let pass, a path, query or user is not.
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

/// Whose forwarding headers count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrustedProxies {
    /// Nobody's.
    None,
    /// Private addresses: for scheme and client address, for the host only where it is listed.
    Private,
    /// These networks, for any host.
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

/// Loopback, RFC 1918, RFC 6598, link-local and unique local addresses.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xC0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The headers that take part, one entry a line, in order.
#[derive(Debug, Default, Clone)]
pub(crate) struct Forwarding<'a> {
    /// `Host`; `None` when the request has none or it is not text.
    pub(crate) host: Option<&'a str>,
    /// `X-Forwarded-For`.
    pub(crate) x_for: Vec<&'a str>,
    /// `X-Forwarded-Proto`.
    pub(crate) x_proto: Vec<&'a str>,
    /// `X-Forwarded-Host`.
    pub(crate) x_host: Vec<&'a str>,
    /// `X-Azure-FDID`: which WorkerService Door it came through.
    pub(crate) front_door: Vec<&'a str>,
    /// `X-Azure-ClientIP`: who came to it.
    pub(crate) front_door_client: Vec<&'a str>,
}

/// Why a request cannot be placed.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginError {
    #[error("The Host header is malformed")]
    Host,
    #[error("The X-Forwarded-Proto header of a trusted proxy is malformed or repeated")]
    ForwardedProto,
    #[error("The X-Forwarded-Host header of a trusted proxy is malformed or repeated")]
    ForwardedHost,
}

/// The origin under which a caller knows us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublicOrigin {
    /// This one.
    Known(Origin),
    /// The request bears a host that is not on the operator's list; the list begins with this one.
    Unlisted(Origin),
    /// No host at all (HTTP/1.0), and no list.
    Unnamed,
}

/// Which way a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    /// The client's address.
    pub(crate) client: IpAddr,
    /// Client first, then the trusted proxies, the peer last: `X-Forwarded-For` for upstream.
    pub(crate) chain: Vec<IpAddr>,
    /// Whether the peer's headers count at all.
    pub(crate) peer_is_trusted: bool,
    /// As the client spoke to the outermost proxy.
    pub(crate) scheme: Scheme,
    /// Where the client believes to be.
    pub(crate) origin: PublicOrigin,
    /// Whether it came the way the operator wants: through the front door, where there is one.
    pub(crate) is_via_front_door: bool,
}

impl ClientInfo {
    /// The public host, for upstream's `X-Forwarded-Host`.
    pub(crate) fn public_host(&self) -> Option<&Authority> {
        match &self.origin {
            PublicOrigin::Known(origin) => Some(&origin.authority),
            PublicOrigin::Unlisted(_) | PublicOrigin::Unnamed => None,
        }
    }
}

/// The operator's decisions about proxies and public names.
#[derive(Debug, Clone)]
pub(crate) struct EdgePolicy {
    /// Public origins, the canonical one first; empty: derived per request.
    pub(crate) public_urls: Vec<Origin>,
    /// Whose headers count.
    pub(crate) trusted: TrustedProxies,
    /// The Azure WorkerService Door that all requests must come through.
    pub(crate) front_door: Option<Uuid>,
}

impl EdgePolicy {
    /// Places a request that came from `peer`.
    pub(crate) fn resolve(
        &self,
        peer: IpAddr,
        headers: &Forwarding<'_>,
    ) -> Result<ClientInfo, OriginError> {
        let peer = peer.to_canonical();
        let peer_is_trusted = self.trusted.trusts(peer);
        // From the peer outwards, over addresses that are trusted.
        let mut chain = vec![peer];
        let mut trusted_hops = usize::from(peer_is_trusted);
        let written: Vec<_> = list(&headers.x_for).filter(|_| peer_is_trusted).collect();
        for entry in written.into_iter().rev() {
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
            // Whoever stands in between, WorkerService Door knows who came to it.
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
                    .find_map(|bears| self.public_urls.iter().find(|origin| origin.is_at(&bears)));
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

    /// Names of the request headers that [`Self::place`] may read, for `Vary`.
    pub(crate) fn varies_on(&self) -> &'static str {
        match self.trusted {
            TrustedProxies::None => "Host",
            TrustedProxies::Private | TrustedProxies::Networks(_) => {
                "Host, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-For"
            }
        }
    }

    fn host_counts(&self) -> bool {
        matches!(self.trusted, TrustedProxies::Networks(_)) || !self.public_urls.is_empty()
    }

    /// Scheme and host as the outermost trusted proxy wrote them.
    fn outermost<'a>(
        &self,
        headers: &Forwarding<'a>,
        trusted_hops: usize,
    ) -> Result<(Option<&'a str>, Option<&'a str>), OriginError> {
        let proto =
            aligned(&headers.x_proto, trusted_hops).map_err(|()| OriginError::ForwardedProto)?;
        let host = if self.host_counts() {
            aligned(&headers.x_host, trusted_hops).map_err(|()| OriginError::ForwardedHost)?
        } else {
            None
        };
        Ok((proto, host))
    }
}

/// The entry of a one-line header that the outermost of `trusted_hops` proxies wrote. A second line,
/// or more entries than proxies that could have written them, is somebody's attempt.
fn aligned<'a>(lines: &[&'a str], trusted_hops: usize) -> Result<Option<&'a str>, ()> {
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

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
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
mod tests {
    use super::*;

    fn edge(urls: &[&str], trusted: TrustedProxies) -> EdgePolicy {
        EdgePolicy {
            public_urls: urls.iter().map(|u| Origin::parse(u).unwrap()).collect(),
            trusted,
            front_door: None,
        }
    }

    fn networks(text: &[&str]) -> TrustedProxies {
        TrustedProxies::Networks(text.iter().map(|n| n.parse().unwrap()).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn known(client_info: &ClientInfo) -> String {
        match &client_info.origin {
            PublicOrigin::Known(origin) => origin.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        let headers = Forwarding {
            host: Some("gw.example"),
            x_for: vec!["10.0.0.1"],
            x_proto: vec!["https", "nonsense"],
            x_host: vec!["evil.example"],
            ..Forwarding::default()
        };
        let client_info =
            edge(&[], TrustedProxies::Private).resolve(ip("203.0.113.9"), &headers).unwrap();
        assert_eq!(client_info.client, ip("203.0.113.9"));
        assert_eq!(known(&client_info), "http://gw.example");
    }

    #[test]
    fn a_private_proxy_counts_for_scheme_and_client_but_not_for_an_unlisted_host() {
        let headers = Forwarding {
            host: Some("gw.example"),
            x_for: vec!["not an address, 198.51.100.7:4711"],
            x_proto: vec!["https"],
            x_host: vec!["evil.example"],
            ..Forwarding::default()
        };
        let client_info =
            edge(&[], TrustedProxies::Private).resolve(ip("10.0.0.2"), &headers).unwrap();
        assert_eq!(client_info.client, ip("198.51.100.7"));
        assert_eq!(known(&client_info), "https://gw.example");
        assert_eq!(client_info.chain, [ip("198.51.100.7"), ip("10.0.0.2")]);
    }

    #[test]
    fn named_proxies_count_for_any_host_and_ports_survive() {
        let headers = Forwarding {
            host: Some("10.0.0.9:8080"),
            x_proto: vec!["https"],
            x_host: vec!["Chat.Example:8443"],
            ..Forwarding::default()
        };
        let client_info =
            edge(&[], networks(&["10.0.0.0/8"])).resolve(ip("10.0.0.2"), &headers).unwrap();
        assert_eq!(known(&client_info), "https://chat.example:8443");
    }

    #[test]
    fn two_proxies_in_a_row_count_as_the_outer_one_wrote() {
        let headers = Forwarding {
            host: Some("gw.example"),
            x_for: vec!["198.51.100.7", "10.0.0.4"],
            x_proto: vec!["https, http"],
            ..Forwarding::default()
        };
        let at = edge(&[], TrustedProxies::Private);
        let client_info = at.resolve(ip("10.0.0.2"), &headers).unwrap();
        assert_eq!(client_info.client, ip("198.51.100.7"));
        assert_eq!(known(&client_info), "https://gw.example");
        // The same list from one proxy holds an entry that the caller wrote.
        let headers = Forwarding { x_for: vec!["198.51.100.7"], ..headers };
        assert_eq!(at.resolve(ip("10.0.0.2"), &headers), Err(OriginError::ForwardedProto));
    }

    #[test]
    fn a_listed_origin_is_found_by_forwarded_host_then_host_and_nothing_else_is_echoed() {
        let at =
            edge(&["https://chat.example", "http://[2001:db8::1]:8080"], TrustedProxies::Private);
        let peer = ip("10.0.0.2");
        let bears = |host, x_host| {
            let headers = Forwarding { host: Some(host), x_host, ..Forwarding::default() };
            at.resolve(peer, &headers).unwrap().origin
        };
        let first = PublicOrigin::Known(Origin::parse("https://chat.example").unwrap());
        let second = PublicOrigin::Known(Origin::parse("http://[2001:DB8::1]:8080").unwrap());
        assert_eq!(bears("internal", vec!["chat.example"]), first);
        assert_eq!(bears("CHAT.example:443", vec!["unlisted.example"]), first);
        assert_eq!(bears("[2001:db8::1]:8080", vec![]), second);
        let unlisted = PublicOrigin::Unlisted(Origin::parse("https://chat.example").unwrap());
        assert_eq!(bears("evil.example", vec![]), unlisted);
        assert_eq!(bears("chat.example:8443", vec![]), unlisted);
    }

    #[test]
    fn malformed_values_that_would_be_used_are_refused() {
        let at = edge(&["https://chat.example"], TrustedProxies::Private);
        let peer = ip("10.0.0.2");
        let proto = |x_proto| {
            at.resolve(peer, &Forwarding { x_proto, ..Forwarding::default() }).unwrap_err()
        };
        assert_eq!(proto(vec!["https", "https"]), OriginError::ForwardedProto);
        assert_eq!(proto(vec!["wss"]), OriginError::ForwardedProto);
        assert_eq!(proto(vec![""]), OriginError::ForwardedProto);
        let host =
            |x_host| at.resolve(peer, &Forwarding { x_host, ..Forwarding::default() }).unwrap_err();
        assert_eq!(host(vec!["a.example/b"]), OriginError::ForwardedHost);
        assert_eq!(host(vec!["a.example", "a.example"]), OriginError::ForwardedHost);
        let own = Forwarding { host: Some("user@chat.example"), ..Forwarding::default() };
        assert_eq!(at.resolve(peer, &own), Err(OriginError::Host));
    }

    /// serverpod/relic#95.
    #[test]
    fn an_empty_port_is_no_port() {
        for (text, expected) in [
            ("a:", Some("a")),
            ("127.0.0.1:", Some("127.0.0.1")),
            ("[::1]:", Some("[::1]")),
            ("a:80", Some("a:80")),
            (":", None),
            ("a::", None),
            ("[::1]::", None),
            ("a:0", None),
            ("a: ", None),
            ("a:65536", None),
        ] {
            let parsed = Authority::parse(text).map(|authority| authority.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text}");
        }
        let at = edge(&["https://chat.example"], TrustedProxies::None);
        let headers = Forwarding { host: Some("chat.example:"), ..Forwarding::default() };
        assert_eq!(known(&at.resolve(ip("10.0.0.2"), &headers).unwrap()), "https://chat.example");
    }

    #[test]
    fn a_front_door_is_known_by_its_id_and_tells_who_came() {
        let id = "11111111-2222-3333-4444-aaaaaaaaaaaa";
        let at = EdgePolicy {
            front_door: Some(id.parse().unwrap()),
            ..edge(&[], TrustedProxies::Private)
        };
        let place = |front_door, front_door_client| {
            let x_for = vec!["192.0.2.99, 203.0.113.9"];
            let headers =
                Forwarding { x_for, front_door, front_door_client, ..Forwarding::default() };
            at.resolve(ip("10.0.0.2"), &headers).unwrap()
        };
        let came = place(vec!["11111111-2222-3333-4444-AAAAAAAAAAAA"], vec!["198.51.100.7"]);
        assert!(came.is_via_front_door);
        assert_eq!(came.client, ip("198.51.100.7"));
        assert_eq!(came.chain, [ip("198.51.100.7"), ip("203.0.113.9"), ip("10.0.0.2")]);
        for clients in [vec![], vec!["nobody"], vec!["198.51.100.7", "198.51.100.8"]] {
            assert_eq!(place(vec![id], clients).client, ip("203.0.113.9"), "as without");
        }
        for ids in [vec![], vec!["22222222-2222-3333-4444-aaaaaaaaaaaa"], vec![id, id], vec![""]] {
            let came = place(ids, vec!["198.51.100.7"]);
            assert!(!came.is_via_front_door);
            assert_eq!(came.client, ip("203.0.113.9"), "anybody may say so");
        }
    }
}
