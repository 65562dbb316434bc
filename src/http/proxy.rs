//! Everything else: to Flask and back, streamed, unchanged but for what `hop_headers` and
//! `session_cookie` say.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header};
use http_body::Body as _;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;

use super::{
    error::Refusal,
    guard::Passage,
    hop_headers,
    patience::Busy,
    session_cookie::{Cookies, SessionCookie},
};
use crate::{
    access::{origin::Route, session::SessionId},
    clock,
    config::CookieConfig,
    sessions::{Sessions, SessionsError, Standing},
    upstream::{Upstream, Watched},
};

/// Passes a request on. The answer's body is upstream's own, as it comes.
pub(super) async fn pass(
    _passage: Passage,
    request: Request<Incoming>,
    route: &Route,
    upstream: &Upstream,
    sessions: &Sessions,
    cookie: &CookieConfig,
) -> Result<Response<Either<Body, Incoming>>, Refusal> {
    let (mut parts, body) = request.into_parts();
    parts.uri = origin_form(&parts.uri);
    // Each hop has its own version (RFC 9110 §2.5).
    parts.version = Version::HTTP_11;
    let live = hold_sessions_to_their_end(&mut parts.headers, sessions, cookie)?;
    hop_headers::strip_hop_by_hop(&mut parts.headers);
    // hyper has answered, or will answer, 100 Continue when the body is asked for.
    parts.headers.remove(header::EXPECT);
    hop_headers::set_forwarding(&mut parts.headers, route);
    if let Some(host) = upstream.host() {
        parts.headers.insert(header::HOST, host);
    }

    let (body, sending) = if body.is_end_stream() {
        (Either::Right(Empty::<Bytes>::new()), None)
    } else {
        // hyper takes it that some methods have no body, unless it is told.
        if !parts.headers.contains_key(header::CONTENT_LENGTH) {
            let chunked = HeaderValue::from_static("chunked");
            parts.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        // The request lasts as long as its body, also when the answer came early.
        let (watched, sending) = Watched::new(body, parts.extensions.remove::<Busy>());
        (Either::Left(watched), Some(sending))
    };
    let mut response = upstream.send(Request::from_parts(parts, body), sending).await?;
    *response.version_mut() = Version::HTTP_11;
    // Chunks win over a length (RFC 9112 §6.3), and hyper has read them.
    if response.headers().contains_key(header::TRANSFER_ENCODING) {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    hop_headers::strip_hop_by_hop(response.headers_mut());
    if let Some(value) = live {
        keep_renewals_back(response.headers_mut(), SessionCookie(cookie), &value);
    }
    Ok(response.map(Either::Right))
}

/// Drops cookies that name a minted session which is over; upstream sees a stranger.
fn hold_sessions_to_their_end(
    headers: &mut HeaderMap,
    sessions: &Sessions,
    cookie: &CookieConfig,
) -> Result<Option<String>, SessionsError> {
    if !headers.contains_key(header::COOKIE) {
        return Ok(None);
    }
    let now = clock::now();
    let is_over =
        |id: &SessionId| Ok::<_, SessionsError>(sessions.standing(id, now)? == Standing::Over);
    let Cookies { header, live, over } = SessionCookie(cookie).read(headers, is_over)?;
    // The first is what upstream would have taken; the sweep sees to others.
    if let Some(id) = over {
        sessions.forget(id);
    }
    headers.remove(header::COOKIE);
    if let Some(value) = header {
        headers.insert(header::COOKIE, value);
    }
    Ok(live)
}

fn keep_renewals_back(headers: &mut HeaderMap, cookie: SessionCookie<'_>, value: &str) {
    if !headers.get_all(header::SET_COOKIE).iter().any(|set| cookie.renews(set, value)) {
        return;
    }
    let others: Vec<HeaderValue> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter(|set| !cookie.renews(set, value))
        .cloned()
        .collect();
    headers.remove(header::SET_COOKIE);
    for other in others {
        headers.append(header::SET_COOKIE, other);
    }
}

/// Absolute-form becomes origin-form; the authority was found equal to `Host`.
fn origin_form(uri: &Uri) -> Uri {
    if uri.authority().is_none() {
        return uri.clone();
    }
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static("/"))
}
