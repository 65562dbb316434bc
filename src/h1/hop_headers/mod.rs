//! Header rules of the proxy: the fields that are forwarded, byte for byte and in their order.
//!
//! Hop-by-hop fields are not forwarded in either direction (RFC 9110 §7.6.1). Fields whose name has an
//! underscore are not forwarded to upstream (gunicorn takes `SCRIPT_NAME` of a trusted peer for routing), nor
//! are forwarding fields, which the gateway writes itself.

mod request;
mod response;

pub(crate) use self::request::{CookieLine, UpstreamHead, is_final_recipient, request, upgrade};
pub(crate) use self::response::{ClientHead, response};
use super::message::Fields;

/// Role of a field for a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldRole {
    /// Forwarded.
    EndToEnd,
    Connection,
    /// Dropped: belongs to one connection.
    HopByHop,
    TransferEncoding,
    ContentLength,
    Upgrade,
    Host,
    Cookie,
    SetCookie,
    Expect,
    /// `traceparent` and `tracestate`.
    Trace,
    Baggage,
    /// Client address, scheme or host as another proxy reports it.
    Forwarding,
    /// Has an underscore in its name: gunicorn maps it to the same WSGI variable as the name with a hyphen.
    Underscored,
    Authorization,
}

impl FieldRole {
    fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let known = match name.len() {
            2 if is("te") => Self::HopByHop,
            4 if is("host") => Self::Host,
            6 if is("cookie") => Self::Cookie,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            7 if is("baggage") => Self::Baggage,
            9 if is("forwarded") || is("x-real-ip") => Self::Forwarding,
            8 if is("x-scheme") => Self::Forwarding,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::HopByHop,
            10 if is("set-cookie") => Self::SetCookie,
            10 if is("tracestate") => Self::Trace,
            11 if is("traceparent") => Self::Trace,
            11 if is("x-client-ip") => Self::Forwarding,
            12 if is("x-url-scheme") => Self::Forwarding,
            13 if is("authorization") => Self::Authorization,
            13 if is("x-rewrite-url") => Self::Forwarding,
            14 if is("content-length") => Self::ContentLength,
            16 if is("x-azure-clientip") || is("x-azure-socketip") => Self::Forwarding,
            14 if is("http2-settings") => Self::HopByHop,
            14 if is("true-client-ip") || is("x-proxyuser-ip") => Self::Forwarding,
            15 if is("front-end-https") => Self::Forwarding,
            16 if is("proxy-connection") => Self::HopByHop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            18 if is("proxy-authenticate") => Self::HopByHop,
            19 if is("proxy-authorization") => Self::HopByHop,
            19 if is("x-cluster-client-ip") => Self::Forwarding,
            _ => Self::EndToEnd,
        };
        let begins = |with: &str| {
            name.get(..with.len()).is_some_and(|front| front.eq_ignore_ascii_case(with.as_bytes()))
        };
        match known {
            Self::EndToEnd if name.contains(&b'_') => Self::Underscored,
            Self::EndToEnd if begins("x-forwarded") || begins("x-original-") => Self::Forwarding,
            known => known,
        }
    }
}

/// A `Connection` header names a field that security depends on, so that a proxy would remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamesProtectedField;

/// Checks every `Connection` line of a request.
pub(crate) fn check_connection_options(fields: &Fields) -> Result<(), NamesProtectedField> {
    let is_protected = |name: &[u8]| {
        matches!(
            FieldRole::of(name),
            FieldRole::Authorization
                | FieldRole::Cookie
                | FieldRole::Host
                | FieldRole::ContentLength
                | FieldRole::Forwarding
        )
    };
    if fields.list("connection").any(is_protected) { Err(NamesProtectedField) } else { Ok(()) }
}

/// True if a field may be in the trailer section of a request. Fields for framing, authentication and forwarding
/// may not (RFC 9110 §6.5.1).
pub(crate) fn may_trail(name: &[u8]) -> bool {
    FieldRole::of(name) == FieldRole::EndToEnd
}

