//! How the gateway and its neighbours are.

use axum::{Json, extract::State};

use crate::{
    admin::Admin,
    gateway::Administered,
    http::{
        error::{Problem, Refusal},
        health::{self, Detail},
    },
};

/// Looks at every part.
pub(crate) async fn look(administered: &Administered) -> Detail {
    let Administered { upstream, draining, sessions, entra, health, .. } = administered;
    health::look(upstream, draining, sessions, entra, health).await.1
}

/// What operators see.
#[utoipa::path(
    get,
    path = "/gateway/api/health",
    tag = "Administration",
    operation_id = "getHealth",
    summary = "How the gateway and its neighbours are",
    description = "What stands on the operators' listener: what is not as it should be, with reasons, and versions.",
    security(("administrator" = [])),
    responses(
        (status = 200, description = "How they are", body = Detail, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(administered): State<Administered>,
    _: Admin,
) -> Result<Json<Detail>, Refusal> {
    Ok(Json(look(&administered).await))
}
