//! `POST /external/login`: a bearer token for a Flask session.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Arrival, bearer,
    error::{Problem, Refusal},
    resource_metadata::CORS_REQUEST_HEADERS,
};
use crate::{
    activity::{self, Activity, Actor, Author, EndReason, Record},
    authz::{
        client_info::Scheme,
        policy::Policy,
        session::{SessionRecord, email},
        token::TokenError,
    },
    clock,
    config::CookieConfig,
    control::external_access::ExternalAccess,
    entra::{Entra, EntraError},
    flask::cookie::SessionCookie,
    gateway::Resource,
    h1::message::RequestHead,
    sessions::{EndedSession, Opened, Sessions},
    upstream::{Upstream, field_length},
};

/// What upstream will refuse although the session stands.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Warning {
    /// The session carries neither `User` nor `Admin`: nearly all of `/api` will answer 403.
    NoUserRole,
    /// The `Authorization` field is longer than upstream takes: calls that bear it will be answered 431.
    TokenTooLong,
}

/// A session that was created. The cookie that names it is in `Set-Cookie`.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionCreated<'a> {
    /// Always true.
    #[schema(example = true)]
    #[serde(rename = "session_created")]
    created: bool,
    /// The session's id; together with the cookie's name it is all a client must keep.
    #[schema(
        example = "URfDrEuKzgWg3bXogAhUAw.1795384800",
        max_length = 64,
        pattern = r"^[A-Za-z0-9_-]{22}\.[0-9]{10,12}$"
    )]
    session_id: String,
    user: User,
    /// The token's claims as they were stored, `roles` cut to what a session may carry.
    #[schema(value_type = Object, example = json!({"oid": "00000000-0000-0000-0000-0000000000aa", "name": "Ada Lovelace", "roles": ["User", "ExternalApi"]}))]
    claims: &'a Value,
    /// When the session ends (RFC 3339).
    #[schema(example = "2026-11-22T20:00:00Z", format = DateTime, max_length = 20)]
    expires_at: String,
    /// The same in seconds from now.
    #[schema(example = 3599, minimum = 1, maximum = 4_294_967_295_i64)]
    expires_in: i64,
    /// What upstream will refuse although the session stands. `no_user_role`: it carries neither
    /// `User` nor `Admin`, so that nearly all of `/api` answers 403. `token_too_long`: the `Authorization`
    /// field is longer than upstream takes (gunicorn's `--limit-request-field_size`, 8,190 bytes by default),
    /// so that calls which bear the token are answered 431; the cookie alone works.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["no_user_role"]), required = false, max_items = 8)]
    warnings: Vec<Warning>,
}