/// Field with the number of further hops (RFC 9110 §7.6.2). Applies to `OPTIONS` only, since `TRACE` is refused.
const MAX_FORWARDS: &[u8] = b"max-forwards";

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The field names in all `Connection` lines, without those that are always dropped.
fn nominated(fields: &Fields) -> Vec<&[u8]> {
    let is_dropped_anyway = |name: &&[u8]| {
        name.eq_ignore_ascii_case(b"close")
            || matches!(
                FieldRole::of(name),
                FieldRole::HopByHop | FieldRole::Upgrade | FieldRole::Connection
            )
    };
    fields.list("connection").filter(|name| !is_dropped_anyway(name)).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    use super::{request::one_less, *};
    use crate::{
        authz::client_info::{EdgePolicy, Forwarding, TrustedProxies},
        h1::message::{Length, RequestHead},
    };

    fn head(fields: &str) -> RequestHead {
        let text = format!("GET /x HTTP/1.1\r\n{fields}\r\n");
        RequestHead::parse(Bytes::from(text)).expect("a head")
    }

    fn upward(fields: &str, cookie: CookieLine<'_>) -> String {
        traced(fields, cookie, None)
    }

    fn traced(fields: &str, cookie: CookieLine<'_>, trace: Option<&SpanContext>) -> String {
        let no_proxy =
            EdgePolicy { public_urls: Vec::new(), trusted: TrustedProxies::None, front_door: None };
        let client_info = no_proxy
            .resolve(
                "127.0.0.1".parse().unwrap(),
                &Forwarding { host: Some("gw.example"), ..Forwarding::default() },
            )
            .unwrap();
        let upward = UpstreamHead {
            target: b"/x",
            client_info: &client_info,
            cookie,
            host: None,
            default_host: b"upstream",
            upgrade: None,
            trace,
        };
        let bytes = request(&head(fields), &upward);
        String::from_utf8(bytes).unwrap()
    }

    const OURS: &str = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: gw.example\r\n\r\n";

    #[test]
    fn fields_named_in_any_connection_line_are_dropped() {
        let sent = upward(
            "HOST: a\r\nConnection: close, X-Hop\r\nconnection: x-more\r\nX-Hop: 1\r\nx-MORE: 1\r\n\
             Keep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Stays: 1\r\n",
            CookieLine::Unchanged,
        );
        assert_eq!(sent, format!("GET /x HTTP/1.1\r\nHOST: a\r\nX-Stays: 1\r\n{OURS}"));
    }

    #[test]
    fn protected_fields_may_not_be_nominated() {
        for name in
            ["Authorization", "cookie", "Host", "X-Forwarded-Proto", "forwarded", "content-length"]
        {
            let head = head(&format!("Connection: close\r\nConnection: {name}\r\n"));
            assert_eq!(check_connection_options(&head.fields), Err(NamesProtectedField), "{name}");
        }
        let head = head("Connection: keep-alive, Upgrade\r\n");
        assert_eq!(check_connection_options(&head.fields), Ok(()));
    }

    #[test]
    fn forwarding_fields_of_an_untrusted_peer_are_replaced() {
        let sent = upward(
            "SCRIPT_NAME: /a\r\nX-Forwarded-Ssl: on\r\nx-forwarded-for: 10.0.0.1\r\n\
             X-Original-URL: /external/login\r\nFront-End-Https: on\r\ntraceparent: 00-1-2-01\r\n\
             Accept: */*\r\n",
            CookieLine::Unchanged,
        );
        assert_eq!(sent, format!("GET /x HTTP/1.1\r\nAccept: */*\r\nHost: upstream\r\n{OURS}"));
    }

    #[test]
    fn the_trace_context_is_sent_once() {
        let ours = SpanContext::new(
            TraceId::from(1_u128),
            SpanId::from(2_u64),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        let received = "Host: a\r\nTraceparent: 00-3-4-01\r\ntracestate: a=b\r\nbaggage: c=d\r\n";
        let sent = traced(received, CookieLine::Unchanged, Some(&ours));
        let id = "00-00000000000000000000000000000001-0000000000000002-01";
        let forwarding_lines = OURS.trim_end();
        let expected = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\n{forwarding_lines}\r\ntraceparent: {id}\r\n\r\n"
        );
        assert_eq!(sent, expected);
    }

    #[test]
    fn cookies_are_sent_in_one_line_at_the_position_of_the_first() {
        let received = "Host: a\r\nCookie: a=1\r\nX: 1\r\ncookie: b=2\r\n";
        let sent = upward(received, CookieLine::Is(b"a=1; b=2"));
        let expected = format!("GET /x HTTP/1.1\r\nHost: a\r\nCookie: a=1; b=2\r\nX: 1\r\n{OURS}");
        assert_eq!(sent, expected);
        assert!(!upward(received, CookieLine::Removed).contains("ookie"));
    }

    #[test]
    fn max_forwards_is_decremented_only_for_options() {
        let sent = |method: &str, value: &str| {
            let text = format!("{method} /x HTTP/1.1\r\nMAX-forwards: {value}\r\n\r\n");
            RequestHead::parse(Bytes::from(text)).expect("a head")
        };
        for (value, expected, is_final) in [
            ("5", "4", false),
            ("1", "0", false),
            ("007", "6", false),
            ("0", "0", true),
            ("000", "0", true),
            ("99999999999999999999", "4294967295", false),
            ("", "", false),
            ("-1", "-1", false),
            ("1, 2", "1, 2", false),
        ] {
            assert_eq!(one_less(value.as_bytes()), expected.as_bytes(), "{value}");
            assert_eq!(is_final_recipient(&sent("OPTIONS", value)), is_final, "{value}");
            assert!(!is_final_recipient(&sent("GET", value)), "{value}");
        }
    }

    #[test]
    fn only_a_request_without_a_body_may_upgrade() {
        let ws = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        assert_eq!(upgrade(&head(ws), Length::None), Some(&b"websocket"[..]));
        assert_eq!(upgrade(&head(ws), Length::Sized(1)), None);
        for none in [
            "Upgrade: websocket\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket, H2C\r\n",
            "Connection: Upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n",
        ] {
            assert_eq!(upgrade(&head(none), Length::None), None, "{none}");
        }
    }
}
