//! The `OpenAPI` document: built from the handlers, naming neither tenant, client nor commit.

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

/// What the handlers do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "SimpleChat Gateway",
        description = "Lets machines into SimpleChat: an Entra access token is exchanged for a Flask session, `/external/*` is guarded by the app role ExternalApi, and every other route passes through to SimpleChat unchanged.",
        contact(name = "SimpleChat Gateway"),
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "/", description = "The gateway's public origin, in production, staging and local deployments alike")),
    tags(
        (name = "Discovery", description = "Read before there is a token: deliberately public"),
        (name = "Session", description = "The handshake"),
        (name = "External", description = "SimpleChat's own routes for machines, guarded"),
        (name = "Health", description = "For probes"),
        (name = "Administration", description = "What the administrator's page at `/gateway/admin` shows and decides, for programs. A browser's request must come from a page of this very origin; `X-CSRF-Token`, if it is sent, must be the one in that session's forms"),
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
                "An Entra access token (RS256, v1 or v2) for SimpleChat's app registration, in the Authorization header (RFC 6750). It is judged as RFC8725 advises: one algorithm, issuer, audience, tenant, type and times; it lives as short as the tenant has decided, an hour or so. The deployment's own tenant is named by its protected resource metadata.",
            )),
        );
        components.add_security_scheme(
            "sessionCookie",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "session",
                "The cookie that login sets, and that SimpleChat reads.",
            ))),
        );
        components.add_security_scheme(
            "administrator",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description(
                "session",
                "The cookie that SimpleChat itself sets when somebody signs in to it in a browser, of a user with SimpleChat's app role Admin. A session that the gateway minted does not count, nor does a token. Who it is, is asked anew for each request.",
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
    description = "Every method, and every path below `/external/` however deep. The token must carry the app role ExternalApi; a scope, `User` or `Admin` do not help. What is let in is proxied unchanged: the answers are SimpleChat's.",
    params(("path" = String, Path, description = "One or more path segments, spelled plainly; here the first", example = "public_documents", max_length = 128, pattern = "^[A-Za-z0-9_-]+$")),
    security(("bearer" = [])),
    responses(
        (status = 400, description = "A malformed request, an unusual spelling of the path, two Authorization headers, or one that is malformed", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 401, description = "No token, one that does not count, or a minted session of somebody else beside it", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The role is missing, or the client app is not allowed", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 502, description = "SimpleChat cannot be reached, or broke off", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 503, description = "The signing keys are not available, or there is no room for one more request", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 504, description = "SimpleChat did not answer in time", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = "2XX", description = "SimpleChat's answer, unchanged"),
        (status = "default", description = "Any other answer of SimpleChat, unchanged"),
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
    description = "Passes to SimpleChat unguarded, as `GET` or `HEAD`; any other method or spelling is guarded.",
    extensions(("x-public-because" = json!("App Service asks it without a token, and SimpleChat answers it to anybody."))),
    security(()),
    responses(
        (status = 400, description = "A malformed request; or, in SimpleChat's own words, its probe is switched off", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 401, description = "A minted session beside a valid token of somebody else", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 502, description = "SimpleChat cannot be reached, or broke off", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no room for one more request; or a session came along, and the store that knows about it is away", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 504, description = "SimpleChat did not answer in time", body = crate::http::error::Problem, content_type = "application/problem+json"),
        (status = 200, description = "SimpleChat's answer, which holds its time"),
        (status = "default", description = "Any other answer of SimpleChat, unchanged"),
    )
)]
#[expect(dead_code, reason = "documents what guard.rs and proxy.rs do")]
fn healthcheck() {}

/// The document of these routes, with what no annotation says.
pub(crate) fn finished(mut document: Document) -> Document {
    let paths = &mut document.paths.paths;
    if let Some(external) = paths.get_mut("/external/{path}") {
        shared_responses::whatever_the_method(external);
    }
    let mut repeat = |model: &str, path: String, suffix: &str| {
        let Some(mut item) = paths.get(model).cloned() else { return };
        for operation in shared_responses::operations(&mut item) {
            operation.operation_id =
                operation.operation_id.take().map(|id| format!("{id}{suffix}"));
        }
        paths.insert(path, item);
    };
    for resource in endpoint::RESOURCES {
        let suffix = format!("_{}", resource.replace('/', "_"));
        repeat(endpoint::METADATA, endpoint::metadata_path(resource), &suffix);
    }
    let [probe, probe_without_sign_in] = endpoint::HEALTHCHECKS;
    repeat(probe, probe_without_sign_in.to_owned(), "z");
    shared_responses::complete(&mut document);
    document
}

/// A document as text.
pub(crate) fn text(document: &Document) -> String {
    document.to_pretty_json().unwrap_or_default() + "\n"
}

/// The document's text, as the `openapi` command prints it.
#[derive(Debug, Clone)]
pub(crate) struct Text(pub(crate) std::sync::Arc<str>);

/// This document.
#[utoipa::path(
    get,
    path = "/gateway/openapi.json",
    tag = "Discovery",
    operation_id = "getOpenApi",
    summary = "This document",
    description = "OpenAPI 3.1. The same for every deployment of a version; `/gateway/docs` shows it as a page.",
    extensions(("x-public-because" = json!("It says what the source says, and names neither tenant, client nor commit."))),
    security(()),
    responses((status = 200, description = "The document", content_type = "application/json", body = Object))
)]
pub(crate) async fn document(Extension(Text(text)): Extension<Text>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
