//! Administration: the page below `/gateway/admin` and the JSON API below `/gateway/api`.

pub(crate) mod api;
pub(crate) mod authorization;
mod pages;

use axum::{body::Body, extract::FromRequestParts, response::Response};
use http::Request;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    api::{access, activity, blocks, guide, health, sessions},
    authorization::Admin,
};
use crate::gateway::Gateway;

/// Routes of the page and of the JSON API.
pub(crate) fn routes() -> OpenApiRouter<Gateway> {
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

/// Authorizes an administrator by the request's head, before its body is read. The handler checks
/// again with the body.
///
/// # Errors
/// The refusal.
pub(crate) async fn admit(gateway: &Gateway, request: Request<Body>) -> Result<(), Response> {
    let (mut parts, _) = request.into_parts();
    Admin::from_request_parts(&mut parts, gateway).await.map(drop)
}

/// Renders a refusal of the page at `path` as a page; other responses are returned unchanged.
pub(crate) fn refused_page(response: Response, path: &str) -> Response {
    pages::refused::page(response, path)
}
