//! The administrator's switch: how it stands, and turning it.

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

/// What decides about external access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// The setting: it is off.
    Off,
    /// The setting: it is on.
    On,
    /// Administrators.
    Managed,
}

/// How external access stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccessStatus {
    /// `GATEWAY_EXTERNAL_ACCESS`: `off` and `on` decide by themselves, under `managed` administrators do.
    pub(crate) mode: Mode,
    /// Whether machines are to be let in.
    pub(crate) enabled: bool,
    /// Whether this instance lets them in.
    pub(crate) enabled_here: bool,
    /// Since when it stands so; null: nobody ever decided, or a setting did.
    #[schema(required = true, format = DateTime, max_length = 30)]
    pub(crate) since: Option<String>,
    /// Who decided it; under `on` who accepted it, by the setting.
    pub(crate) by: Actor,
    /// What becomes public, in words: what is accepted.
    #[schema(max_length = 16_384)]
    pub(crate) exposure: String,
    /// The document that becomes public.
    pub(crate) metadata: ProtectedResourceMetadata,
    /// Whether there is a database, which deciding needs.
    pub(crate) has_database: bool,
    /// The gateways over this database that run.
    #[schema(max_items = 1024)]
    pub(crate) instances: Vec<RunningInstance>,
}

/// A decision about external access.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessDecision {
    /// Whether machines are let in.
    enabled: bool,
    /// Must be true to enable: that tenant and app ids become public is accepted, by whoever decides.
    #[serde(default)]
    #[schema(required = false)]
    exposure_accepted: bool,
    /// With `enabled: false`: whether all minted sessions end as well.
    #[serde(default)]
    #[schema(required = false)]
    end_sessions: bool,
}

impl AccessStatus {
    /// Reads it.
    ///
    /// # Errors
    /// When the database is there and cannot be read: how it stands is not known then.
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
            // Off, whatever the database holds; it may be unavailable.
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

/// How it stands.
#[utoipa::path(
    get,
    path = "/gateway/api/access",
    tag = "Administration",
    operation_id = "getAccess",
    summary = "How external access stands",
    description = "Whether machines are let in, since when and by whom; what becomes public with that; and on which instances it counts.",
    security(("administrator" = [])),
    responses(
        (status = 200, description = "How it stands", body = AccessStatus, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store or the database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(external_access): State<ExternalAccess>,
    State(resource): State<Arc<Resource>>,
    admin: Admin,
) -> Result<Json<AccessStatus>, Refusal> {
    AccessStatus::read(&external_access, &resource, &admin.origin()).await.map(Json)
}

/// Turns it.
#[utoipa::path(
    post,
    path = "/gateway/api/access",
    tag = "Administration",
    operation_id = "decideAccess",
    summary = "Let machines in, or no longer",
    description = "Counts on all instances within two seconds, without a restart. Enabling is written down before it takes effect: no record, no change. Disabling always takes effect, and is written down as soon as the database can be.",
    request_body(content = AccessDecision, content_type = "application/json"),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "It stands like that now", body = AccessStatus, headers(("Cache-Control"))),
        (status = 401, description = "Nobody is signed in to SimpleChat with this session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a minted session, a page of another origin, or a form's token that is not this session's", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "GATEWAY_EXTERNAL_ACCESS is not managed, or there is no database", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is longer than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not application/json", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Not what is described; or enabling without exposure_accepted", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The session store is away, or enabling could not be written down: nothing has changed, or it is not known whether it has", body = Problem, content_type = "application/problem+json"),
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