/// Whose session it is.
#[derive(Serialize, ToSchema)]
struct User {
    /// Entra's object id (`oid`).
    #[schema(example = "00000000-0000-0000-0000-0000000000aa", format = "uuid", max_length = 36)]
    #[serde(rename = "userId")]
    id: String,
    /// `name`.
    #[schema(example = "Ada Lovelace", required = true, max_length = 16_384)]
    #[serde(rename = "displayName")]
    name: Option<String>,
    /// `preferred_username`, else `email`, else `upn`, else `unique_name`.
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
    description = "The body is ignored. A session sent along is never reused; it is ended if it is a minted one of the same subject. The answer leaves only after the store has confirmed the session.",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The session stands", body = SessionCreated,
            headers(("Set-Cookie"), ("Cache-Control"), ("Access-Control-Allow-Origin?"), ("Vary?"))),
        (status = 400, description = "A malformed request, two Authorization headers, or one that is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that does not count: malformed, expired, foreign, of the wrong type", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "A good token that is not enough: role or scope missing, client or origin not allowed, app-only not allowed", body = Problem, content_type = "application/problem+json",
            headers(("WWW-Authenticate?"))),
        (status = 404, description = "External access is off", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many logins of this subject, or too many failures from this address", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The answer could not be written", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store or the signing keys are not available", body = Problem, content_type = "application/problem+json"),
    )
)]
#[expect(clippy::too_many_arguments, reason = "a handler's signature lists what it needs")]
pub(crate) async fn post(
    State(entra): State<Entra>,
    State(sessions): State<Sessions>,
    State(activity): State<Activity>,
    State(external_access): State<ExternalAccess>,
    State(policy): State<Arc<Policy>>,
    State(resource): State<Arc<Resource>>,
    State(cookie): State<Arc<CookieConfig>>,
    State(upstream): State<Upstream>,
    Extension(Arrival { client_info, request_id }): Extension<Arrival>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let now = clock::now();
    let from = client_info.client.into();
    // The token's subject and client, once it is verified.
    let mut known = None;
    let judging = async {
        let token = bearer::of(&headers)?;
        if let Some(wait) = sessions.failure_limit_wait(from) {
            return Err(Refusal::TooOften(wait));
        }
        let claims = entra.verify(&token, now).await?;
        let (subject, client) = (claims.identity().subject(), claims.identity().client());
        known = Some((actor(subject, |name| claims.text(name)), client.to_owned()));
        // Within the leeway a token still counts, but a session of it would be over at once.
        if claims.identity().expires_at() <= now {
            return Err(EntraError::Rejected(TokenError::Expired).into());
        }
        check_origin(&headers, &resource)?;
        external_access.check(subject, client)?;
        let grant = policy.grant(claims, now)?;
        Ok(SessionRecord::new(grant, token.fingerprint().to_string(), now))
    };
    let author = |actor| Author {
        actor,
        address: Some(client_info.client.to_string()),
        request_id: Some(request_id.to_string()),
    };
    let record = match judging.await {
        Err(refusal) if refusal.is_failed_attempt() => {
            let refusal = sessions.count_failure(from).await.map_or(refusal, Refusal::TooOften);
            let (actor, client) = known.unzip();
            let actor: Actor = actor.unwrap_or_default();
            let denied = Record {
                subject: actor.oid.clone(),
                client,
                ..Record::refused(activity::EventKind::LoginDenied, refusal.reason())
            };
            activity.denied(denied.by(&author(actor)));
            return Err(refusal);
        }
        checked => checked?,
    };
    let (subject, client) = (record.subject(), record.client().to_owned());
    let mut warnings = Vec::new();
    if record.upstream_will_refuse() {
        warnings.push(Warning::NoUserRole);
    }
    let authorization = headers.get(header::AUTHORIZATION).map_or(0, HeaderValue::len);
    if !upstream.takes_field(field_length("Authorization", authorization)).await {
        warnings.push(Warning::TokenTooLong);
    }

    let cookie = SessionCookie(&cookie);
    // No session without a record of it.
    let slot = activity.reserve().await?;
    let Opened { id, user, replaced, crowded_out } =
        sessions.open(record, cookie.minted_in(&headers), Some(from)).await?;

    // Somebody may have decided meanwhile.
    let still = external_access.check(subject, &client).map_err(Refusal::from);
    let still = if external_access.is_on() { still } else { Err(Refusal::NotFound) };
    if let Err(refusal) = still {
        sessions.end(&[id]).await?;
        if refusal.is_failed_attempt() {
            let denied = Record {
                subject: Some(subject.to_string()),
                client: Some(client),
                ..Record::refused(activity::EventKind::LoginDenied, refusal.reason())
            };
            activity.denied(denied.by(&author(Actor::default())));
        }
        return Err(refusal);
    }

    let actor = actor(subject, |name| user.get(name).and_then(Value::as_str));
    for ended in ended_by_login(subject, replaced, crowded_out, sessions.per_subject()) {
        activity.happened(ended.by(&author(actor.clone()))).await;
    }
    let of_it = |record: Record| Record {
        subject: Some(subject.to_string()),
        client: Some(client.clone()),
        session: Some(id.handle()),
        ..record.by(&author(actor.clone()))
    };
    if let Err(error) = slot.write(of_it(Record::new(activity::EventKind::Login))).await {
        sessions.end(&[id]).await?;
        let undone = Record::refused(activity::EventKind::LoginDenied, "not_recorded");
        activity.happened(of_it(undone)).await;
        return Err(error.into());
    }
    let set_cookie =
        cookie.set(&id, client_info.scheme == Scheme::Https).ok_or(Refusal::Internal)?;
    let created = SessionCreated {
        created: true,
        session_id: id.to_string(),
        user: User { id: subject.to_string(), name: actor.name, email: actor.email },
        claims: &user,
        expires_at: clock::rfc3339(id.expires_at().saturating_mul(1000)),
        expires_in: id.expires_at() - now,
        warnings,
    };
    let answer = [
        (header::SET_COOKIE, set_cookie),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((answer, Json(created)).into_response())
}

/// The subject of a verified token, by the claims that `text` reads.
fn actor<'a>(subject: Uuid, text: impl Fn(&str) -> Option<&'a str>) -> Actor {
    let name = text("name").map(str::to_owned);
    Actor { oid: Some(subject.to_string()), name, email: email(text) }
}

