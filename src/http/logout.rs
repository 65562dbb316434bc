//! `POST /external/logout`: a minted session ends for good.

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

/// Ends the session whose cookie comes along; with a token alone, all that were minted from it.
#[utoipa::path(
    post,
    path = "/external/logout",
    tag = "Session",
    operation_id = "logout",
    summary = "End a minted session",
    description = "Stands whatever the setting. With the session cookie: ends that session; with a bearer token alone: ends all sessions minted from it. Sessions of browser users are left alone.",
    security(("sessionCookie" = []), ("bearer" = [])),
    responses(
        (status = 204, description = "Ended, or there was nothing to end"),
        (status = 400, description = "A malformed request, two Authorization headers, or one that is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Neither a session cookie nor a token that counts", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store or the signing keys are not available", body = Problem, content_type = "application/problem+json"),
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
    } else if headers.contains_key(header::AUTHORIZATION) || !cookie.is_borne(&headers) {
        let (token, now) = (bearer::of(&headers)?, clock::now());
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
        activity.happened(logout.by(&author)).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
