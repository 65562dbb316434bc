//! Parser of message heads: the first line and the fields (RFC 9112 §2–5).

use std::ops::Range;

use bytes::Bytes;
use memchr::{memchr, memchr_iter};

use super::{Fields, HeadError, Malformed};

/// Supported HTTP versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// End of the head at the start of `bytes`, its empty line included; `None`: the head is incomplete. The first
/// `scanned` bytes are known to contain no end.
pub(crate) fn find_end(bytes: &[u8], scanned: usize) -> Result<Option<usize>, Malformed> {
    // The end may start within the scanned bytes.
    let from = scanned.saturating_sub(3);
    for at in memchr_iter(b'\n', &bytes[from..]).map(|at| from + at) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Malformed("a line ends with LF alone"));
        }
        if at >= 3 && bytes[at - 3..at - 1] == *b"\r\n" {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// True if `bytes` start with an empty line, which is skipped before a request (RFC 9112 §2.2); `None`: more bytes
/// are needed.
pub(crate) fn is_blank_line(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [] | [b'\r'] => None,
        [first, second, ..] => Some([*first, *second] == *b"\r\n"),
        [_] => Some(false),
    }
}

/// Length of the first line without its CRLF. A CR without LF is malformed: some parsers take it for a line end.
fn first_line_end(bytes: &[u8]) -> Result<usize, Malformed> {
    match memchr(b'\r', bytes) {
        Some(end) if bytes.get(end + 1) == Some(&b'\n') => Ok(end),
        _ => Err(Malformed("a line ends with CR alone")),
    }
}

/// Request head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    method: Range<usize>,
    target: Range<usize>,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

impl RequestHead {
    /// True if the sender leaves its connection open after this message (RFC 9112 §9.3).
    pub(crate) fn is_persistent(&self) -> bool {
        is_persistent(self.version, &self.fields)
    }

    /// Parses a complete head. Precondition: every LF follows a CR (see [`find_end`]).
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, HeadError> {
        let malformed = |what| Err(Malformed(what).into());
        let line_end = first_line_end(&bytes)?;
        let line = &bytes[..line_end];
        let Some(method_end) = memchr(b' ', line) else {
            return malformed("the first line is not a request line");
        };
        let Some(target_len) = memchr(b' ', &line[method_end + 1..]) else {
            return malformed("the first line is not a request line");
        };
        let method = 0..method_end;
        let target = method_end + 1..method_end + 1 + target_len;
        let version = match &line[target.end + 1..] {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return malformed("only HTTP/1.1 and HTTP/1.0 are supported"),
        };
        if method.is_empty() || !line[method.clone()].iter().all(|b| is_token(*b)) {
            return malformed("the method is not a token");
        }
        if target.is_empty() || !line[target.clone()].iter().all(|b| may_be_in_target(*b)) {
            return malformed("the target contains bytes that must be percent-encoded");
        }
        let fields = Fields::parse(bytes, line_end + 2)?;
        Ok(Self { method, target, version, fields })
    }

    /// The method, a token.
    pub(crate) fn method(&self) -> &str {
        std::str::from_utf8(&self.fields.head[self.method.clone()]).unwrap_or_default()
    }

    /// The target, unchanged.
    pub(crate) fn target(&self) -> &[u8] {
        &self.fields.head[self.target.clone()]
    }
}

/// Response head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    after_status: Range<usize>,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

impl ResponseHead {
    /// True if the sender leaves its connection open after this message (RFC 9112 §9.3).
    pub(crate) fn is_persistent(&self) -> bool {
        is_persistent(self.version, &self.fields)
    }

    /// Parses a complete head. Precondition: every LF follows a CR (see [`find_end`]).
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, HeadError> {
        let malformed = |what| Err(Malformed(what).into());
        let line_end = first_line_end(&bytes)?;
        let line = &bytes[..line_end];
        let version = match line.get(..9) {
            Some(b"HTTP/1.1 ") => Version::Http11,
            Some(b"HTTP/1.0 ") => Version::Http10,
            _ => return malformed("the first line is not a status line of HTTP/1.1 or HTTP/1.0"),
        };
        let status = match line[9..] {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']
            | [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => {
                u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
            }
            _ => return malformed("the status is not a number of three digits"),
        };
        let after_status = 12..line_end;
        if line[12..].iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return malformed("the reason phrase contains control bytes");
        }
        let fields = Fields::parse_of_response(bytes, line_end + 2)?;
        Ok(Self { status, after_status, version, fields })
    }

    /// True if the response could lead a browser to a sign-in: a redirect (RFC 9110 §15.4), or 401.
    pub(crate) fn leads_to_sign_in(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308 | 401)
    }

    /// The status and the rest of its line.
    pub(crate) fn status_and_reason(&self) -> &[u8] {
        &self.fields.head[9..self.after_status.end]
    }
}

/// True for `tchar` (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// True for bytes other than white space, control bytes, and those at which some parsers cut a target.
fn may_be_in_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && !matches!(byte, b'#' | b'<' | b'>')
}

