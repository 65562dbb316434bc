//! External access: its status, and the decision to enable or disable it.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::Call;
use crate::{
    activity::{Actor, Instance, RunningInstance},
    admin::Admin,
    clock,
    config::ExternalAccessMode,
    control::{decisions, exposure, external_access::ExternalAccess},
    gateway::Resource,
    http::{
        error::{Problem, Refusal},
        resource_metadata::ProtectedResourceMetadata,
    },
};

/// Source of the decision about external access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// The setting disables it.
    Off,
    /// The setting enables it.
    On,
    /// Administrators decide.
    Managed,
}

/// Status of external access.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccessStatus {
    /// `GATEWAY_EXTERNAL_ACCESS`: `off` and `on` are fixed; with `managed`, administrators decide.
    pub(crate) mode: Mode,
    /// True if external access is enabled.
    pub(crate) enabled: bool,
    /// True if external access is on at this instance.
    pub(crate) enabled_here: bool,
    /// Time of the last decision; null: no decision yet, or controlled by the setting.
    #[schema(required = true, format = DateTime, max_length = 30)]
    pub(crate) since: Option<String>,
    /// Administrator who decided; under `on`, the approver named by the setting.
    pub(crate) by: Actor,
    /// Description of what becomes public: the text that an administrator accepts.
    #[schema(max_length = 16_384)]
    pub(crate) exposure: String,
    /// Document that becomes public.
    pub(crate) metadata: ProtectedResourceMetadata,
    /// True if a database is configured; decisions require one.
    pub(crate) has_database: bool,
    /// Running gateway instances that use this database.
    #[schema(max_items = 1024)]
    pub(crate) instances: Vec<RunningInstance>,
}

/// A decision about external access.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessDecision {
    /// True to enable external access.
    enabled: bool,
    /// Must be true to enable: the administrator accepts that tenant and app IDs become public.
    #[serde(default)]
    #[schema(required = false)]
    exposure_accepted: bool,
    /// With `enabled: false`: also end all gateway-issued sessions.
    #[serde(default)]
    #[schema(required = false)]
    end_sessions: bool,
}

impl AccessStatus {
    /// Reads the status.
    ///
    /// # Errors
    /// When a configured database cannot be read: the status is unknown.
    pub(crate) async fn read(
        external_access: &ExternalAccess,
        resource: &Resource,
        origin: &str,
    ) -> Result<Self, Refusal> {
        let activity = external_access.activity();
        let (mode, by_setting) = match &*external_access.mode() {
            ExternalAccessMode::Off => (Mode::Off, Actor::default()),
            ExternalAccessMode::On { accepted_by } => {
                (Mode::On, Actor { name: Some(accepted_by.clone()), ..Actor::default() })
            }
            ExternalAccessMode::Managed => (Mode::Managed, Actor::default()),
        };
        let disabled = external_access.disabled().filter(|_| mode == Mode::Managed);
        let (state, instances) = match (activity.has_database(), disabled.is_some()) {
            (true, false) => {
                let (state, _) = activity.read().await?;
                (Some(state), activity.instances().await?)
            }
            // Off, whatever the database contains; it may be unavailable.
            (true, true) => (None, activity.instances().await.unwrap_or_default()),
            (false, _) => (None, Vec::new()),
        };
        let managed = state
            .filter(|_| mode == Mode::Managed)
            .map(|state| (state.enabled, state.since, state.by))
            .or(disabled.map(|(since, by)| (false, Some(since), by)));
        let instance = |one: Instance| {
            let is_this = one.id == external_access.instance();
            // This instance knows its own state before its next heartbeat.
            let is_on = if is_this { external_access.is_on() } else { one.is_on };
            RunningInstance {
                is_this: Some(is_this),
                ..RunningInstance::from(Instance { is_on, ..one })
            }
        };
        Ok(Self {
            mode,
            enabled: managed.as_ref().map_or(mode == Mode::On, |(enabled, ..)| *enabled),
            enabled_here: external_access.is_on(),
            since: managed.as_ref().and_then(|(_, since, _)| *since).map(clock::rfc3339),
            by: managed.map_or(by_setting, |(.., by)| by),
            exposure: exposure_of(resource),
            metadata: ProtectedResourceMetadata::of("external/login", resource, origin),
            has_database: activity.has_database(),
            instances: instances.into_iter().map(instance).collect(),
        })
    }
}

/// Text that an administrator accepts: what becomes public.
pub(crate) fn exposure_of(resource: &Resource) -> String {
    exposure::text(&resource.authority, &resource.config)
}

/// Returns the status.
#[utoipa::path(
    get,
    path = "/gateway/api/access",
    tag = "Administration",
    operation_id = "getAccess",
    summary = "Get the status of external access",
    description = "The current decision, its time and author, what becomes public, and the state of each instance.",
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Status of external access", body = AccessStatus, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store or database unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(external_access): State<ExternalAccess>,
    State(resource): State<Arc<Resource>>,
    admin: Admin,
) -> Result<Json<AccessStatus>, Refusal> {
    AccessStatus::read(&external_access, &resource, &admin.origin()).await.map(Json)
}

/// Enables or disables external access.
#[utoipa::path(
    post,
    path = "/gateway/api/access",
    tag = "Administration",
    operation_id = "decideAccess",
    summary = "Enable or disable external access",
    description = "Applies to all instances within two seconds, without a restart. Enabling is recorded before it takes effect: no record, no change. Disabling always takes effect, and is recorded as soon as the database can be written.",
    request_body(content = AccessDecision, content_type = "application/json"),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Status after the decision", body = AccessStatus, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, a page of another origin, or the CSRF token of another session", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "GATEWAY_EXTERNAL_ACCESS is not managed, or no database is configured", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body exceeds 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The body does not match the schema, or exposure_accepted is missing", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store unavailable, or enabling could not be recorded. The change may not have been applied; check the current status before retrying", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn post(
    State(external_access): State<ExternalAccess>,
    State(resource): State<Arc<Resource>>,
    Call { admin, decision }: Call<AccessDecision>,
) -> Result<Json<AccessStatus>, Refusal> {
    if decision.enabled {
        let accepted = decision.exposure_accepted.then(|| exposure_of(&resource));
        decisions::enable(&external_access, accepted, admin.author().clone()).await?;
    } else {
        decisions::disable(&external_access, admin.author()).await?;
        if decision.end_sessions {
            let restrictions = external_access.restrictions();
            decisions::end_all_sessions(restrictions, admin.author()).await?;
        }
    }
    AccessStatus::read(&external_access, &resource, &admin.origin()).await.map(Json)
}
