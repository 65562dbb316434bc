//! Validation of request heads (RFC 9112 §2–6). A request that two parsers could read differently is refused
//! first of all. The parser has checked the syntax; here the fields are checked against each other.

use std::borrow::Cow;

use super::error::Refusal;
use crate::h1::{
    hop_headers,
    message::{Length, RequestHead, Version},
};

/// Request head that has only one reading.
#[derive(Debug)]
pub(crate) struct ValidRequest<'a> {
    pub(crate) head: &'a RequestHead,
    /// Target in origin-form, or `*`.
    pub(crate) target: Cow<'a, [u8]>,
    /// `Host` header; without one (HTTP/1.0), the authority of an absolute-form target (RFC 9112 §3.2.2).
    pub(crate) host: Option<&'a [u8]>,
    /// Path of the target; bytes that are not UTF-8 are replaced.
    pub(crate) path: Cow<'a, str>,
    /// Length of the body.
    pub(crate) length: Length,
}

/// Validates a request head.
pub(crate) fn validate(head: &RequestHead) -> Result<ValidRequest<'_>, Refusal> {
    let malformed = |reason| Err(Refusal::Framing(reason));
    if matches!(head.method(), "CONNECT" | "TRACE") {
        return malformed("the method is not supported");
    }
    let length = Length::of_request(head).map_err(|error| Refusal::Framing(error.0))?;
    let mut hosts = head.fields.all("host");
    let mut host = hosts.next();
    if host.is_none() && head.version == Version::Http11 || hosts.next().is_some() {
        return malformed("one Host header is required");
    }
    let target = match head.target() {
        origin_form @ [b'/', ..] => Cow::Borrowed(origin_form),
        b"*" if head.method() == "OPTIONS" => Cow::Borrowed(&b"*"[..]),
        absolute => {
            let Some((authority, rest)) = split_absolute(absolute) else {
                return malformed("the target is neither a path nor an http URL");
            };
            if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority)) {
                return malformed("the host of the target differs from the Host header");
            }
            host = Some(host.unwrap_or(authority));
            match rest {
                [b'/', ..] => Cow::Borrowed(rest),
                // RFC 9112 §3.2.4: OPTIONS for the server as a whole.
                [] if head.method() == "OPTIONS" => Cow::Borrowed(&b"*"[..]),
                _ => Cow::Owned([b"/", rest].concat()),
            }
        }
    };
    if hop_headers::check_connection_options(&head.fields).is_err() {
        return malformed("the Connection header names a field that is not hop-by-hop");
    }
    let path = match &target {
        Cow::Borrowed(target) => String::from_utf8_lossy(path_of(target)),
        Cow::Owned(target) => Cow::Owned(String::from_utf8_lossy(path_of(target)).into_owned()),
    };
    Ok(ValidRequest { head, target, host, path, length })
}

fn path_of(target: &[u8]) -> &[u8] {
    target.split(|b| *b == b'?').next().unwrap_or_default()
}

/// Authority and rest of an absolute-form target (RFC 9112 §3.2.2).
fn split_absolute(target: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = target.iter().position(|b| *b == b':')?;
    let (scheme, rest) = target.split_at(colon);
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = rest.strip_prefix(b"://")?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    (!authority.is_empty() && !authority.contains(&b'@')).then_some((authority, rest))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn validated(text: &str) -> Result<String, String> {
        let head = RequestHead::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a head");
        let validated = validate(&head).map_err(|refusal| refusal.to_string())?;
        Ok(format!("{} {}", String::from_utf8_lossy(&validated.target), validated.path))
    }

    #[test]
    fn absolute_form_becomes_origin_form() {
        for (target, expected) in [
            ("http://a/x?y", "/x?y /x"),
            ("HTTPS://A", "/ /"),
            ("http://a?q", "/?q /"),
            ("//x/y", "//x/y //x/y"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(validated(&text).as_deref(), Ok(expected), "{target}");
        }
        for (target, expected) in
            [("*", "* *"), ("http://a", "* *"), ("http://a/", "/ /"), ("http://a?q", "/?q /")]
        {
            let text = format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(validated(&text).as_deref(), Ok(expected), "{target}");
        }
    }

    #[test]
    fn targets_of_other_forms_are_refused() {
        for line in [
            "GET *",
            "GET x",
            "GET external/login",
            "GET a:80",
            "GET ftp://a/",
            "GET http:/x",
            "GET http://b/",
            "GET http://u@a/",
            "GET http:///x",
            "CONNECT a:80",
            "TRACE /",
        ] {
            assert!(validated(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).is_err(), "{line}");
        }
    }
}
