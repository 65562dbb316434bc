//! Set-up guide: values of this deployment for clients, and checks of its configuration.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{FromRef, State},
};
use serde::Serialize;
use serde_json::Value;
use tokio::{join, time::timeout};
use utoipa::ToSchema;

use super::cause;
use crate::{
    activity::{Activity, EventKind, Filter},
    admin::Admin,
    authz::client_info::{EdgePolicy, PublicOrigin},
    clock,
    control::{
        external_access::ExternalAccess,
        health_registry::{CANARY, HealthRegistry},
    },
    entra::Entra,
    gateway::{Gateway, Resource},
    http::error::{Problem, Refusal},
    registration::{
        Registration, RegistrationInputs,
        public_url_probe::{METADATA, ProbeOutcome, leads_to_a_gateway, metadata_at},
        requires_version_1,
    },
    sessions::Sessions,
    telemetry,
    upstream::Upstream,
};

/// Timeout for finding out if upstream verifies tokens itself.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Light)]
pub(crate) enum CheckState {
    /// Passed.
    Ok,
    /// Action required.
    NotYet,
    /// Cannot be checked from here.
    Unknown,
}

/// A check that ran just now.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Check {
    #[schema(example = "keys", max_length = 32, pattern = "^[a-z_]+$")]
    pub(crate) id: &'static str,
    /// Name of the check.
    #[schema(example = "Tenant’s signing keys", max_length = 128)]
    pub(crate) label: &'static str,
    pub(crate) state: CheckState,
    /// Finding, or problem and next step.
    #[schema(max_length = 4096)]
    pub(crate) detail: String,
}

/// Values of this deployment that clients and Entra need.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Values {
    /// Public origin.
    #[schema(format = "uri", max_length = 2048)]
    pub(crate) origin: String,
    /// Metadata from which clients discover the authorization server and scopes (RFC 9728).
    #[schema(format = "uri", max_length = 2048)]
    pub(crate) metadata_url: String,
    /// Endpoint that exchanges a token for a session.
    #[schema(format = "uri", max_length = 2048)]
    pub(crate) login_url: String,
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) tenant: String,
    /// Client ID of SimpleChat's app registration.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) client: String,
    /// Authorization server.
    #[schema(format = "uri", max_length = 2048)]
    pub(crate) authority: String,
    /// Scopes to request.
    #[schema(max_length = 8192, pattern = "^[ -~]+$")]
    pub(crate) scope: String,
    /// Delegated scopes that grant access to login, in addition to the role `ExternalApi`; separated by spaces.
    #[schema(max_length = 8192, pattern = "^[ -~]*$")]
    pub(crate) login_scopes: String,
}

/// A recommended change.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(max_length = 4096)]
pub(crate) struct Advice(pub(crate) String);

/// Values and checks of the guide.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SetUpGuide {
    pub(crate) values: Values,
    #[schema(max_items = 32)]
    pub(crate) checks: Vec<Check>,
    /// Required entries in the manifest of SimpleChat's app registration.
    #[schema(value_type = Object)]
    pub(crate) manifest: Value,
    /// Equivalent commands (az and jq), in the order that Entra requires.
    #[schema(max_length = 65_536)]
    pub(crate) commands: String,
    /// Required entries in authsettingsV2, if App Service authentication is enabled.
    #[schema(value_type = Object)]
    pub(crate) easy_auth: Value,
    /// Recommended changes.
    #[schema(max_items = 64)]
    pub(crate) advice: Vec<Advice>,
}

/// Parts of the gateway that the guide describes and checks.
#[derive(Debug, Clone)]
pub(crate) struct GuideSources {
    entra: Entra,
    sessions: Sessions,
    activity: Activity,
    external_access: ExternalAccess,
    upstream: Upstream,
    edge: Arc<EdgePolicy>,
    resource: Arc<Resource>,
    health: HealthRegistry,
    registration_inputs: Arc<RegistrationInputs>,
}

impl FromRef<Gateway> for GuideSources {
    fn from_ref(gateway: &Gateway) -> Self {
        let gateway = gateway.clone();
        Self {
            entra: gateway.entra,
            sessions: gateway.sessions,
            activity: gateway.activity,
            external_access: gateway.external_access,
            upstream: gateway.upstream,
            edge: gateway.edge,
            resource: gateway.resource,
            health: gateway.health,
            registration_inputs: gateway.registration_inputs,
        }
    }
}

