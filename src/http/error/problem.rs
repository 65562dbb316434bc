//! Problem documents (RFC 9457), the body of every refusal.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Refusal, challenge::Challenge};
use crate::{
    authz::client_info::{Origin, PublicOrigin},
    gateway::Resource,
    http::{
        context::RequestContext,
        endpoint::{self, Endpoint},
    },
};

/// Problem details (RFC 9457). `error` and `message` repeat `detail` for older clients.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: the status identifies the problem (RFC 9457 §4.2.1).
    #[serde(rename = "type")]
    #[schema(example = "about:blank", max_length = 11, pattern = "^about:blank$")]
    kind: &'static str,
    /// Reason phrase of the status.
    #[schema(example = "Unauthorized", max_length = 64, pattern = "^[A-Za-z -]+$")]
    title: &'static str,
    /// HTTP status.
    #[schema(example = 401, minimum = 400, maximum = 599)]
    status: u16,
    /// Description of the problem, one sentence.
    #[schema(example = "A bearer token is required", max_length = 256, pattern = "^[ -~]+$")]
    detail: String,
    /// Same text as `detail`.
    #[schema(example = "A bearer token is required", max_length = 256, pattern = "^[ -~]+$")]
    error: String,
    /// Same text as `detail`.
    #[schema(example = "A bearer token is required", max_length = 256, pattern = "^[ -~]+$")]
    message: String,
    /// Id of the request in the gateway's log.
    #[schema(example = "019ab3f0-7c1e-7b6e-9a8d-0f2a4c6e8b10", format = "uuid", max_length = 36)]
    request_id: String,
}

/// Parts of a refusal, for a response in another form than a problem document.
#[derive(Debug, Clone)]
pub(crate) struct ProblemSummary {
    /// [`Refusal::reason`].
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) request_id: String,
    /// Public origin of the deployment, never one that the caller chose; `None`: not known.
    pub(crate) origin: Option<String>,
}

/// Writes the response to a [`Refusal`] in the extensions of a response; other responses are returned unchanged.
pub(crate) fn render(
    response: Response,
    context: &RequestContext,
    resource: &Resource,
) -> Response {
    let refusal = response.extensions().get::<Arc<Refusal>>().cloned();
    match refusal {
        Some(refusal) => answer(&refusal, context, resource),
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => {
            let allow = response.headers().get(header::ALLOW).cloned();
            let allow = allow.unwrap_or(HeaderValue::from_static(""));
            answer(&Refusal::MethodNotAllowed(allow), context, resource)
        }
        None => response,
    }
}

/// Response to a refusal.
pub(crate) fn answer(refusal: &Refusal, context: &RequestContext, resource: &Resource) -> Response {
    refusal.log(context.request_id(), context.client());
    let row = refusal.answer();
    context.refuse(row.reason);
    // Causes behind the gateway are only logged.
    let detail = refusal.detail(resource);
    let summary = ProblemSummary {
        reason: row.reason,
        detail: detail.clone(),
        request_id: context.request_id().to_owned(),
        origin: public_origin(context).map(Origin::to_string),
    };
    let problem = Problem {
        kind: "about:blank",
        title: row.status.canonical_reason().unwrap_or("Error"),
        status: row.status.as_u16(),
        error: detail.clone(),
        message: detail.clone(),
        detail,
        request_id: context.request_id().to_owned(),
    };
    let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
    *response.status_mut() = row.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = row.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if row.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Refusal::MethodNotAllowed(allow) = refusal {
        headers.insert(header::ALLOW, allow.clone());
    }
    let url = (row.challenge != Challenge::None).then(|| metadata_url(context)).flatten();
    if let Some(challenge) = row.challenge.write(resource, url.as_deref(), &summary.detail) {
        add_challenge(&challenge, headers);
    }
    response.extensions_mut().insert(summary);
    response
}

fn add_challenge(challenge: &str, headers: &mut HeaderMap) {
    if let Ok(value) = HeaderValue::try_from(challenge) {
        headers.insert(header::WWW_AUTHENTICATE, value);
    }
    if challenge.starts_with("Bearer") {
        let exposed = HeaderValue::from_static("WWW-Authenticate");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

/// Origin of the request if it is known, else the canonical one of `GATEWAY_PUBLIC_URLS`.
fn public_origin(context: &RequestContext) -> Option<&Origin> {
    match &context.client_info().origin {
        PublicOrigin::Known(origin) | PublicOrigin::Unlisted(origin) => Some(origin),
        PublicOrigin::Unnamed => None,
    }
}

/// Metadata that describes the requested resource (RFC 9728 §3.1).
fn metadata_url(context: &RequestContext) -> Option<String> {
    let origin = public_origin(context)?;
    let is_login = context.endpoint() == Endpoint::Login;
    let path = endpoint::metadata_path(if is_login { "external/login" } else { "external" });
    Some(format!("{origin}{path}"))
}
