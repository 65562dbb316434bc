//! Which headers travel on.
//!
//! Hop-by-hop fields stay on their hop (RFC 9110 §7.6.1), both ways. Upward, names with an underscore
//! are dropped (gunicorn turns `SCRIPT_NAME` from a trusted peer into routing), and so is whatever
//! claims to say which way the request came: we say that ourselves.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::access::origin::Route;

const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The rest of the forwarding family, beside `X-Forwarded…` and `X-Original-…`.
const FORWARDING: [&str; 10] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "x-rewrite-url",
    "x-url-scheme",
    "x-scheme",
    "front-end-https",
    "x-proxyuser-ip",
];

/// A `Connection` header that names a field which security rests on: somebody wants it removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamesProtectedField;

/// Checks every `Connection` line of a request.
pub(super) fn judge_connection(headers: &HeaderMap) -> Result<(), NamesProtectedField> {
    let is_protected = |name: &str| {
        matches!(name, "authorization" | "cookie" | "host" | "content-length")
            || is_forwarding(name)
    };
    if nominated(headers).iter().any(|name| is_protected(name.as_str())) {
        Err(NamesProtectedField)
    } else {
        Ok(())
    }
}

/// Removes what belongs to one hop alone; for requests and responses.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP.iter().chain([&PROXY_CONNECTION]) {
        headers.remove(name);
    }
}

/// Puts in place of what callers and proxies say about a request's way what is trusted of it.
pub(super) fn set_forwarding(headers: &mut HeaderMap, route: &Route) {
    let odd: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_') || is_forwarding(name.as_str()))
        .cloned()
        .collect();
    for name in odd {
        headers.remove(name);
    }
    if !route.peer_is_trusted {
        headers.remove("traceparent");
        headers.remove("tracestate");
        headers.remove("baggage");
    }
    let chain: Vec<String> = route.chain.iter().map(ToString::to_string).collect();
    let proto = HeaderValue::from_static(route.scheme.as_str());
    headers.insert(X_FORWARDED_PROTO, proto);
    for (name, text) in
        [(X_FORWARDED_FOR, Some(chain.join(", "))), (X_FORWARDED_HOST, route.public_host())]
    {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
}

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded") || name.starts_with("x-original-") || FORWARDING.contains(&name)
}

/// The fields that `Connection` names, over all its lines.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::origin::{ForwardedFamily, Forwarding, Surroundings, TrustedProxies};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn every_connection_line_is_read() {
        let mut map = headers(&[
            ("connection", "close, X-Hop"),
            ("connection", "x-more"),
            ("x-hop", "1"),
            ("x-more", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-stays", "1"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("x-stays", "1")]));
    }

    #[test]
    fn protected_fields_may_not_be_nominated() {
        for name in ["Authorization", "cookie", "Host", "X-Forwarded-Proto", "forwarded"] {
            let map = headers(&[("connection", "close"), ("connection", name)]);
            assert_eq!(judge_connection(&map), Err(NamesProtectedField), "{name}");
        }
        assert_eq!(judge_connection(&headers(&[("connection", "keep-alive, Upgrade")])), Ok(()));
    }

    #[test]
    fn what_an_untrusted_peer_says_of_its_way_is_replaced() {
        let mut map = headers(&[
            ("script_name", "/a"),
            ("x-forwarded-ssl", "on"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-original-url", "/external/login"),
            ("front-end-https", "on"),
            ("traceparent", "00-1-2-01"),
            ("accept", "*/*"),
        ]);
        let nobody = Surroundings {
            public_urls: Vec::new(),
            trusted: TrustedProxies::None,
            family: ForwardedFamily::XForwarded,
        };
        let route = nobody
            .place(
                "127.0.0.1".parse().unwrap(),
                &Forwarding { host: Some("gw.example"), ..Forwarding::default() },
            )
            .unwrap();
        set_forwarding(&mut map, &route);
        assert_eq!(
            map,
            headers(&[
                ("accept", "*/*"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-host", "gw.example"),
            ])
        );
    }
}
