//! Extractors for decisions sent to the JSON API.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, request::Parts};
use serde::de::DeserializeOwned;

use crate::{
    admin::{Admin, pages::form::body_of_type},
    authz::admin::AdminDenial,
    gateway::Gateway,
    http::error::Refusal,
};

const TOKEN: &str = "x-csrf-token";

/// An administrator who sends a decision without a body.
pub(crate) struct Decider(pub(crate) Admin);

impl FromRequestParts<Gateway> for Decider {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, Response> {
        let admin = Admin::from_request_parts(parts, gateway).await?;
        if is_token_valid(&admin, &parts.headers) {
            return Ok(Self(admin));
        }
        Err(admin.deny(gateway, AdminDenial::Csrf).await.into_response())
    }
}

/// A decision sent as JSON, and its administrator.
pub(crate) struct Call<T> {
    pub(crate) admin: Admin,
    pub(crate) decision: T,
}

impl<T: DeserializeOwned> FromRequest<Gateway> for Call<T> {
    type Rejection = Response;

    async fn from_request(request: Request, gateway: &Gateway) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Decider(admin) = Decider::from_request_parts(&mut parts, gateway).await?;
        // Forms of other origins cannot send this type.
        let body = body_of_type("application/json", &parts.headers, body).await;
        let body = body.map_err(IntoResponse::into_response)?;
        match object(&body) {
            Some(decision) => Ok(Self { admin, decision }),
            None => Err(Refusal::Input("The body does not match the documented JSON object")
                .into_response()),
        }
    }
}

/// Parses a JSON object; `None` if the body is not the documented object. serde also reads a struct
/// from an array of its members, in order: arrays are rejected first.
fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    if is_object { serde_json::from_slice(body).ok() } else { None }
}

/// Programs may omit the token; a wrong token is refused.
fn is_token_valid(admin: &Admin, headers: &HeaderMap) -> bool {
    headers.get_all(TOKEN).iter().all(|token| token.to_str().is_ok_and(|it| admin.has_token(it)))
}
