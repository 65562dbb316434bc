//! Liveness and readiness: the status for platforms' probes, with reasons for operators.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    build_info, control::health_registry::HealthRegistry, entra::Entra, gateway::Draining,
    sessions::Sessions, telemetry, upstream::Upstream,
};

/// Health of a replica.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, `starting` or `draining`.
    #[schema(example = "ok", max_length = 8, pattern = "^(ok|starting|draining)$")]
    status: &'static str,
}

/// Reports that the process responds.
#[utoipa::path(
    get,
    path = "/gateway/health/live",
    tag = "Health",
    operation_id = "getLive",
    summary = "Liveness",
    description = "The process responds. No dependency is checked.",
    extensions(("x-public-because" = json!("Platforms' probes carry no credentials; the response contains only the status."))),
    security(()),
    responses((status = 200, description = "Process running", body = Health))
)]
pub(crate) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Reports whether the replica accepts requests. Unavailability of the session store or of Entra takes no
/// replica out of service: it would take out all of them.
#[utoipa::path(
    get,
    path = "/gateway/health/ready",
    tag = "Health",
    operation_id = "getReady",
    summary = "Readiness",
    description = "The replica accepts requests. An unavailable session store, Entra or database takes no replica out of service: it would take out all of them. The management listener gives the reasons.",
    extensions(("x-public-because" = json!("Platforms' probes carry no credentials; the response contains only the status."))),
    security(()),
    responses(
        (status = 200, description = "Ready", body = Health),
        (status = 503, description = "SimpleChat has not responded yet, or the gateway is draining", body = Health),
    )
)]
pub(crate) async fn ready(
    State(upstream): State<Upstream>,
    State(draining): State<Draining>,
) -> (StatusCode, Json<Health>) {
    let (code, status) = readiness(&upstream, &draining);
    (code, Json(Health { status }))
}

fn readiness(upstream: &Upstream, draining: &Draining) -> (StatusCode, &'static str) {
    if draining.has_begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if upstream.has_responded() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting")
    }
}

/// Health of the gateway and its dependencies, with reasons.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthDetail)]
pub(crate) struct Detail {
    /// `ok`, `degraded`, `starting` or `draining`.
    #[schema(example = "ok", max_length = 8, pattern = "^(ok|degraded|starting|draining)$")]
    pub(crate) status: &'static str,
    #[schema(example = "1.0.0", max_length = 64, pattern = "^[0-9A-Za-z.+-]+$")]
    pub(crate) version: &'static str,
    /// Commit of the source.
    #[schema(max_length = 64, pattern = "^[0-9a-z-]+$")]
    pub(crate) commit: &'static str,
    /// True if cryptography uses the FIPS module.
    #[schema(example = false)]
    pub(crate) fips: bool,
    #[schema(max_items = 64)]
    pub(crate) degraded: Vec<Degraded>,
}

/// Degraded part.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Degraded {
    #[schema(example = "sessions", max_length = 32, pattern = "^[a-z]+$")]
    pub(crate) part: &'static str,
    /// Reason, as a text.
    #[schema(example = "the database did not answer in time", max_length = 4096)]
    pub(crate) reason: String,
}

/// Checks every part.
pub(crate) async fn check(
    upstream: &Upstream,
    draining: &Draining,
    sessions: &Sessions,
    entra: &Entra,
    health: &HealthRegistry,
) -> (StatusCode, Detail) {
    let reported = health.all().into_iter();
    let mut degraded: Vec<_> = reported.map(|(part, reason)| Degraded { part, reason }).collect();
    if let Err(error) = sessions.ping().await {
        degraded.push(Degraded { part: "sessions", reason: telemetry::chain(&error) });
    } else if let Some(reason) = sessions.warning() {
        degraded.push(Degraded { part: "sessions", reason });
    }
    if !entra.has_keys() {
        let reason = "the tenant's signing keys are not loaded".to_owned();
        degraded.push(Degraded { part: "entra", reason });
    }
    if let Err(error) = upstream.probe().await {
        degraded.push(Degraded { part: "upstream", reason: telemetry::chain(&error) });
    }
    let (code, status) = readiness(upstream, draining);
    let status = if status == "ok" && !degraded.is_empty() { "degraded" } else { status };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("COMMIT"));
    (code, Detail { status, version, commit, fips: build_info::is_fips(), degraded })
}

/// Reports readiness with reasons; only on the management listener.
pub(crate) async fn detail(
    State(upstream): State<Upstream>,
    State(draining): State<Draining>,
    State(sessions): State<Sessions>,
    State(entra): State<Entra>,
    State(health): State<HealthRegistry>,
) -> Response {
    let (code, detail) = check(&upstream, &draining, &sessions, &entra, &health).await;
    (code, Json(detail)).into_response()
}