impl Values {
    fn of(sources: &GuideSources, origin: &str) -> Self {
        let GuideSources { resource, registration_inputs, .. } = sources;
        Self {
            metadata_url: format!("{origin}{METADATA}"),
            login_url: format!("{origin}/external/login"),
            origin: origin.to_owned(),
            tenant: registration_inputs.tenant.to_string(),
            client: registration_inputs.client.to_string(),
            authority: resource.authority.clone(),
            scope: resource.config.scopes.join(" "),
            login_scopes: registration_inputs.login_scopes.join(" "),
        }
    }

    /// OAuth 2.0 endpoint of Entra by name, next to the issuer `…/TENANT/v2.0`.
    pub(crate) fn endpoint(&self, name: &str) -> String {
        let tenant = self.authority.strip_suffix("/v2.0").unwrap_or(&self.authority);
        format!("{tenant}/oauth2/v2.0/{name}")
    }
}

impl SetUpGuide {
    /// Reads the values and runs all checks.
    pub(crate) async fn read(sources: &GuideSources, admin: &Admin) -> Self {
        let GuideSources { upstream, registration_inputs, .. } = sources;
        let version = async { timeout(UPSTREAM_TIMEOUT, requires_version_1(upstream)).await.ok()? };
        let (version_1_only, checks) = join!(version, checks(sources, admin));
        let registration_inputs =
            RegistrationInputs { version_1_only, ..(**registration_inputs).clone() };
        let registration = Registration::new(&registration_inputs);
        Self {
            values: Values::of(sources, &admin.origin()),
            checks,
            manifest: registration.manifest.clone(),
            commands: registration.commands_as_text(),
            easy_auth: registration.easy_auth(&registration_inputs),
            advice: registration.advice.into_iter().map(Advice).collect(),
        }
    }
}

/// Runs every check that is possible from this instance.
async fn checks(sources: &GuideSources, admin: &Admin) -> Vec<Check> {
    let GuideSources { entra, sessions, upstream, health, external_access, .. } = sources;
    let (store, simplechat, public, first_login) =
        join!(sessions.ping(), upstream.probe(), public(sources, admin), first_login(sources));
    let outcome = |result: Result<(), String>, passed: &str| match result {
        Ok(()) => (CheckState::Ok, passed.to_owned()),
        Err(problem) => (CheckState::NotYet, problem),
    };
    let keys = if entra.has_keys() {
        Ok(())
    } else {
        Err("Not available. Check TENANT_ID, AZURE_ENVIRONMENT and outbound access to Microsoft Entra".to_owned())
    };
    let store = store.map_err(|error| {
        let chain = telemetry::chain(&error);
        format!("Unavailable: {}. Check REDIS_URL or SESSION_FILE_DIR", cause::in_words(&chain))
    });
    let simplechat = simplechat.map_err(|error| {
        let chain = telemetry::chain(&error);
        format!("No response: {}. Check GATEWAY_UPSTREAM_URL", cause::in_words(&chain))
    });
    let is_on = external_access.is_on();
    let honoured = match health.all().remove(CANARY) {
        Some(problem) => (CheckState::NotYet, problem),
        None if health.is_healthy(CANARY) => {
            (CheckState::Ok, "SimpleChat accepts them, and rejects them once revoked".to_owned())
        }
        None if !is_on => (CheckState::Unknown, "Checked while external access is on".to_owned()),
        None => {
            (CheckState::Unknown, "Not checked yet, or GATEWAY_CANARY_INTERVAL is off".to_owned())
        }
    };
    let access =
        if is_on { Ok(()) } else { Err("Off. Enable it under External access".to_owned()) };
    let check =
        |id, label, (state, detail): (CheckState, String)| Check { id, label, state, detail };
    let mut checks = vec![
        check("access", "External access", outcome(access, "On at this instance")),
        check("keys", "Tenant’s signing keys", outcome(keys, "Access tokens can be verified")),
        check("store", "Session store", outcome(store, "Available")),
        check("upstream", "SimpleChat", outcome(simplechat, "Responds at GATEWAY_UPSTREAM_URL")),
        check("honoured", "Gateway-issued sessions", honoured),
    ];
    checks.extend(public);
    checks.push(first_login);
    checks
}

