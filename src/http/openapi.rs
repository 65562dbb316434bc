//! The `OpenAPI` document: built from the handlers, naming neither tenant, client nor commit.

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

/// What the handlers do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "SimpleChat Gateway",
        description = "Lets machines into SimpleChat: an Entra access token is exchanged for a Flask session, `/external/*` is guarded by the app role ExternalApi, and every other route passes through to SimpleChat unchanged.",
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "/", description = "The gateway's public origin")),
    tags(
        (name = "Discovery", description = "Read before there is a token: deliberately public"),
        (name = "Session", description = "The handshake"),
        (name = "External", description = "SimpleChat's own routes for machines, guarded"),
        (name = "Health", description = "For probes"),
    ),
    paths(external, healthcheck, document),
    modifiers(&SecuritySchemes),
)]
pub(super) struct Base;

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
                "An Entra access token (RS256, v1 or v2) for SimpleChat's app registration, in the Authorization header (RFC 6750). The deployment's own tenant is named by its protected resource metadata.",
            )),
        );
        components.add_security_scheme(
            "sessionCookie",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "session",
                "The cookie that login sets, and that SimpleChat reads.",
            ))),
        );
    }
}

/// Whatever SimpleChat serves there, for tokens with the app role `ExternalApi`.
#[utoipa::path(
    get,
    path = "/external/{path}",
    tag = "External",
    operation_id = "external",
    summary = "SimpleChat's routes for machines",
    description = "Every method. The token must carry the app role ExternalApi; a scope, `User` or `Admin` do not help. What is let in is proxied unchanged: the answers are SimpleChat's.",
    params(("path" = String, Path, description = "One or more path segments, spelled plainly", example = "public_documents", max_length = 4094)),
    security(("bearer" = [])),
    responses(
        (status = 200, description = "SimpleChat's answer"),
        (status = 400, description = "An unusual spelling of the path, two Authorization headers, or one that is malformed", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that does not count", body = super::error::Problem, content_type = "application/problem+json",
            headers(("WWW-Authenticate" = String, description = "`Bearer`; with `resource_metadata` and `scope` while external access is on"))),
        (status = 403, description = "The role is missing, or the client app is not allowed", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 502, description = "SimpleChat cannot be reached, or broke off", body = super::error::Problem, content_type = "application/problem+json"),
        (status = 503, description = "The signing keys are not available", body = super::error::Problem, content_type = "application/problem+json",
            headers(("Retry-After" = String, description = "Seconds"))),
        (status = 504, description = "SimpleChat did not answer in time", body = super::error::Problem, content_type = "application/problem+json"),
    )
)]
#[expect(dead_code, reason = "documents what guard.rs and proxy.rs do")]
fn external() {}

/// SimpleChat's probe.
#[utoipa::path(
    get,
    path = "/external/healthcheck",
    tag = "External",
    operation_id = "externalHealthcheck",
    summary = "SimpleChat's health probe",
    description = "Open to all: App Service asks it without a token. GET and HEAD pass to SimpleChat unguarded.",
    security(()),
    responses(
        (status = 200, description = "SimpleChat's time"),
        (status = 400, description = "SimpleChat has its probe switched off"),
        (status = 502, description = "SimpleChat cannot be reached, or broke off", body = super::error::Problem, content_type = "application/problem+json"),
    )
)]
#[expect(dead_code, reason = "documents what guard.rs and proxy.rs do")]
fn healthcheck() {}

/// A document as text.
pub(super) fn text(document: &Document) -> String {
    document.to_pretty_json().unwrap_or_default() + "\n"
}

/// The document's text, as the `openapi` command prints it.
#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) std::sync::Arc<str>);

/// This document.
#[utoipa::path(
    get,
    path = "/gateway/openapi.json",
    tag = "Discovery",
    operation_id = "getOpenApi",
    summary = "This document",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"))
)]
pub(super) async fn document(Extension(Text(text)): Extension<Text>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
