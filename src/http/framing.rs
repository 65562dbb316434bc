//! Requests that two parsers could read as two different ones are refused before anything else.
//!
//! hyper has parsed the head (RFC 9112 §2–6). It has refused obsolete folding, bad names, lengths that
//! are no numbers or differ; it has settled for one where both framings or the same length twice were
//! sent, and for a target without its fragment: what goes upstream is framed anew. What else it lets
//! pass is judged here.

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
    if headers.contains_key(header::TRANSFER_ENCODING)
        && (request.version() < Version::HTTP_11 || !is_chunked(headers))
    {
        return malformed("its transfer coding is not chunked");
    }
    if request.version() == Version::HTTP_11 && count(header::HOST) != 1 || count(header::HOST) > 1
    {
        return malformed("it must bear one Host header");
    }
    if let Some(authority) = request.uri().authority() {
        if !matches!(request.uri().scheme_str(), Some("http" | "https")) {
            return malformed("its target is neither a path nor an http URL");
        }
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

fn is_chunked(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let first = encodings.next();
    first.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
        && encodings.next().is_none()
}
