//! The administrator's switch: how it stands, and turning it.

use std::time::Duration;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::call::Call;
use crate::{
    activity::{Actor, Instance, Restriction},
    admin::Admin,
    clock,
    config::ExternalAccessMode,
    control::{exposure, restrictions::Recording, revocation},
    gateway::Administered,
    http::{
        error::{Problem, Refusal},
        resource_metadata::ProtectedResourceMetadata,
    },
    sessions::Which,
};

/// How long a decision may take to count here, before it is told that it was taken.
const COUNTS_HERE: Duration = Duration::from_secs(1);

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

/// A gateway that runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunningInstance {
    /// Made at its start.
    #[schema(format = "uuid", max_length = 36)]
    pub(crate) id: String,
    /// Its host's name.
    #[schema(example = "gateway-7d9f", max_length = 255, pattern = "^[ -~]*$")]
    pub(crate) host: String,
    #[schema(example = "1.0.0", max_length = 64, pattern = "^[0-9A-Za-z.+-]+$")]
    pub(crate) version: String,
    /// Whether it lets machines in.
    pub(crate) enabled: bool,
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) started_at: String,
    #[schema(format = DateTime, max_length = 30)]
    pub(crate) seen_at: String,
    /// Whether it is the one that answers.
    pub(crate) is_this: bool,
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
    pub(crate) async fn read(administered: &Administered, origin: &str) -> Result<Self, Refusal> {
        let Administered { activity, external_access, resource, .. } = administered;
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
            RunningInstance {
                // Of itself each knows it at once.
                enabled: if is_this { external_access.is_on() } else { one.is_on },
                id: one.id,
                host: one.host,
                version: one.version,
                started_at: clock::rfc3339(one.started_at),
                seen_at: clock::rfc3339(one.seen_at),
                is_this,
            }
        };
        Ok(Self {
            mode,
            enabled: managed.as_ref().map_or(mode == Mode::On, |(enabled, ..)| *enabled),
            enabled_here: external_access.is_on(),
            since: managed.as_ref().and_then(|(_, since, _)| *since).map(clock::rfc3339),
            by: managed.map_or(by_setting, |(.., by)| by),
            exposure: exposure::text(&resource.authority, &resource.config),
            metadata: ProtectedResourceMetadata::of("external/login", resource, origin),
            has_database: activity.has_database(),
            instances: instances.into_iter().map(instance).collect(),
        })
    }
}

/// Whether administrators may decide at all.
fn require_managed(administered: &Administered) -> Result<(), Refusal> {
    if !administered.activity.has_database() {
        return Err(Refusal::NoDatabase);
    }
    match &*administered.external_access.mode() {
        ExternalAccessMode::Managed => Ok(()),
        ExternalAccessMode::Off | ExternalAccessMode::On { .. } => Err(Refusal::ManagedBySetting),
    }
}

/// Lets machines in. False: they were already.
pub(crate) async fn enable(
    administered: &Administered,
    admin: &Admin,
    is_accepted: bool,
) -> Result<bool, Refusal> {
    require_managed(administered)?;
    if !is_accepted {
        return Err(Refusal::Input("Enabling needs exposure_accepted: true"));
    }
    let Administered { external_access, resource, .. } = administered;
    let text = exposure::text(&resource.authority, &resource.config);
    let turned = external_access.enable(text, admin.author.clone()).await?;
    counts_here(administered, true).await;
    Ok(turned)
}

/// Disables external access, also where that cannot be recorded yet.
pub(crate) async fn disable(
    administered: &Administered,
    admin: &Admin,
) -> Result<Recording, Refusal> {
    require_managed(administered)?;
    let taken = administered.external_access.decide(Restriction::access(&admin.author)).await?;
    counts_here(administered, false).await;
    Ok(taken)
}

/// Has the decision read here, and waits for that a little.
async fn counts_here(Administered { external_access, .. }: &Administered, is_on: bool) {
    external_access.read_now();
    let mut changes = external_access.changes();
    let _ = timeout(COUNTS_HERE, changes.wait_for(|now| *now == is_on)).await;
}

/// Ends minted sessions and records each, if need be later; returns their number.
pub(crate) async fn end_sessions(
    Administered { external_access, .. }: &Administered,
    admin: &Admin,
    which: &Which,
) -> Result<usize, Refusal> {
    Ok(revocation::end(external_access.restrictions(), which, &admin.author, None).await?)
}

/// Ends all of them, and in a while those whose logins were under way.
pub(crate) async fn end_all(administered: &Administered, admin: &Admin) -> Result<usize, Refusal> {
    let count = end_sessions(administered, admin, &Which::All).await?;
    let (restrictions, author) =
        (administered.external_access.restrictions().clone(), admin.author.clone());
    tokio::spawn(revocation::end_latecomers(restrictions, Which::All, author));
    Ok(count)
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
    State(administered): State<Administered>,
    admin: Admin,
) -> Result<Json<AccessStatus>, Refusal> {
    AccessStatus::read(&administered, &admin.origin()).await.map(Json)
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
    State(administered): State<Administered>,
    call: Call<AccessDecision>,
) -> Result<Json<AccessStatus>, Refusal> {
    let Call { admin, asked } = call;
    if asked.enabled {
        enable(&administered, &admin, asked.exposure_accepted).await?;
    } else {
        disable(&administered, &admin).await?;
        if asked.end_sessions {
            end_all(&administered, &admin).await?;
        }
    }
    AccessStatus::read(&administered, &admin.origin()).await.map(Json)
}