fn is_persistent(version: Version, fields: &Fields) -> bool {
    let has_option =
        |option: &[u8]| fields.list("connection").any(|one| one.eq_ignore_ascii_case(option));
    match version {
        Version::Http11 => !has_option(b"close"),
        Version::Http10 => has_option(b"keep-alive") && !has_option(b"close"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<RequestHead, HeadError> {
        let end = find_end(text.as_bytes(), 0)?.expect("whole");
        RequestHead::parse(Bytes::copy_from_slice(&text.as_bytes()[..end]))
    }

    #[test]
    fn the_end_of_a_head_is_found_for_every_split() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for scanned in 0..bytes.len() - 4 {
            assert_eq!(
                find_end(&bytes[..scanned], 0).unwrap(),
                None.filter(|()| scanned < 27).map(|()| 0).or((scanned >= 27).then_some(27))
            );
            assert_eq!(find_end(bytes, scanned.min(26)).unwrap(), Some(27));
        }
    }

    #[test]
    fn method_target_version_and_fields_are_read_unchanged() {
        let head = request(
            "PURGE /a`\"{}|\\^%zz//?q=\u{e4} HTTP/1.0\r\nX-A:  1 \r\nx-a:\t2\r\nEmpty:\r\n\r\n",
        )
        .unwrap();
        assert_eq!(head.method(), "PURGE");
        assert_eq!(head.target(), "/a`\"{}|\\^%zz//?q=\u{e4}".as_bytes());
        assert_eq!(head.version, Version::Http10);
        assert_eq!(head.fields.all("X-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(head.fields.all("empty").collect::<Vec<_>>(), [b""]);
    }

    #[test]
    fn ambiguous_heads_are_malformed() {
        for text in [
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            " / HTTP/1.1\r\n\r\n",
            "GET /#a HTTP/1.1\r\n\r\n",
            "GET /<a HTTP/1.1\r\n\r\n",
            "GET /a>b HTTP/1.1\r\n\r\n",
            "GET /\t HTTP/1.1\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\n\r\n",
            "GET /\rX HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\rXHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            "GET / HTTP/1.1\r\nH\u{e4}: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n\r\n",
        ] {
            assert!(matches!(request(text), Err(HeadError::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn more_than_256_fields_are_a_separate_error() {
        let with = |count: usize| {
            let fields = "a: b\r\n".repeat(count);
            request(&format!("GET / HTTP/1.1\r\n{fields}\r\n"))
        };
        assert_eq!(with(256).unwrap().fields.iter().count(), 256);
        assert_eq!(with(257).unwrap_err(), HeadError::TooManyFields);
    }

    /// seanmonstar/httparse#88, hyperium/hyper#2506, apache/trafficserver#7176.
    #[test]
    fn space_before_a_colon_is_removed_only_from_responses() {
        let response = |fields: &str| {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let head = ResponseHead::parse(Bytes::from(text))?;
            let line = |(name, value): (&[u8], &[u8])| {
                let [name, value] = [name, value].map(String::from_utf8_lossy);
                format!("{name}={value};")
            };
            Ok::<String, HeadError>(head.fields.iter().map(line).collect())
        };
        for (fields, expected) in [
            ("A : b\r\n", "A=b;"),
            ("A\t \t: b\r\nC: d : e\r\nF :\r\n", "A=b;C=d : e;F=;"),
            ("A: b\r\nContent-Length : 5\r\n", "A=b;Content-Length=5;"),
        ] {
            assert_eq!(response(fields).as_deref(), Ok(expected), "{fields:?}");
            assert!(request(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).is_err(), "{fields:?}");
        }
        for fields in [
            " : b\r\n",
            " A : b\r\n",
            "A B : c\r\n",
            "A\u{b}: b\r\n",
            "A\u{a0}: b\r\n",
            "A \r\n",
            "A : b\r\n c\r\n",
            "A : b\r\n\tc : d\r\n",
            "A : b\0\r\n",
        ] {
            assert!(response(fields).is_err(), "{fields:?}");
        }
    }

    #[test]
    fn status_lines_keep_their_reason() {
        let response = |text: &[u8]| ResponseHead::parse(Bytes::copy_from_slice(text));
        let odd = response(b"HTTP/1.1 299 Fr\xf6hlich\r\nA: b\r\n\r\n").unwrap();
        assert_eq!((odd.status, odd.status_and_reason()), (299, &b"299 Fr\xf6hlich"[..]));
        let bare = response(b"HTTP/1.0 200\r\n\r\n").unwrap();
        assert_eq!((bare.status_and_reason(), bare.version), (&b"200"[..], Version::Http10));
        for wrong in [
            &b"HTTP/2 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 2000\r\n\r\n",
            b"200 OK\r\n\r\n",
            b"HTTP/1.1 099 x\r\n\r\n",
        ] {
            assert!(response(wrong).is_err());
        }
    }
}
