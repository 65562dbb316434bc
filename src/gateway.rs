//! The parts, built once. Handlers take what they need of it and never learn of the rest.

use axum::extract::FromRef;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{
    activity::Activity,
    authz::{client_info::EdgePolicy, policy::Policy},
    config::{Config, CookieConfig, ResourceConfig},
    control::{external_access::ExternalAccess, health_registry::HealthRegistry, sign_in::SignIn},
    entra::Entra,
    registration::RegistrationInputs,
    sessions::{Sessions, SessionsError},
    upstream::Upstream,
};

/// Why the gateway cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("the session store cannot be used")]
    Sessions(#[from] SessionsError),
    #[error("no client for Entra")]
    Entra(#[source] reqwest::Error),
    #[error("no client for upstream")]
    Upstream(#[source] io::Error),
}

/// Everything a request may need.
#[derive(Debug, Clone, FromRef)]
pub(crate) struct Gateway {
    pub(crate) entra: Entra,
    pub(crate) sessions: Sessions,
    pub(crate) activity: Activity,
    pub(crate) external_access: ExternalAccess,
    pub(crate) upstream: Upstream,
    pub(crate) policy: Arc<Policy>,
    pub(crate) edge: Arc<EdgePolicy>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) cookie: Arc<CookieConfig>,
    pub(crate) draining: Draining,
    pub(crate) health: HealthRegistry,
    pub(crate) registration_inputs: Arc<RegistrationInputs>,
    pub(crate) exports: Exports,
}

/// Files of the activity log are made one at a time: each is put together in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Exports(Arc<Semaphore>);

/// The one export that is being made. The next may begin once all clones of it are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Exports {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Begins one; `None`: another is being made, or sent.
    pub(crate) fn begin(&self) -> Option<Export> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(Export { _permit: Arc::new(permit) })
    }
}

/// What administrators look at and decide about.
#[derive(Debug, Clone)]
pub(crate) struct Administered {
    pub(crate) entra: Entra,
    pub(crate) sessions: Sessions,
    pub(crate) activity: Activity,
    pub(crate) external_access: ExternalAccess,
    pub(crate) upstream: Upstream,
    pub(crate) edge: Arc<EdgePolicy>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) cookie: Arc<CookieConfig>,
    pub(crate) draining: Draining,
    pub(crate) health: HealthRegistry,
    /// What the app registration depends on.
    pub(crate) registration_inputs: Arc<RegistrationInputs>,
    pub(crate) exports: Exports,
}

impl FromRef<Gateway> for Administered {
    fn from_ref(gateway: &Gateway) -> Self {
        let all = gateway.clone();
        Self {
            entra: all.entra,
            sessions: all.sessions,
            activity: all.activity,
            external_access: all.external_access,
            upstream: all.upstream,
            edge: all.edge,
            resource: all.resource,
            cookie: all.cookie,
            draining: all.draining,
            health: all.health,
            registration_inputs: all.registration_inputs,
            exports: all.exports,
        }
    }
}

impl FromRef<Gateway> for SignIn {
    fn from_ref(gateway: &Gateway) -> Self {
        Self {
            entra: gateway.entra.clone(),
            sessions: gateway.sessions.clone(),
            activity: gateway.activity.clone(),
            external_access: gateway.external_access.clone(),
            policy: Arc::clone(&gateway.policy),
            upstream: gateway.upstream.clone(),
        }
    }
}

/// What clients are told about us.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Whether external access is on, as the switch has it.
    pub(crate) is_on: watch::Receiver<bool>,
    /// `authorization_servers`.
    pub(crate) authority: String,
    /// Scopes and origins.
    pub(crate) config: ResourceConfig,
}

impl Resource {
    fn of(config: &Config, external_access: &ExternalAccess) -> Self {
        Self {
            is_on: external_access.changes(),
            authority: config.entra.authority.clone(),
            config: config.resource.clone(),
        }
    }

    /// Whether external access is on: now, for all threads.
    pub(crate) fn is_on(&self) -> bool {
        *self.is_on.borrow()
    }
}

/// Set once, when the gateway begins to go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draining(Arc<AtomicBool>);

impl Draining {
    /// From now on the gateway is not ready.
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gateway {
    /// Builds the parts; none of them has to be reachable yet.
    pub(crate) fn build(config: &Config) -> Result<Self, BuildError> {
        let health = HealthRegistry::default();
        let sessions = Sessions::open_store(config.sessions.clone())?;
        let activity = Activity::open(&config.activity);
        let external_access = ExternalAccess::new(config, &activity, &sessions, &health);
        Ok(Self {
            entra: Entra::new(config.entra.clone()).map_err(BuildError::Entra)?,
            resource: Arc::new(Resource::of(config, &external_access)),
            sessions,
            activity,
            external_access,
            upstream: Upstream::new(config.upstream.clone()).map_err(BuildError::Upstream)?,
            policy: Arc::new(config.policy.clone()),
            edge: Arc::new(config.edge.clone()),
            cookie: Arc::new(config.cookie.clone()),
            draining: Draining::default(),
            health,
            registration_inputs: Arc::new(RegistrationInputs::of(config, None)),
            exports: Exports::new(),
        })
    }

    /// The same parts under settings of which those changed that can ([`Config::renewed`]).
    pub(crate) fn renewed(&self, config: &Config) -> Self {
        Self {
            policy: Arc::new(config.policy.clone()),
            edge: Arc::new(config.edge.clone()),
            resource: Arc::new(Resource::of(config, &self.external_access)),
            cookie: Arc::new(config.cookie.clone()),
            registration_inputs: Arc::new(RegistrationInputs::of(config, None)),
            ..self.clone()
        }
    }
}
