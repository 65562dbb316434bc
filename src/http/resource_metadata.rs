//! `GET /.well-known/oauth-protected-resource`: what clients must ask Entra for (RFC 9728).
//!
//! Deliberately public: a client needs it before it can have a token. It carries the tenant's and the
//! app's id, hence the opt-in. It needs neither Entra nor Redis nor upstream: clients that cannot read
//! it guess, and guess wrong.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    context::RequestContext,
    cors,
    endpoint::{OwnMetadata, described},
    error::{Problem, Refusal},
};
use crate::{
    authz::client_info::{ClientInfo, EdgePolicy, PublicOrigin},
    config::RootMetadata,
    gateway::Resource,
};

impl OwnMetadata {
    /// What is published under these settings, at present.
    pub(crate) fn of(resource: &Resource) -> Self {
        let has_root = resource.config.root_metadata == RootMetadata::Gateway;
        Self { is_on: resource.is_on(), has_root }
    }
}

/// An issuer, as in the tokens' `iss`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(
    format = "uri",
    max_length = 2048,
    example = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"
)]
pub(crate) struct Issuer(String);

/// A scope, fully qualified (RFC 6749 §3.3).
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(
    max_length = 512,
    pattern = r"^[!#-\[\]-~]+$",
    example = "api://aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee/.default"
)]
pub(crate) struct Scope(String);

/// How a token may come (RFC 6750 §2).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BearerMethod {
    /// In the `Authorization` header.
    Header,
}

/// Protected resource metadata (RFC 9728 §2).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProtectedResourceMetadata {
    /// The resource's identifier: the public origin, and the path asked for.
    #[schema(example = "https://chat.example/external/login", format = "uri", max_length = 2048)]
    resource: String,
    /// The tenant's issuer.
    #[schema(min_items = 1, max_items = 1)]
    authorization_servers: Vec<Issuer>,
    /// What to ask for, fully qualified.
    #[schema(min_items = 1, max_items = 64)]
    scopes_supported: Vec<Scope>,
    /// Tokens come in the `Authorization` header alone.
    #[schema(value_type = Vec<BearerMethod>, min_items = 1, max_items = 1)]
    bearer_methods_supported: [BearerMethod; 1],
    /// Always `SimpleChat`.
    #[schema(example = "SimpleChat", max_length = 10, pattern = "^SimpleChat$")]
    resource_name: &'static str,
    /// SimpleChat's documentation.
    #[schema(example = "https://microsoft.github.io/simplechat/", format = "uri", max_length = 64)]
    resource_documentation: &'static str,
}

impl ProtectedResourceMetadata {
    /// Of the resource at a path of an origin, as it is served.
    pub(crate) fn of(path: &str, resource: &Resource, origin: &str) -> Self {
        let slash = if path.is_empty() { "" } else { "/" };
        Self {
            resource: format!("{origin}{slash}{path}"),
            authorization_servers: vec![Issuer(resource.authority.clone())],
            scopes_supported: resource.config.scopes.iter().cloned().map(Scope).collect(),
            bearer_methods_supported: [BearerMethod::Header],
            resource_name: "SimpleChat",
            resource_documentation: "https://microsoft.github.io/simplechat/",
        }
    }

    /// The tenant's issuer.
    pub(crate) fn authority(&self) -> &str {
        self.authorization_servers.first().map_or("", |issuer| &issuer.0)
    }

    /// What to ask for, with spaces between.
    pub(crate) fn scopes(&self) -> String {
        self.scopes_supported.iter().map(|scope| &*scope.0).collect::<Vec<_>>().join(" ")
    }
}

/// Metadata of the origin as a whole, or of the resource that the path names.
#[utoipa::path(
    get,
    path = "/.well-known/oauth-protected-resource",
    tag = "Discovery",
    operation_id = "getProtectedResourceMetadata",
    summary = "What a client must ask Entra for",
    description = "Names the tenant's issuer and the scope to ask it for, of the origin as a whole or of the resource whose path follows. It carries the tenant's and the app's id: the gateway answers only while external access is on, which somebody must have decided. Until then, and for every other path below, SimpleChat answers; with GATEWAY_ROOT_METADATA=upstream also without a path.",
    extensions(("x-public-because" = json!("RFC 9728: a client reads it before it can have a token."))),
    security(()),
    responses(
        (status = 200, description = "The metadata", body = ProtectedResourceMetadata,
            headers(("Cache-Control"), ("ETag"), ("Vary"), ("Access-Control-Allow-Origin"))),
        (status = 304, description = "Not changed since the ETag sent",
            headers(("Cache-Control"), ("ETag"), ("Vary"), ("Access-Control-Allow-Origin"))),
        (status = 400, description = "A malformed host or forwarding header", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "While external access is off: SimpleChat's answer, unchanged; 404 where it has no such document"),
        (status = 421, description = "The host is not among GATEWAY_PUBLIC_URLS", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The answer could not be written", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(resource): State<Arc<Resource>>,
    State(edge): State<Arc<EdgePolicy>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // As it is spelled: the answer must name the same (RFC 9728 §3.3).
    let path = described(uri.path()).ok_or(Refusal::NotFound)?;
    describe(path, &resource, &edge, context.client_info(), &headers)
}

/// A browser asks first (Fetch standard, CORS preflight): anybody may read.
#[utoipa::path(
    options,
    path = "/.well-known/oauth-protected-resource",
    tag = "Discovery",
    operation_id = "preflightProtectedResourceMetadata",
    summary = "CORS preflight for metadata",
    description = "A browser asks before it reads the metadata. Pages of any origin may.",
    extensions(("x-public-because" = json!("A preflight carries no credentials (Fetch standard)."))),
    security(()),
    responses(
        (status = 204, description = "Any origin may read",
            headers(("Access-Control-Allow-Origin"), ("Access-Control-Allow-Methods"), ("Access-Control-Allow-Headers"), ("Access-Control-Max-Age"), ("Cache-Control"))),
        (status = "default", description = "While external access is off: SimpleChat's answer, unchanged; 404 where it has no such document"),
    )
)]
pub(crate) async fn options() -> Response {
    cors::preflight_of_any()
}

fn describe(
    path: &str,
    resource: &Resource,
    edge: &EdgePolicy,
    client_info: &ClientInfo,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let origin = match &client_info.origin {
        PublicOrigin::Known(origin) => origin,
        PublicOrigin::Unlisted(_) => return Err(Refusal::Misdirected),
        PublicOrigin::Unnamed => return Err(Refusal::Framing("it must bear one Host header")),
    };
    let metadata = ProtectedResourceMetadata::of(path, resource, &origin.to_string());
    let text = serde_json::to_vec(&metadata).map_err(|_| Refusal::Internal)?;
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest(&SHA256, &text).as_ref()[..12]));
    let is_known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|known| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag);
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(metadata).into_response()
    };
    let fixed = [
        (header::CACHE_CONTROL, "no-cache"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::VARY, edge.varies_on()),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let tag = HeaderValue::try_from(tag).map_err(|_| Refusal::Internal)?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}
