//! `GET /.well-known/oauth-protected-resource`: protected resource metadata (RFC 9728).
//!
//! Public by design: a client needs it before it has a token. It contains the tenant id and the app id, hence the
//! opt-in. It depends on neither Entra nor Redis nor upstream: clients that cannot read it guess wrong endpoints.

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
    /// Metadata that is published under the current settings.
    pub(crate) fn of(resource: &Resource) -> Self {
        let has_root = resource.config.root_metadata == RootMetadata::Gateway;
        Self { is_on: resource.is_on(), has_root }
    }
}

/// Issuer, as in the `iss` claim of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(
    format = "uri",
    max_length = 2048,
    example = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"
)]
pub(crate) struct Issuer(String);

/// Fully qualified scope (RFC 6749 §3.3).
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(
    max_length = 512,
    pattern = r"^[!#-\[\]-~]+$",
    example = "api://aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee/.default"
)]
pub(crate) struct Scope(String);

/// Method of sending a token (RFC 6750 §2).
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BearerMethod {
    /// `Authorization` header.
    Header,
}

/// Protected resource metadata (RFC 9728 §2).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProtectedResourceMetadata {
    /// Identifier of the resource: the public origin and the path of the resource.
    #[schema(example = "https://chat.example/external/login", format = "uri", max_length = 2048)]
    resource: String,
    /// Issuer of the tenant.
    #[schema(min_items = 1, max_items = 1)]
    authorization_servers: Vec<Issuer>,
    /// Scopes to request, fully qualified.
    #[schema(min_items = 1, max_items = 64)]
    scopes_supported: Vec<Scope>,
    /// Methods of sending a token: only the `Authorization` header.
    #[schema(value_type = Vec<BearerMethod>, min_items = 1, max_items = 1)]
    bearer_methods_supported: [BearerMethod; 1],
    /// Always `SimpleChat`.
    #[schema(example = "SimpleChat", max_length = 10, pattern = "^SimpleChat$")]
    resource_name: &'static str,
    /// URL of SimpleChat's documentation.
    #[schema(example = "https://microsoft.github.io/simplechat/", format = "uri", max_length = 64)]
    resource_documentation: &'static str,
}

impl ProtectedResourceMetadata {
    /// Metadata of the resource at a path below an origin.
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

    /// Issuer of the tenant.
    pub(crate) fn authority(&self) -> &str {
        self.authorization_servers.first().map_or("", |issuer| &issuer.0)
    }

    /// Scopes to request, separated by spaces.
    pub(crate) fn scopes(&self) -> String {
        self.scopes_supported.iter().map(|scope| &*scope.0).collect::<Vec<_>>().join(" ")
    }
}

/// Returns the metadata of the origin as a whole, or of the resource that the path names.
#[utoipa::path(
    get,
    path = "/.well-known/oauth-protected-resource",
    tag = "Discovery",
    operation_id = "getProtectedResourceMetadata",
    summary = "Protected resource metadata",
    description = "The tenant's issuer and the scope to request from it, for the origin as a whole or for the resource whose path follows. The document contains the tenant id and the app id, so the gateway serves it only while external access is enabled, which is an explicit decision. Otherwise, and for every other path below, SimpleChat responds; with GATEWAY_ROOT_METADATA=upstream also for the path of the origin as a whole.",
    extensions(("x-public-because" = json!("RFC 9728: a client reads it before it has a token."))),
    security(()),
    responses(
        (status = 200, description = "Protected resource metadata", body = ProtectedResourceMetadata,
            headers(("Cache-Control"), ("ETag"), ("Vary"), ("Access-Control-Allow-Origin"))),
        (status = 304, description = "Not modified",
            headers(("Cache-Control"), ("ETag"), ("Vary"), ("Access-Control-Allow-Origin"))),
        (status = 400, description = "Malformed host or forwarding header", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "While external access is disabled: SimpleChat's response, unchanged; 404 if it has no such document"),
        (status = 421, description = "Host not listed in GATEWAY_PUBLIC_URLS", body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "Internal error", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(resource): State<Arc<Resource>>,
    State(edge): State<Arc<EdgePolicy>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // As the caller spelled it: the metadata must name the same resource (RFC 9728 §3.3).
    let path = described(uri.path()).ok_or(Refusal::NotFound)?;
    describe(path, &resource, &edge, context.client_info(), &headers)
}

/// Responds to the preflight of the metadata (Fetch standard, CORS preflight).
#[utoipa::path(
    options,
    path = "/.well-known/oauth-protected-resource",
    tag = "Discovery",
    operation_id = "preflightProtectedResourceMetadata",
    summary = "CORS preflight for metadata",
    description = "Sent by browsers before a page reads the metadata. Every origin is allowed.",
    extensions(("x-public-because" = json!("A preflight carries no credentials (Fetch standard)."))),
    security(()),
    responses(
        (status = 204, description = "Every origin allowed",
            headers(("Access-Control-Allow-Origin"), ("Access-Control-Allow-Methods"), ("Access-Control-Allow-Headers"), ("Access-Control-Max-Age"), ("Cache-Control"))),
        (status = "default", description = "While external access is disabled: SimpleChat's response, unchanged; 404 if it has no such document"),
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
        PublicOrigin::Unnamed => return Err(Refusal::Framing("one Host header is required")),
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
