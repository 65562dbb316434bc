//! `OpenAPI` document: built from the handlers; contains no tenant id, app id or commit.

pub(crate) mod page;
pub(crate) mod reading;
pub(crate) mod shared_responses;

use axum::{
    Extension,
    response::{IntoResponse, Response},
};
use http::header;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{ApiKey, ApiKeyValue, OpenIdConnect, SecurityScheme},
    },
};

use crate::http::endpoint;

/// Parts of the document that no handler annotates.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "SimpleChat Gateway",
        description = "Reverse proxy in front of SimpleChat for external applications: it exchanges an Entra access token for a Flask session, guards `/external/*` with the app role ExternalApi, and forwards every other request to SimpleChat unchanged.",
        contact(name = "SimpleChat Gateway"),
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "/", description = "The gateway's public origin, in production, staging and local deployments alike")),
    tags(
        (name = "Discovery", description = "Documents that clients read before they have a token; public by design"),
        (name = "Session", description = "Exchange of an access token for a session, and logout"),
        (name = "External", description = "SimpleChat's routes for external applications, guarded by an app role"),
        (name = "Health", description = "Liveness and readiness probes"),
        (name = "Administration", description = "JSON API of the administrators' page at `/gateway/admin`. Requests of browsers must come from a page of this origin; `X-CSRF-Token`, if sent, must be the token in the forms of the session"),
    ),
    paths(external, healthcheck, document),
    components(schemas(crate::http::error::Problem)),
    modifiers(&SecuritySchemes),
)]
pub(crate) struct Base;

struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let issuer =
            "https://login.microsoftonline.com/organizations/v2.0/.well-known/openid-configuration";
        components.add_security_scheme(
            "bearer",
            SecurityScheme::OpenIdConnect(OpenIdConnect::with_description(
                issuer,
                "Entra access token (RS256, v1 or v2) for SimpleChat's app registration, in the Authorization header (RFC 6750). It is validated according to RFC8725: one algorithm, issuer, audience, tenant, type and times. The tenant sets its lifetime, by default about an hour. The protected resource metadata names the tenant of the deployment.",
            )),
        );
        components.add_security_scheme(
            "sessionCookie",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "session",
                "Session cookie that login sets and SimpleChat reads.",
            ))),
        );
        components.add_security_scheme(
            "administrator",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "session",
                "Session cookie that SimpleChat sets when a user with SimpleChat's app role Admin signs in with a browser. A gateway-issued session or a token is not accepted. The user is checked for each request.",
            ))),
        );
    }
}

/// SimpleChat's routes below `/external/`, for tokens with the app role `ExternalApi`.
#[utoipa::path(
    get,
    path = "/external/{path}",
    tag = "External",
    operation_id = "external",
    summary = "SimpleChat's routes for external applications",
    description = "Every method, and every path below `/external/` at any depth. The token must have the app role ExternalApi; a scope or the roles `User` and `Admin` are not sufficient. Admitted requests are forwarded unchanged; the responses are SimpleChat's.",
    params(("path" = String, Path, description = "One or more path segments in canonical form; here the first", example = "public_documents", max_length = 128, pattern = "^[A-Za-z0-9_-]+$")),
    security(("bearer" = [])),
    responses(
        (status = 400, description = "Malformed request or form, path not in canonical form, or repeated or malformed Authorization header", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 401, description = "Missing or invalid token, or gateway-issued session of another subject", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 403, description = "Missing role; client app not allowed; `user_id` of another subject; or caller blocked by an administrator", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 502, description = "SimpleChat unreachable, or connection closed before the response", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store, block list or signing keys unavailable, or capacity limit reached", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 504, description = "No response from SimpleChat in time", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = "2XX", description = "SimpleChat's response, unchanged"),
        (status = "default", description = "Any other response of SimpleChat, unchanged"),
    )
)]
#[expect(dead_code, reason = "documents guard.rs and proxy.rs")]
fn external() {}

/// SimpleChat's health probe.
#[utoipa::path(
    get,
    path = "/external/healthcheck",
    tag = "External",
    operation_id = "externalHealthcheck",
    summary = "SimpleChat's health probe",
    description = "Forwarded to SimpleChat without a token for `GET` and `HEAD`; every other method or spelling of the path is guarded.",
    extensions(("x-public-because" = json!("App Service requests it without a token, and SimpleChat itself serves it without sign-in."))),
    security(()),
    responses(
        (status = 400, description = "Malformed request; or SimpleChat's response that its probe is turned off", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 401, description = "Gateway-issued session with a valid token of another subject", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 502, description = "SimpleChat unreachable, or connection closed before the response", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 503, description = "Capacity limit reached; or a session was sent and the session store is unavailable", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 504, description = "No response from SimpleChat in time", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 200, description = "SimpleChat's response, which contains its time"),
        (status = "default", description = "Any other response of SimpleChat, unchanged"),
    )
)]
#[expect(dead_code, reason = "documents guard.rs and proxy.rs")]
fn healthcheck() {}

/// Completes the document of the routes with repeated paths and shared responses.
pub(crate) fn finished(mut document: Document) -> Document {
    let paths = &mut document.paths.paths;
    if let Some(external) = paths.get_mut("/external/{path}") {
        shared_responses::copy_get_to_all_methods(external);
    }
    let mut copy = |original: &str, path: String, suffix: &str| {
        let Some(mut item) = paths.get(original).cloned() else { return };
        for operation in shared_responses::operations(&mut item) {
            operation.operation_id =
                operation.operation_id.take().map(|id| format!("{id}{suffix}"));
        }
        paths.insert(path, item);
    };
    for resource in endpoint::RESOURCES {
        let suffix = format!("_{}", resource.replace('/', "_"));
        copy(endpoint::METADATA, endpoint::metadata_path(resource), &suffix);
    }
    let [probe, probe_without_sign_in] = endpoint::HEALTHCHECKS;
    copy(probe, probe_without_sign_in.to_owned(), "z");
    shared_responses::complete(&mut document);
    document
}

/// Document as formatted JSON.
pub(crate) fn text(document: &Document) -> String {
    document.to_pretty_json().unwrap_or_default() + "\n"
}

/// Text of the document, as the `openapi` command prints it.
#[derive(Debug, Clone)]
pub(crate) struct Text(pub(crate) std::sync::Arc<str>);

/// Returns this document.
#[utoipa::path(
    get,
    path = "/gateway/openapi.json",
    tag = "Discovery",
    operation_id = "getOpenApi",
    summary = "OpenAPI document",
    description = "This document, OpenAPI 3.1. It is the same for every deployment of a version; `/gateway/docs` shows it as a page.",
    extensions(("x-public-because" = json!("Its content follows from the source alone; it contains no tenant id, app id or commit."))),
    security(()),
    responses((status = 200, description = "OpenAPI document", content_type = "application/json", body = Object))
)]
pub(crate) async fn document(Extension(Text(text)): Extension<Text>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
