//! Health of the gateway and its dependencies.

use axum::{
    Json,
    extract::{FromRef, State},
};

use crate::{
    admin::Admin,
    control::health_registry::HealthRegistry,
    entra::Entra,
    gateway::{Draining, Gateway},
    http::{
        error::{Problem, Refusal},
        health::{self, Detail},
    },
    sessions::Sessions,
    upstream::Upstream,
};

/// Parts of the gateway whose health is checked.
#[derive(Debug, Clone)]
pub(crate) struct HealthSources {
    pub(crate) registry: HealthRegistry,
    upstream: Upstream,
    draining: Draining,
    sessions: Sessions,
    entra: Entra,
}

impl FromRef<Gateway> for HealthSources {
    fn from_ref(gateway: &Gateway) -> Self {
        let Gateway { upstream, draining, sessions, entra, health, .. } = gateway.clone();
        Self { registry: health, upstream, draining, sessions, entra }
    }
}

impl HealthSources {
    /// Checks every part now.
    pub(crate) async fn check(&self) -> Detail {
        let Self { registry, upstream, draining, sessions, entra } = self;
        health::check(upstream, draining, sessions, entra, registry).await.1
    }
}

/// Returns the health of each part.
#[utoipa::path(
    get,
    path = "/gateway/api/health",
    tag = "Administration",
    operation_id = "getHealth",
    summary = "Get the health of the gateway and its dependencies",
    description = "The same as on the management port: unhealthy parts with reasons, and versions.",
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Health", body = Detail, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(sources): State<HealthSources>,
    _: Admin,
) -> Result<Json<Detail>, Refusal> {
    Ok(Json(sources.check().await))
}
