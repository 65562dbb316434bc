//! `POST /external/login`: exchanges a bearer token for a Flask session.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    bearer,
    context::RequestContext,
    cors,
    error::{Problem, Refusal},
};
use crate::{
    activity::Actor,
    authz::client_info::Scheme,
    clock,
    config::CookieConfig,
    control::sign_in::{Attempt, Granted, SignIn},
    flask::cookie::SessionCookie,
    gateway::Resource,
};

/// Requests that SimpleChat will refuse despite the session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Warning {
    /// The session has neither `User` nor `Admin`: most of `/api` responds with 403.
    NoUserRole,
    /// The `Authorization` field exceeds upstream's limit: requests that carry it get 431.
    TokenTooLong,
}

/// Created session. `Set-Cookie` carries its cookie.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionCreated {
    /// Always true.
    #[schema(example = true)]
    #[serde(rename = "session_created")]
    created: bool,
    /// Id of the session. A client needs only this id and the name of the cookie.
    #[schema(
        example = "URfDrEuKzgWg3bXogAhUAw.1795384800",
        max_length = 64,
        pattern = r"^[A-Za-z0-9_-]{22}\.[0-9]{10,12}$"
    )]
    session_id: String,
    user: User,
    /// Claims of the token as stored in the session; `roles` without those that a session must not have.
    #[schema(value_type = Object, example = json!({"oid": "00000000-0000-0000-0000-0000000000aa", "name": "Ada Lovelace", "roles": ["User", "ExternalApi"]}))]
    claims: Value,
    /// Expiry time (RFC 3339).
    #[schema(example = "2026-11-22T20:00:00Z", format = DateTime, max_length = 20)]
    expires_at: String,
    /// Seconds until expiry.
    #[schema(example = 3599, minimum = 1, maximum = 4_294_967_295_i64)]
    expires_in: i64,
    /// Requests that SimpleChat will refuse despite the session. `no_user_role`: the session has neither
    /// `User` nor `Admin`, so most of `/api` responds with 403. `token_too_long`: the `Authorization` field
    /// exceeds upstream's limit (gunicorn's `--limit-request-field_size`, 8,190 bytes by default), so requests
    /// that carry the token get 431; the cookie alone works.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["no_user_role"]), required = false, max_items = 8)]
    warnings: Vec<Warning>,
}

impl SessionCreated {
    /// `now`: Unix seconds.
    fn of(granted: Granted, now: i64) -> Self {
        let Granted { id, subject, name, email, claims, lacks_user_role, exceeds_field_limit } =
            granted;
        let warnings = [
            lacks_user_role.then_some(Warning::NoUserRole),
            exceeds_field_limit.then_some(Warning::TokenTooLong),
        ];
        Self {
            created: true,
            session_id: id.to_string(),
            user: User { id: subject.to_string(), name, email },
            claims,
            expires_at: clock::rfc3339(id.expires_at().saturating_mul(1000)),
            expires_in: id.expires_at() - now,
            warnings: warnings.into_iter().flatten().collect(),
        }
    }
}

/// User of a session.
#[derive(Serialize, ToSchema)]
struct User {
    /// Entra's object id (`oid`).
    #[schema(example = "00000000-0000-0000-0000-0000000000aa", format = "uuid", max_length = 36)]
    #[serde(rename = "userId")]
    id: String,
    /// Claim `name`.
    #[schema(example = "Ada Lovelace", required = true, max_length = 16_384)]
    #[serde(rename = "displayName")]
    name: Option<String>,
    /// Claim `preferred_username`, else `email`, `upn` or `unique_name`.
    #[schema(example = "ada@contoso.example", required = true, max_length = 16_384)]
    email: Option<String>,
}

/// Exchanges a bearer token for a session.
#[utoipa::path(
    post,
    path = "/external/login",
    tag = "Session",
    operation_id = "login",
    summary = "Exchange an Entra access token for a SimpleChat session",
    description = "Creates a session for the subject of the token. The request body is ignored. A session sent with the request is never reused; a gateway-issued session of the same subject is ended. The response is sent after the session store has confirmed the session.",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "Session created", body = SessionCreated,
            headers(("Set-Cookie"), ("Cache-Control"), ("Access-Control-Allow-Origin?"), ("Vary?"))),
        (status = 400, description = "Malformed request, or repeated or malformed Authorization header", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Missing or invalid token: malformed, bad signature, expired, or wrong issuer, tenant, audience or type", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Missing role or scope; client, origin or app-only token not allowed; or caller blocked by an administrator", body = Problem, content_type = "application/problem+json",
            headers(("WWW-Authenticate?"))),
        (status = 404, description = "External access is disabled", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many logins of this subject, or too many failed logins from this address", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store, database, block list or signing keys unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn post(
    State(sign_in): State<SignIn>,
    State(resource): State<Arc<Resource>>,
    State(cookie): State<Arc<CookieConfig>>,
    Extension(context): Extension<Arc<RequestContext>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (now, author) = (clock::now(), context.author(Actor::default()));
    let token = match bearer::parse(&headers) {
        Ok(token) => token,
        Err(Refusal::NoCredentials) => return Err(Refusal::NoCredentials),
        Err(refusal) => {
            let wait = sign_in.fail(context.client(), refusal.reason(), &author).await;
            return Err(wait.map_or(refusal, Refusal::TooOften));
        }
    };
    let cookie = SessionCookie(&cookie);
    let attempt = Attempt {
        token: &token,
        authorization_length: headers.get(header::AUTHORIZATION).map_or(0, HeaderValue::len),
        client: context.client(),
        has_allowed_origin: cors::is_allowed(&headers, &resource),
        sessions: cookie.minted_in(&headers),
        author,
    };
    let granted = sign_in.sign_in(attempt, now).await?;
    let is_https = context.client_info().scheme == Scheme::Https;
    let set_cookie = cookie.set(&granted.id, is_https).ok_or(Refusal::Internal)?;
    let fixed = [
        (header::SET_COOKIE, set_cookie),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((fixed, Json(SessionCreated::of(granted, now))).into_response())
}

/// Responds to the preflight of a login.
#[utoipa::path(
    options,
    path = "/external/login",
    tag = "Session",
    operation_id = "preflightLogin",
    summary = "CORS preflight for login",
    description = "Sent by browsers before a login from a page. Only origins listed in GATEWAY_ALLOWED_ORIGINS are allowed.",
    extensions(("x-public-because" = json!("A preflight carries no credentials (Fetch standard); the response reveals only whether this origin is listed."))),
    security(()),
    responses(
        (status = 204, description = "Origin listed in GATEWAY_ALLOWED_ORIGINS, or no Origin header",
            headers(("Access-Control-Allow-Origin?"), ("Access-Control-Allow-Methods?"), ("Access-Control-Allow-Headers?"), ("Access-Control-Max-Age?"), ("Allow?"), ("Vary?"))),
        (status = 403, description = "Origin not allowed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "External access is disabled", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn options(
    State(resource): State<Arc<Resource>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if !headers.contains_key(header::ORIGIN) {
        return Ok((StatusCode::NO_CONTENT, [(header::ALLOW, "POST, OPTIONS")]).into_response());
    }
    if cors::is_allowed(&headers, &resource) {
        Ok(cors::preflight_of_listed())
    } else {
        Err(Refusal::ForeignOrigin)
    }
}
