//! Live and ready: for callers the status alone, for operators the reasons.

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

/// Whether this replica should get requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, `starting` or `draining`.
    #[schema(example = "ok", max_length = 8, pattern = "^(ok|starting|draining)$")]
    status: &'static str,
}

/// The process runs and answers.
#[utoipa::path(
    get,
    path = "/gateway/health/live",
    tag = "Health",
    operation_id = "getLive",
    summary = "Liveness",
    description = "The process runs and answers; nothing else is asked.",
    extensions(("x-public-because" = json!("Platforms' probes bear no credentials; the answer is the status alone."))),
    security(()),
    responses((status = 200, description = "The process runs", body = Health))
)]
pub(crate) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether requests should come here. A store or Entra being away takes no replica out: it would
/// take all of them out.
#[utoipa::path(
    get,
    path = "/gateway/health/ready",
    tag = "Health",
    operation_id = "getReady",
    summary = "Readiness",
    description = "Whether requests should come here. A session store, Entra or a database that is away takes no replica out: it would take all of them out. Reasons stand on the operators' listener.",
    extensions(("x-public-because" = json!("Platforms' probes bear no credentials; the answer is the status alone."))),
    security(()),
    responses(
        (status = 200, description = "Requests may come", body = Health),
        (status = 503, description = "Upstream has not answered yet, or the gateway is draining", body = Health),
    )
)]
pub(crate) async fn ready(
    State(upstream): State<Upstream>,
    State(draining): State<Draining>,
) -> (StatusCode, Json<Health>) {
    let (code, status) = standing(&upstream, &draining);
    (code, Json(Health { status }))
}

fn standing(upstream: &Upstream, draining: &Draining) -> (StatusCode, &'static str) {
    if draining.has_begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if upstream.has_answered() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting")
    }
}

/// What is not as it should be, with reasons: for operators and administrators.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthDetail)]
pub(crate) struct Detail {
    /// `ok`, `degraded`, `starting` or `draining`.
    #[schema(example = "ok", max_length = 8, pattern = "^(ok|degraded|starting|draining)$")]
    pub(crate) status: &'static str,
    #[schema(example = "1.0.0", max_length = 64, pattern = "^[0-9A-Za-z.+-]+$")]
    pub(crate) version: &'static str,
    /// Of the source.
    #[schema(max_length = 64, pattern = "^[0-9a-z-]+$")]
    pub(crate) commit: &'static str,
    /// Whether cryptography is done by the FIPS module.
    #[schema(example = false)]
    pub(crate) fips: bool,
    #[schema(max_items = 64)]
    pub(crate) degraded: Vec<Degraded>,
}

/// A part that is not as it should be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Degraded {
    #[schema(example = "sessions", max_length = 32, pattern = "^[a-z]+$")]
    pub(crate) part: &'static str,
    /// Why, in words.
    #[schema(example = "the database did not answer in time", max_length = 4096)]
    pub(crate) reason: String,
}

/// Looks at every part.
pub(crate) async fn look(
    upstream: &Upstream,
    draining: &Draining,
    sessions: &Sessions,
    entra: &Entra,
    health: &HealthRegistry,
) -> (StatusCode, Detail) {
    let found = health.all().into_iter();
    let mut degraded: Vec<_> = found.map(|(part, reason)| Degraded { part, reason }).collect();
    if let Err(error) = sessions.ping().await {
        degraded.push(Degraded { part: "sessions", reason: telemetry::chain(&error) });
    } else if let Some(reason) = sessions.trouble() {
        degraded.push(Degraded { part: "sessions", reason });
    }
    if !entra.has_keys() {
        let reason = "the tenant's signing keys are not known".to_owned();
        degraded.push(Degraded { part: "entra", reason });
    }
    if let Err(error) = upstream.probe().await {
        degraded.push(Degraded { part: "upstream", reason: telemetry::chain(&error) });
    }
    let (code, status) = standing(upstream, draining);
    let status = if status == "ok" && !degraded.is_empty() { "degraded" } else { status };
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("COMMIT"));
    (code, Detail { status, version, commit, fips: build_info::is_fips(), degraded })
}

/// Readiness with reasons; on the operators' listener alone.
pub(crate) async fn detail(
    State(upstream): State<Upstream>,
    State(draining): State<Draining>,
    State(sessions): State<Sessions>,
    State(entra): State<Entra>,
    State(health): State<HealthRegistry>,
) -> Response {
    let (code, detail) = look(&upstream, &draining, &sessions, &entra, &health).await;
    (code, Json(detail)).into_response()
}
