//! `POST /external/logout`: ends minted sessions.

use std::sync::Arc;

use axum::{Extension, extract::State};
use http::{HeaderMap, StatusCode, header};

use super::{
    bearer,
    context::RequestContext,
    error::{Problem, Refusal},
};
use crate::{
    activity::{Activity, Actor, EventKind, Record},
    clock,
    config::CookieConfig,
    entra::Entra,
    flask::cookie::SessionCookie,
    sessions::Sessions,
};

/// Ends the session of the cookie; without a cookie, all sessions minted from the token.
#[utoipa::path(
    post,
    path = "/external/logout",
    tag = "Session",
    operation_id = "logout",
    summary = "End gateway-issued sessions",
    description = "Available even while external access is disabled. With the session cookie, ends that session; with a bearer token alone, ends all sessions issued for that token. Sessions of browser users are not affected.",
    security(("sessionCookie" = []), ("bearer" = [])),
    responses(
        (status = 204, description = "Session ended, or no session to end"),
        (status = 400, description = "Malformed request, or repeated or malformed Authorization header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Neither a session cookie nor a valid token", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store or signing keys unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn post(
    State(entra): State<Entra>,
    State(sessions): State<Sessions>,
    State(activity): State<Activity>,
    State(cookie): State<Arc<CookieConfig>>,
    Extension(context): Extension<Arc<RequestContext>>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let cookie = SessionCookie(&cookie);
    let minted = cookie.minted_in(&headers);
    let ended = if !minted.is_empty() {
        sessions.end(&minted).await?
    } else if headers.contains_key(header::AUTHORIZATION) || !cookie.is_present(&headers) {
        let (token, now) = (bearer::parse(&headers)?, clock::now());
        let identity = entra.identify(&token, now).await?;
        let fingerprint = token.fingerprint().to_string();
        sessions.end_of_token(identity.subject(), &fingerprint, now).await?
    } else {
        Vec::new()
    };
    for session in ended {
        let (subject, client) = session.of.unzip();
        let subject = subject.map(|subject| subject.to_string());
        let actor = Actor { oid: subject.clone(), ..Actor::default() };
        let author = context.author(actor);
        let logout = Record {
            subject,
            client,
            session: Some(session.handle),
            ..Record::new(EventKind::Logout)
        };
        activity.record(logout.by(&author)).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
