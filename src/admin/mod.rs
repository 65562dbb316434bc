//! What administrators of SimpleChat look at and decide about: a page, and the same as JSON.

pub(crate) mod api;
pub(crate) mod authorization;
mod pages;

use axum::{
    body::Body,
    extract::{FromRef, FromRequestParts},
    response::Response,
};
use http::Request;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    api::{access, activity, blocks, guide, health, sessions},
    authorization::Admin,
};
use crate::gateway::Administered;

/// Files of the page.
const FILES: [&str; 2] = ["/gateway/admin/activity.csv", "/gateway/admin/activity.jsonl"];
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

/// Turns a refusal of the page at `path` into a page; other responses are returned unchanged.
pub(crate) fn refused_page(response: Response, path: &str) -> Response {
    pages::refused::page(response, path)
}