/// Sessions of the same subject that ended because of a login; `limit`: how many the subject may have.
fn ended_by_login(
    subject: Uuid,
    replaced: Vec<EndedSession>,
    crowded_out: Vec<EndedSession>,
    limit: usize,
) -> impl Iterator<Item = Record> {
    let replaced = replaced.into_iter().map(|ended| (ended, EndReason::Replaced));
    let crowded_out =
        crowded_out.into_iter().map(move |ended| (ended, EndReason::TooMany { limit }));
    replaced.chain(crowded_out).map(move |(ended, reason)| Record {
        subject: Some(subject.to_string()),
        client: ended.of.map(|(_, client)| client),
        session: Some(ended.handle),
        ..Record::ended(reason)
    })
}

/// Preflight: for the origins that may sign in.
#[utoipa::path(
    options,
    path = "/external/login",
    tag = "Session",
    operation_id = "preflightLogin",
    summary = "CORS preflight for login",
    description = "A browser asks before it sends a login. Only pages of the origins in GATEWAY_ALLOWED_ORIGINS may.",
    extensions(("x-public-because" = json!("A preflight carries no credentials (Fetch standard); the answer says only whether this origin is listed."))),
    security(()),
    responses(
        (status = 204, description = "The origin is among GATEWAY_ALLOWED_ORIGINS, or the request bears none",
            headers(("Access-Control-Allow-Origin?"), ("Access-Control-Allow-Methods?"), ("Access-Control-Allow-Headers?"), ("Access-Control-Max-Age?"), ("Allow?"), ("Vary?"))),
        (status = 403, description = "It is not", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "External access is off", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn options(
    State(resource): State<Arc<Resource>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let asks = headers.contains_key(header::ORIGIN);
    if !asks {
        return Ok((StatusCode::NO_CONTENT, [(header::ALLOW, "POST, OPTIONS")]).into_response());
    }
    check_origin(&headers, &resource)?;
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, CORS_REQUEST_HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    Ok((StatusCode::NO_CONTENT, allowed).into_response())
}

/// A page of an origin that is not listed may not sign anybody in (login CSRF).
fn check_origin(headers: &HeaderMap, resource: &Resource) -> Result<(), Refusal> {
    if is_listed(headers.get_all(header::ORIGIN).iter().map(HeaderValue::as_bytes), resource) {
        Ok(())
    } else {
        Err(Refusal::ForeignOrigin)
    }
}

/// What a page of a listed origin needs to read the answer of this route, be it good or bad.
pub(crate) fn shared(
    mut answer: Response,
    path: &str,
    request: &RequestHead,
    resource: &Resource,
) -> Response {
    let Some(origin) = request.fields.all("origin").next() else { return answer };
    if path != "/external/login" || !resource.is_on() {
        return answer;
    }
    let headers = answer.headers_mut();
    if is_listed(request.fields.all("origin"), resource)
        && let Ok(origin) = HeaderValue::from_bytes(origin)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    answer
}

fn is_listed<'a>(mut origins: impl Iterator<Item = &'a [u8]>, resource: &Resource) -> bool {
    let listed = &resource.config.allowed_origins;
    origins.all(|origin| listed.iter().any(|one| one.as_bytes() == origin))
}
