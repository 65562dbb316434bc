//! The parts, built once. Handlers take what they need of it and never learn of the rest.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::extract::FromRef;

use crate::{
    access::{origin::Surroundings, policy::Policy},
    config::{Config, CookieConfig, ExternalAccess, ResourceConfig},
    entra::Entra,
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
    pub(crate) upstream: Upstream,
    pub(crate) policy: Arc<Policy>,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) cookie: Arc<CookieConfig>,
    pub(crate) draining: Draining,
    pub(crate) conditions: Conditions,
}

/// What clients are told about us.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Whether external access is on.
    pub(crate) is_on: bool,
    /// `authorization_servers`.
    pub(crate) authority: String,
    /// Scopes and origins.
    pub(crate) config: ResourceConfig,
}

impl Resource {
    fn of(config: &Config) -> Self {
        Self {
            is_on: config.external_access != ExternalAccess::Off,
            authority: config.entra.authority.clone(),
            config: config.resource.clone(),
        }
    }
}

/// What work in the background found to be not as it should be: a part's name, and the reason in plain
/// words. For operators.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Conditions {
    /// A part is not as it should be.
    pub(crate) fn raise(&self, part: &'static str, reason: String) {
        self.lock().insert(part, reason);
    }

    /// A part is well (again).
    pub(crate) fn clear(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(Self {
            entra: Entra::new(config.entra.clone()).map_err(BuildError::Entra)?,
            sessions: Sessions::open_store(config.sessions.clone())?,
            upstream: Upstream::new(config.upstream.clone()).map_err(BuildError::Upstream)?,
            policy: Arc::new(config.policy.clone()),
            surroundings: Arc::new(config.surroundings.clone()),
            resource: Arc::new(Resource::of(config)),
            cookie: Arc::new(config.cookie.clone()),
            draining: Draining::default(),
            conditions: Conditions::default(),
        })
    }

    /// The same parts under settings of which those changed that can ([`Config::renewed`]).
    pub(crate) fn renewed(&self, config: &Config) -> Self {
        Self {
            policy: Arc::new(config.policy.clone()),
            surroundings: Arc::new(config.surroundings.clone()),
            resource: Arc::new(Resource::of(config)),
            cookie: Arc::new(config.cookie.clone()),
            ..self.clone()
        }
    }
}
