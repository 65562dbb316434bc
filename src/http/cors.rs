//! Cross-origin access (Fetch standard, CORS protocol) to the gateway's own routes.
//!
//! Not tower-http's `CorsLayer`: it answers a preflight with 200 and decides before the route does, whereas
//! here a preflight is 204, an origin that is not listed is 403, and a route that is off is 404.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{gateway::Resource, h1::message::Fields};

/// Request headers that a page may send: those of a login and of MCP clients (Streamable HTTP, revisions 2025-03-26
/// to 2026-07-28).
const REQUEST_HEADERS: &str = "authorization, accept, content-type, last-event-id, mcp-protocol-version, mcp-method, mcp-name";

/// Response to the preflight of a public document, which pages of any origin may read.
pub(crate) fn preflight_of_any() -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// Response to the preflight of a listed origin; [`allow_listed`] adds the origin itself.
pub(crate) fn preflight_of_listed() -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// Lets pages of any origin read a response.
pub(crate) fn allow_any(response: &mut Response<Body>) {
    let any = HeaderValue::from_static("*");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
}

/// Lets the page that sent the request read a response, if its origin is listed in `GATEWAY_ALLOWED_ORIGINS`.
pub(crate) fn allow_listed(response: &mut Response<Body>, request: &Fields, resource: &Resource) {
    let Some(origin) = request.all("origin").next() else { return };
    let headers = response.headers_mut();
    if is_listed(request.all("origin"), resource)
        && let Ok(origin) = HeaderValue::from_bytes(origin)
    {
        let credentials = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// True if each origin that a request names is listed in `GATEWAY_ALLOWED_ORIGINS`; also if it names none.
pub(crate) fn is_allowed(headers: &HeaderMap, resource: &Resource) -> bool {
    const ORIGIN: HeaderName = header::ORIGIN;
    is_listed(headers.get_all(ORIGIN).iter().map(HeaderValue::as_bytes), resource)
}

fn is_listed<'a>(mut origins: impl Iterator<Item = &'a [u8]>, resource: &Resource) -> bool {
    let listed = &resource.config.allowed_origins;
    origins.all(|origin| listed.iter().any(|one| one.as_bytes() == origin))
}