/// Checks that the public URLs lead to a gateway and to the metadata.
async fn public(sources: &GuideSources, admin: &Admin) -> Vec<Check> {
    let GuideSources { edge, external_access, registration_inputs, .. } = sources;
    let (name, meta) = ("Public URLs", "Metadata document");
    let check = |id, label, state, detail: String| Check { id, label, state, detail };
    let Some(origin) = edge.public_urls.first() else {
        let unlisted = "GATEWAY_PUBLIC_URLS is empty: public URLs are derived from each request’s Host header and cannot be checked from here";
        return vec![
            check("public_url", name, CheckState::Unknown, unlisted.to_owned()),
            check("metadata", meta, CheckState::Unknown, unlisted.to_owned()),
        ];
    };
    let mut failed = Vec::new();
    for origin in &edge.public_urls {
        if let Err(problem) = leads_to_a_gateway(origin).await {
            let problem = cause::in_words(&problem);
            failed.push(format!("{origin} does not lead to a gateway from here: {problem}"));
        }
    }
    let (state, detail) = match admin.public_origin() {
        _ if !failed.is_empty() => (CheckState::NotYet, failed.join("; ")),
        PublicOrigin::Unlisted(_) => (
            CheckState::NotYet,
            "They lead to a gateway, but the host of this request is not listed in GATEWAY_PUBLIC_URLS".to_owned(),
        ),
        PublicOrigin::Known(_) | PublicOrigin::Unnamed => (CheckState::Ok, origin.to_string()),
    };
    let mut checks = vec![check("public_url", name, state, detail)];
    let expected = format!("{origin}/external/login");
    let probe = metadata_at(origin).await;
    let is_stopped = matches!(probe, ProbeOutcome::SignIn(_));
    let (state, detail) = match probe {
        ProbeOutcome::Metadata { resource } if resource.as_deref() == Some(&*expected) => {
            (CheckState::Ok, format!("{origin}{METADATA}"))
        }
        ProbeOutcome::Metadata { .. } => (
            CheckState::NotYet,
            "The document names another resource. Check GATEWAY_PUBLIC_URLS and WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES".to_owned(),
        ),
        ProbeOutcome::SignIn(how) => {
            (CheckState::NotYet, format!("A sign-in in front of the gateway responds ({how})"))
        }
        ProbeOutcome::Other(404) if !external_access.is_on() => {
            (CheckState::NotYet, "404: external access is off".to_owned())
        }
        ProbeOutcome::Other(status) => {
            (CheckState::NotYet, format!("{origin}{METADATA} returns {status}"))
        }
        ProbeOutcome::Unavailable(problem) => {
            let problem = cause::in_words(&problem);
            (CheckState::Unknown, format!("Not reachable from here: {problem}"))
        }
    };
    checks.push(check("metadata", meta, state, detail));
    if registration_inputs.app_service_signs_in || is_stopped {
        let (state, detail) = if is_stopped {
            (CheckState::NotYet, "It blocks external applications. Exclude the paths listed below")
        } else if state == CheckState::Ok {
            (CheckState::Ok, "The metadata is readable")
        } else {
            (CheckState::Unknown, "Enabled (WEBSITE_AUTH_ENABLED)")
        };
        checks.push(check("easy_auth", "App Service authentication", state, detail.to_owned()));
    }
    checks
}

/// Checks that at least one login is recorded.
async fn first_login(GuideSources { activity, .. }: &GuideSources) -> Check {
    let check =
        |state, detail: String| Check { id: "first_login", label: "First login", state, detail };
    if !activity.has_database() {
        let detail = "Without a database (DATABASE_URL), logins are recorded only in the log";
        return check(CheckState::Unknown, detail.to_owned());
    }
    let latest = Filter { kind: Some(EventKind::Login), limit: 1, ..Filter::default() };
    match activity.find(latest).await {
        Ok(found) => match found.first() {
            Some(login) => check(CheckState::Ok, format!("Latest: {}", clock::rfc3339(login.at))),
            None => check(CheckState::NotYet, "No login recorded yet".to_owned()),
        },
        Err(error) => {
            let chain = telemetry::chain(&error);
            let problem = cause::in_words(&chain);
            check(CheckState::Unknown, format!("Activity log unavailable: {problem}"))
        }
    }
}

/// Returns values and checks.
#[utoipa::path(
    get,
    path = "/gateway/api/guide",
    tag = "Administration",
    operation_id = "getGuide",
    summary = "Get the set-up guide",
    description = "This deployment's values for Microsoft Entra, clients and App Service, and checks of the gateway and its dependencies.",
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Values and checks", body = SetUpGuide, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(sources): State<GuideSources>,
    admin: Admin,
) -> Result<Json<SetUpGuide>, Refusal> {
    Ok(Json(SetUpGuide::read(&sources, &admin).await))
}
