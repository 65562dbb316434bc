//! Security headers of the gateway's own responses, by endpoint.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::endpoint::Endpoint;

/// The page loads only resources of its own origin and cannot be framed.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Browser features: only copying to the clipboard.
const PERMISSIONS: &str =
    "camera=(), geolocation=(), microphone=(), payment=(), usb=(), clipboard-write=(self)";

/// Headers of every response of the administrators' page and API.
const ADMIN: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), PERMISSIONS),
];

/// Headers of other responses below `/gateway/`, unless they set their own. Nothing is loaded or run: the path may be
/// one of the page in another spelling (`%61dmin`).
const GATEWAY: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Adds the security headers of an endpoint.
pub(crate) fn add(endpoint: Endpoint, headers: &mut HeaderMap) {
    let admin_referrer = match endpoint {
        // A form sent under `no-referrer` would carry `Origin: null`, which proves nothing.
        Endpoint::AdminPage(_) => "same-origin",
        Endpoint::AdminApi(_) => "no-referrer",
        Endpoint::Gateway | Endpoint::Health => {
            for (name, value) in GATEWAY {
                headers.entry(name).or_insert(HeaderValue::from_static(value));
            }
            return;
        }
        _ => return,
    };
    for (name, value) in ADMIN {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static(admin_referrer));
}
