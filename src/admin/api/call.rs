//! A decision sent as JSON.

use axum::{
    body::to_bytes,
    extract::{FromRef, FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, request::Parts};
use serde::de::DeserializeOwned;

use crate::{
    admin::{Admin, Administered, pages::form::is_of_type},
    authz::admin::AdminDenial,
    http::error::Refusal,
};

const TOKEN: &str = "x-csrf-token";
/// Bodies are shorter: see `own_body`.
const MAX: usize = 128 * 1024;

/// An administrator who decides without a body.
pub(crate) struct Decider(pub(crate) Admin);

impl<S> FromRequestParts<S> for Decider
where
    S: Send + Sync,
    Administered: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let admin = Admin::from_request_parts(parts, state).await?;
        if is_token_fine(&admin, &parts.headers) {
            return Ok(Self(admin));
        }
        let administered = Administered::from_ref(state);
        Err(admin.deny(&administered, AdminDenial::Csrf).await.into_response())
    }
}

/// What is asked for, and by whom.
pub(crate) struct Call<T> {
    pub(crate) admin: Admin,
    pub(crate) asked: T,
}

impl<S, T> FromRequest<S> for Call<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
    Administered: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Decider(admin) = Decider::from_request_parts(&mut parts, state).await?;
        // No form of another origin can send this type.
        if !is_of_type(&parts.headers, "application/json") {
            return Err(Refusal::OtherMediaType("application/json").into_response());
        }
        let body = to_bytes(body, MAX).await;
        let body = body.map_err(|_| Refusal::BodyTooLarge.into_response())?;
        match object(&body) {
            Some(asked) => Ok(Self { admin, asked }),
            None => {
                Err(Refusal::Input("The body is not the JSON that is described").into_response())
            }
        }
    }
}

/// Reads a JSON object; `None`: it is none, or not the one described. serde takes an array for a struct
/// as well, its elements in the order of the members.
fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    if is_object { serde_json::from_slice(body).ok() } else { None }
}

/// Programs need none; a wrong one is refused.
fn is_token_fine(admin: &Admin, headers: &HeaderMap) -> bool {
    headers.get_all(TOKEN).iter().all(|token| token.to_str().is_ok_and(|it| admin.has_token(it)))
}
