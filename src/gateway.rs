//! Components of the gateway, built once. Handlers extract those that they use (`FromRef`).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::extract::FromRef;
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

/// Reasons for a failed build of the gateway.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("the session store cannot be opened")]
    Sessions(#[from] SessionsError),
    #[error("the HTTP client for Entra cannot be built")]
    Entra(#[source] reqwest::Error),
    #[error("the client for upstream cannot be built")]
    Upstream(#[source] io::Error),
}

/// All components that requests use. Cheap to clone.
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

/// Permit for exports of the activity log. One export at a time, since each is built in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Exports(Arc<Semaphore>);

/// Running export. The next one may start when all clones of this one are dropped.
#[derive(Debug, Clone)]
pub(crate) struct Export {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl Exports {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Starts an export; `None`: another one is being built or sent.
    pub(crate) fn begin(&self) -> Option<Export> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(Export { _permit: Arc::new(permit) })
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

/// Content of the protected-resource metadata (RFC 9728).
#[derive(Debug)]
pub(crate) struct Resource {
    /// State of external access.
    pub(crate) is_on: watch::Receiver<bool>,
    /// Member `authorization_servers`.
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

    /// True if external access is enabled now.
    pub(crate) fn is_on(&self) -> bool {
        *self.is_on.borrow()
    }
}

/// Flag of the drain; set once, at the start of the stop. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draining(Arc<AtomicBool>);

impl Draining {
    /// Starts the drain: the gateway is not ready.
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True if the drain has started.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gateway {
    /// Builds the components; no external service has to be reachable yet.
    ///
    /// # Errors
    /// When the session store cannot be opened or a client cannot be built.
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

    /// Returns the same components with the reloadable settings of `config` ([`Config::renewed`]).
    pub(crate) fn reloaded(&self, config: &Config) -> Self {
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
