//! Requests that two parsers could read as two different ones are refused before anything else.
//!
//! hyper has parsed the head: it has refused obsolete folding, bad names and repeated, differing
//! lengths. What it lets pass is judged here (RFC 9112 §3.2, §6).

use http::{HeaderMap, HeaderValue, Method, Request, Version, header};

use super::{error::Refusal, hop_headers};

/// Judges a request's head.
pub(super) fn judge<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    let count = |name| headers.get_all(name).iter().count();
    let malformed = |what| Err(Refusal::Framing(what));

    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return malformed("this method is not served here");
    }
    if request.version() > Version::HTTP_11 {
        return malformed("HTTP/1.1 and HTTP/1.0 only");
    }
    let (lengths, encodings) = (count(header::CONTENT_LENGTH), count(header::TRANSFER_ENCODING));
    if lengths > 1 || lengths == 1 && encodings > 0 {
        return malformed("its length is ambiguous");
    }
    if lengths == 1 && !has_plain_length(headers) {
        return malformed("its length is not a number");
    }
    if encodings > 0 && (request.version() < Version::HTTP_11 || !is_chunked(headers)) {
        return malformed("its transfer coding is not chunked");
    }
    if request.version() == Version::HTTP_11 && count(header::HOST) != 1 || count(header::HOST) > 1
    {
        return malformed("it must bear one Host header");
    }
    if let Some(authority) = request.uri().authority() {
        let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
        if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_str().as_bytes())) {
            return malformed("its target names another host than its Host header");
        }
    }
    if request.uri().path() == "*" && request.method() != Method::OPTIONS {
        return malformed("its target is not a path");
    }
    if hop_headers::judge_connection(headers).is_err() {
        return malformed("its Connection header names a field that is not hop-by-hop");
    }
    Ok(())
}

fn has_plain_length(headers: &HeaderMap) -> bool {
    let is_digits = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    headers.get(header::CONTENT_LENGTH).is_none_or(is_digits)
}

fn is_chunked(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = encodings.next();
    first.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && encodings.next().is_none()
}
