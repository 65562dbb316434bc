//! What administrators of SimpleChat look at and decide about: a page, and the same as JSON.

pub(crate) mod api;
pub(crate) mod authorization;
mod pages;

use axum::{
    body::Body,
    extract::{FromRef, FromRequestParts},
    response::Response,
};
use http::{HeaderName, HeaderValue, Request, header};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    api::{access, activity, blocks, guide, health, sessions},
    authorization::Admin,
};
use crate::gateway::Administered;

/// Where the page stands.
const PAGE: &str = "/gateway/admin";
/// Its files.
const FILES: [&str; 2] = ["/gateway/admin/activity.csv", "/gateway/admin/activity.jsonl"];
/// Where its JSON twins stand.
const API: &str = "/gateway/api";
/// Above them, and all else that the gateway alone answers.
const GATEWAY: &str = "/gateway";
/// What one session is ended at.
const ONE_SESSION: &str = "/gateway/api/sessions/";

/// The page loads what is its own, and nothing else; nobody may put it into a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Headers of answers below [`GATEWAY`] that are neither the page's nor its twins', where they have none
/// of their own.
const ELSEWHERE: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
];
/// What the page needs of a browser beside that: to copy.
const PERMISSIONS: &str =
    "camera=(), geolocation=(), microphone=(), payment=(), usb=(), clipboard-write=(self)";

/// The page's routes and its twins'.
pub(crate) fn routes<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Administered: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(access::get, access::post))
        .routes(routes!(activity::get))
        .routes(routes!(sessions::get, sessions::delete))
        .routes(routes!(sessions::delete_one))
        .routes(routes!(blocks::get, blocks::post))
        .routes(routes!(blocks::delete))
        .routes(routes!(health::get))
        .routes(routes!(guide::get))
        .merge(pages::routes())
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Routes of decisions that are sent as a body.
const WITH_BODY: [&str; 7] = [
    "/gateway/admin/access/disable",
    "/gateway/admin/access/enable",
    "/gateway/admin/blocks",
    "/gateway/admin/blocks/remove",
    "/gateway/admin/sessions/end",
    "/gateway/api/access",
    "/gateway/api/blocks",
];

/// Whether a request's body is read: of what the gateway answers itself, only decisions may have one.
pub(crate) fn reads_body(method: &str, path: &str) -> bool {
    match method {
        "POST" => WITH_BODY.contains(&path),
        "DELETE" => {
            is_below(path, "/gateway/api/sessions") || path.starts_with("/gateway/api/blocks/")
        }
        _ => false,
    }
}

/// Admits an administrator by a request's head alone, before its body is read; the handler asks again when
/// it has the body.
///
/// # Errors
/// The refusal.
pub(crate) async fn admit<S>(state: &S, request: Request<Body>) -> Result<(), Response>
where
    S: Send + Sync,
    Administered: FromRef<S>,
{
    let (mut parts, _) = request.into_parts();
    Admin::from_request_parts(&mut parts, state).await.map(drop)
}

/// A path as it may be told: whoever ends a session by its whole id must not find that in a log, nor must who
/// mistypes the path before it.
pub(crate) fn redact_path(path: &str) -> &str {
    if path.strip_prefix(ONE_SESSION).is_some_and(|rest| !rest.is_empty()) {
        "/gateway/api/sessions/{id}"
    } else if path.starts_with("/gateway/") && holds_id(path) {
        "/gateway/{id}"
    } else {
        path
    }
}

/// Whether something in a text could be a minted session's id: 22 characters, a dot, digits.
fn holds_id(text: &str) -> bool {
    let is_of_id = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'.', bytes).any(|dot| {
        bytes[..dot].iter().rev().take_while(|b| is_of_id(b)).count() >= 22
            && bytes.get(dot + 1).is_some_and(u8::is_ascii_digit)
    })
}

/// What every answer at these paths bears; refusals of the page are pages. Any other answer below
/// `/gateway` runs and loads nothing: the path may be one of these in another spelling (`%61dmin`).
pub(crate) fn dressed(mut answer: Response, path: &str) -> Response {
    let is_page = is_below(path, PAGE);
    if !is_page && !is_below(path, API) {
        if is_below(path, GATEWAY) {
            for (name, value) in ELSEWHERE {
                answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
            }
        }
        return answer;
    }
    let mut answer = if is_page { pages::refused::page(answer, path) } else { answer };
    // A form sent under `no-referrer` would bear `Origin: null`, and that proves nothing.
    let referrer = if is_page { "same-origin" } else { "no-referrer" };
    let fixed: [(HeaderName, &'static str); 8] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, referrer),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
    ];
    for (name, value) in fixed {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_id_is_not_told() {
        let whole = "/gateway/api/sessions/URfDrEuKzgWg3bXogAhUAw.1795384800";
        assert_eq!(redact_path(whole), "/gateway/api/sessions/{id}");
        for odd in ["api//sessions/", "api/sessions%2f", "admin/sessions/"] {
            let path = format!("/gateway/{odd}URfDrEuKzgWg3bXogAhUAw.1795384800");
            assert!(!redact_path(&path).contains("URfDrEuKzgWg3bXogAhUAw"), "{path}");
        }
        for path in [
            "/gateway/api/sessions",
            "/gateway/api/sessions/",
            "/gateway/api/blocks/a/b",
            "/gateway/admin/activity.csv",
        ] {
            assert_eq!(redact_path(path), path);
        }
    }

    #[test]
    fn decisions_alone_have_bodies() {
        assert!(WITH_BODY.iter().all(|path| reads_body("POST", path)));
        assert!(reads_body("DELETE", "/gateway/api/sessions"));
        assert!(reads_body("DELETE", "/gateway/api/blocks/subject/a"));
        for (method, path) in [
            ("GET", "/gateway/api/access"),
            ("POST", "/gateway/admin"),
            ("DELETE", "/gateway/api/access"),
            ("PUT", "/gateway/api/access"),
            ("POST", "/gateway/administrators"),
            ("POST", "/external/login"),
        ] {
            assert!(!reads_body(method, path), "{method} {path}");
        }
    }
}
