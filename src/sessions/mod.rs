//! Minted sessions: minting, revocation, expiry, listing.
//!
//! Flask writes a session back at the end of each request, for 31 days. A session has therefore ended when the
//! expiry in its id has passed, or when its id is in the revocation list. Every instance holds that list in
//! memory and reads additions from the store twice a second. The sweep removes records that Flask wrote back.

mod account;
mod backend;
mod end;
mod error;
mod expired;
mod instances;
mod limits;
mod listing;
mod mint;
mod outbox;
mod revocations;
mod sweep;
#[cfg(test)]
mod test_support;
mod view;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use moka::sync::Cache;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

pub(crate) use self::{
    backend::Outbox,
    end::EndedSession,
    error::SessionsError,
    listing::{Listed, Which},
    mint::Opened,
    revocations::SessionStatus,
    view::MintedSession,
};
use self::{
    backend::{
        SessionBackend, SessionMeta, files::Files, metrics::InstrumentedBackend, redis::Redis,
    },
    expired::ExpiryEvents,
    limits::LoginLimits,
    revocations::Revocations,
};
use crate::{
    authz::session::SessionId,
    clock,
    config::{SessionsConfig, StoreConfig},
};

/// Seconds that a session is remembered after its expiry. No request of it can be in flight any longer:
/// upstream's time-out is 900 s.
const RETENTION: i64 = 1200;
/// Longest wait of a caller for the store.
const STORE_TIMEOUT: Duration = Duration::from_millis(1800);
/// Longest wait of a command for the connection to the store.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Queue of records to remove; the sweep removes what finds no room.
const REMOVAL_QUEUE: usize = 256;
/// Sessions whose subject is cached; the least used are evicted.
const MAX_SUBJECTS: u64 = 10_000;

/// The minted sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn SessionBackend>,
    revocations: Revocations,
    /// Records to remove soon.
    removals: mpsc::Sender<SessionId>,
    limits: ArcSwap<LoginLimits>,
    /// Subjects of sessions, which never change.
    subjects: Cache<SessionId, Uuid>,
    expiry_events: ExpiryEvents,
}

impl Sessions {
    /// Opens the store. Redis may be unavailable: a background task connects to it.
    pub(crate) fn open_store(config: SessionsConfig) -> Result<Self, SessionsError> {
        let limits = ArcSwap::from_pointee(LoginLimits::new(&config));
        let backend: Arc<dyn SessionBackend> = match &config.store {
            StoreConfig::Redis { url, auth, ca_file } => {
                let redis = Redis::connect(url, auth, ca_file.as_deref(), config.key_prefix)?;
                Arc::new(InstrumentedBackend::new(redis, "redis"))
            }
            StoreConfig::Files { directory, state } => {
                let files = Files::open(directory, state, config.key_prefix)?;
                Arc::new(InstrumentedBackend::new(files, "filesystem"))
            }
        };
        let (removals, queue) = mpsc::channel(REMOVAL_QUEUE);
        tokio::spawn(sweep::removal_loop(Arc::clone(&backend), queue));
        Ok(Self(Arc::new(Inner {
            backend,
            revocations: Revocations::default(),
            removals,
            limits,
            subjects: Cache::new(MAX_SUBJECTS),
            expiry_events: ExpiryEvents::new(),
        })))
    }

    /// Opens the store and waits until it answers: for commands, which can do nothing before.
    pub(crate) async fn connected(config: SessionsConfig) -> Result<Self, SessionsError> {
        let sessions = Self::open_store(config)?;
        let begun = Instant::now();
        loop {
            match sessions.ping().await {
                Err(_) if begun.elapsed() < CONNECT_TIMEOUT => sleep(CONNECT_TIMEOUT / 50).await,
                answered => return answered.map(|()| sessions),
            }
        }
    }

    /// Metadata of a session that has not expired.
    async fn meta(&self, id: &SessionId) -> Result<Option<SessionMeta>, SessionsError> {
        let meta = self.0.backend.meta(id.id()).await?;
        Ok(meta.filter(|meta| meta.session_id() == *id && meta.expires_at > clock::now()))
    }

    /// Subject of a minted session; `None` without metadata.
    pub(crate) async fn subject_of(&self, id: &SessionId) -> Result<Option<Uuid>, SessionsError> {
        if let Some(subject) = self.0.subjects.get(id) {
            return Ok(Some(subject));
        }
        let subject = in_time(self.meta(id)).await?.map(|meta| meta.subject);
        if let Some(subject) = subject {
            self.0.subjects.insert(*id, subject);
        }
        Ok(subject)
    }

    /// True if Flask's record of a session is in the store.
    pub(crate) async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        in_time(self.0.backend.has(id)).await
    }

    /// Reason why the store will refuse the gateway before long.
    pub(crate) fn warning(&self) -> Option<String> {
        self.0.backend.warning()
    }

    /// Checks that the store answers.
    pub(crate) async fn ping(&self) -> Result<(), SessionsError> {
        in_time(self.0.backend.ping()).await
    }
}

/// Bounds work by [`STORE_TIMEOUT`].
async fn in_time<T>(
    work: impl Future<Output = Result<T, SessionsError>>,
) -> Result<T, SessionsError> {
    timeout(STORE_TIMEOUT, work).await.unwrap_or(Err(SessionsError::TimedOut))
}
