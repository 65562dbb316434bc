//! Minted sessions: opened, ended, held to their end.
//!
//! Flask writes a session back at the end of each request, and for 31 days. So a session is over when
//! its id says so, or when it stands in the set of ended ones; every instance holds that set in memory
//! and reads on in the store's twice a second. Records that Flask brought back are swept.

mod account;
mod backend;
mod error;
mod expired;
mod instances;
mod limits;
mod listing;
mod mint;
mod several;
#[cfg(test)]
mod test_support;
mod view;
mod waiting;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::sync::Cache;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use uuid::Uuid;

pub(crate) use self::{backend::Waiting, error::SessionsError, limits::Network, mint::Opened};
use self::{
    backend::{
        Cursor, SessionBackend, SessionMeta, files::Files, metrics::InstrumentedBackend,
        redis::Redis,
    },
    expired::ExpiryEvents,
    limits::LoginLimits,
};
#[expect(unused_imports, reason = "the pages and commands to come name them")]
pub(crate) use self::{
    expired::Expired,
    listing::{Listed, Which},
    view::MintedSession,
};
use crate::{
    authz::session::SessionId,
    clock,
    config::{SessionsConfig, StoreConfig},
    telemetry,
};

/// How often the store's set of ended sessions is read on.
const READ_ON: Duration = Duration::from_millis(500);
/// How often all of it is read again, whatever happened.
const READ_AGAIN: Duration = Duration::from_mins(1);
/// For how long what was read last vouches for sessions that do not stand in it.
const MAX_STALENESS: Duration = Duration::from_secs(5);
/// Disposition so many failures in a row the connection is made anew.
const TOO_MANY_FAILURES: u32 = 3;
/// Ended sessions that a forgetful store is told of at once.
const REPORT_INTERVAL: usize = 100;
/// How often records that should be gone are swept.
const SWEEP: Duration = Duration::from_secs(10);
/// Disposition this long no request of a session can be in flight any more: beyond upstream's 900 s.
const LONG_AGO: i64 = 1200;
/// How long a caller may be kept waiting for the store.
const STORE_TIMEOUT: Duration = Duration::from_millis(1800);
/// How long a store may take to be connected to before a command gives up.
const CONNECTED: Duration = Duration::from_secs(5);
/// How long a caller who failed may be kept waiting for it to be counted.
const COUNT_TIMEOUT: Duration = Duration::from_millis(250);
/// Records waiting to be removed; the sweep takes care of more.
const MAX_FORGOTTEN: usize = 256;

/// Sessions whose subject is remembered; the least used give way.
const MAX_SUBJECTS: u64 = 10_000;

/// Where a minted session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionStatus {
    /// Nothing speaks against it. Whether the store has it, upstream will see.
    Active,
    /// Past its end, or ended before.
    Ended,
}

/// A session that was ended.
pub(crate) struct EndedSession {
    /// [`SessionId::handle`].
    pub(crate) handle: String,
    /// Entra's object id, and the client app's; `None`: the store lost what it knew.
    pub(crate) of: Option<(Uuid, String)>,
}

impl EndedSession {
    fn of(id: &SessionId, meta: Option<SessionMeta>) -> Self {
        Self { handle: id.handle(), of: meta.map(|meta| (meta.subject, meta.client)) }
    }
}

/// The minted sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn SessionBackend>,
    /// Those whose end has not come, with when we learned of it (Unix seconds).
    ended: RwLock<HashMap<SessionId, i64>>,
    /// When the store's set was last read.
    read: ArcSwapOption<Instant>,
    /// Records to remove soon.
    forget: mpsc::Sender<SessionId>,
    limits: ArcSwap<LoginLimits>,
    /// Whose sessions are; that never changes.
    subjects: Cache<SessionId, Uuid>,
    telling: ExpiryEvents,
}

impl Sessions {
    /// Opens the store. Redis may be away: it is connected to in the background.
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
        let (forget, forgotten) = mpsc::channel(MAX_FORGOTTEN);
        tokio::spawn(remove_forgotten(Arc::clone(&backend), forgotten));
        Ok(Self(Arc::new(Inner {
            backend,
            ended: RwLock::default(),
            read: ArcSwapOption::empty(),
            forget,
            limits,
            subjects: Cache::new(MAX_SUBJECTS),
            telling: ExpiryEvents::new(),
        })))
    }

    /// The store, once it answers: for commands, which have nothing to do meanwhile.
    pub(crate) async fn connected(config: SessionsConfig) -> Result<Self, SessionsError> {
        let sessions = Self::open_store(config)?;
        let begun = Instant::now();
        loop {
            match sessions.ping().await {
                Err(_) if begun.elapsed() < CONNECTED => sleep(CONNECTED / 50).await,
                answered => return answered.map(|()| sessions),
            }
        }
    }

    /// From now on other limits count, from nought.
    pub(crate) fn limit(&self, config: &SessionsConfig) {
        self.0.limits.store(Arc::new(LoginLimits::new(config)));
    }

    /// `GATEWAY_SESSIONS_PER_SUBJECT`, as it applies now.
    pub(crate) fn per_subject(&self) -> usize {
        self.0.limits.load().per_subject
    }

    /// How long an address must wait that has failed to log in as often as may be.
    pub(crate) fn failure_limit_wait(&self, from: Network) -> Option<Duration> {
        self.0.limits.load().failure_limit_wait(&from)
    }

    /// Counts a login that failed; how long to wait when it is one too many. Where the store is away,
    /// what this instance has seen counts.
    pub(crate) async fn count_failure(&self, from: Network) -> Option<Duration> {
        let limits = self.0.limits.load_full();
        let limit = limits.both().1?;
        let here = limits.failure(from);
        let shared = timeout(COUNT_TIMEOUT, self.0.backend.count_failure(from, limit)).await;
        let everywhere = shared.ok().and_then(Result::ok).flatten();
        if let Some(wait) = everywhere {
            limits.limit_failures(from, wait);
        }
        everywhere.or(here)
    }

    /// The note of a session whose end has not come.
    async fn meta(&self, id: &SessionId) -> Result<Option<SessionMeta>, SessionsError> {
        let meta = self.0.backend.meta(id.id()).await?;
        Ok(meta.filter(|meta| meta.session_id() == *id && meta.expires_at > clock::now()))
    }

    /// Ends sessions for good, those of them that there are, and tells which. `Ok` once the store has
    /// confirmed it.
    pub(crate) async fn end(&self, ids: &[SessionId]) -> Result<Vec<EndedSession>, SessionsError> {
        in_time(async {
            let mut ended_sessions = Vec::new();
            for id in ids {
                match self.meta(id).await? {
                    Some(meta) => {
                        self.end_of(id, meta.subject).await?;
                        ended_sessions.push(EndedSession::of(id, Some(meta)));
                    }
                    // Without a note (lost with the store's memory) a record that Flask wrote back
                    // may still be there. Where neither is, there is nothing to end, and nothing is
                    // kept that a caller made up.
                    None if self.0.backend.has(id).await? => {
                        self.mark(id).await?;
                        self.0.backend.remove(&[*id]).await?;
                        ended_sessions.push(EndedSession::of(id, None));
                    }
                    None => {}
                }
            }
            Ok(ended_sessions)
        })
        .await
    }

    /// Ends all sessions that were minted from one token, and tells which.
    pub(crate) async fn end_of_token(
        &self,
        subject: Uuid,
        fingerprint: &str,
        now: i64,
    ) -> Result<Vec<EndedSession>, SessionsError> {
        in_time(async {
            let mut ended_sessions = Vec::new();
            for id in self.0.backend.sessions_of(subject, now).await? {
                let meta = self.0.backend.meta(id.id()).await?;
                if let Some(meta) = meta.filter(|meta| meta.token == fingerprint) {
                    self.end_of(&id, subject).await?;
                    ended_sessions.push(EndedSession::of(&id, Some(meta)));
                }
            }
            Ok(ended_sessions)
        })
        .await
    }

    /// Whether Flask's record of a session is in the store.
    pub(crate) async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        in_time(self.0.backend.has(id)).await
    }

    /// Forgets that a session was there and ended: for one that no caller ever knew, and of which no
    /// request can be in flight.
    pub(crate) async fn erase(&self, id: &SessionId) -> Result<(), SessionsError> {
        in_time(self.0.backend.erase(id)).await?;
        // Else the next whole reading would write it down again.
        self.0.ended.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        Ok(())
    }

    async fn end_of(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError> {
        self.mark(id).await?;
        let (store, ended_sessions) = (&self.0.backend, [*id]);
        tokio::try_join!(store.remove(&ended_sessions), store.remove_meta(id, subject)).map(drop)
    }

    /// First for all, then here: what is ended here must not come back with a restart.
    async fn mark(&self, id: &SessionId) -> Result<(), SessionsError> {
        self.0.backend.revoke(id).await?;
        self.merge([*id]);
        Ok(())
    }

    fn merge(&self, ids: impl IntoIterator<Item = SessionId>) {
        let now = clock::now();
        let mut ended = self.0.ended.write().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            ended.entry(id).or_insert(now);
        }
    }

    fn is_revoked(&self, id: &SessionId) -> bool {
        self.0.ended.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Where a session stands; `now` in Unix seconds. Asks nobody: a set that was not read for a
    /// while cannot vouch for a session, and says so.
    pub(crate) fn status(&self, id: &SessionId, now: i64) -> Result<SessionStatus, SessionsError> {
        if id.expires_at() <= now || self.is_revoked(id) {
            return Ok(SessionStatus::Ended);
        }
        match &*self.0.read.load() {
            Some(read) if read.elapsed() < MAX_STALENESS => Ok(SessionStatus::Active),
            _ => Err(SessionsError::NotRead),
        }
    }

    /// Whose a minted session is; `None`: there is no note of it.
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

    /// Removes Flask's record of a session that is over, soon. Where there is too much to do the
    /// sweep does it.
    pub(crate) fn forget(&self, id: SessionId) {
        let _ = self.0.forget.try_send(id);
    }

    /// What will keep the store from letting us in before long.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.backend.trouble()
    }

    /// Whether the store is there.
    pub(crate) async fn ping(&self) -> Result<(), SessionsError> {
        in_time(self.0.backend.ping()).await
    }

    /// Reads the set of ended sessions now; for the start, before anybody is let in.
    pub(crate) async fn read_revocations(&self) -> Result<(), SessionsError> {
        self.read_on(&mut None).await
    }

    /// Reads on for ever; to be spawned.
    pub(crate) async fn sync_loop(self) {
        let mut ticks = interval(READ_ON);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cursor = None;
        let mut failures = 0;
        let mut read_whole = Instant::now();
        loop {
            ticks.tick().await;
            if read_whole.elapsed() > READ_AGAIN {
                cursor = None;
                read_whole = Instant::now();
            }
            match self.read_on(&mut cursor).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("the session store is back");
                    }
                    failures = 0;
                }
                Err(error) => {
                    // Whoever reconnects reads all of it.
                    cursor = None;
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(error = %telemetry::chain(&error), "the session store is away");
                    }
                    if failures % TOO_MANY_FAILURES == 0 {
                        self.0.backend.start_over();
                    }
                }
            }
        }
    }

    /// Sweeps for ever; to be spawned.
    pub(crate) async fn sweep_loop(self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(error = %telemetry::chain(&error), "sessions could not be swept");
            }
            // For the metric. That it failed is one as well.
            let _ = self.0.backend.count(clock::now()).await;
        }
    }

    async fn read_on(&self, cursor: &mut Option<Cursor>) -> Result<(), SessionsError> {
        let begun = Instant::now();
        let read = self.0.backend.ended(cursor.as_ref()).await?;
        *cursor = read.cursor;
        let lost = if read.is_whole { self.revocations_beyond(&read.ids) } else { Vec::new() };
        self.merge(read.ids);
        self.0.read.store(Some(Arc::new(begun)));
        // A store that lost its memory is told again, a little at a time: reading must go on.
        for id in lost.iter().take(REPORT_INTERVAL) {
            self.0.backend.revoke(id).await?;
        }
        if lost.len() > REPORT_INTERVAL {
            *cursor = None;
        }
        Ok(())
    }

    fn revocations_beyond(&self, stored: &[SessionId]) -> Vec<SessionId> {
        let stored: HashSet<_> = stored.iter().collect();
        let long_ago = clock::now() - LONG_AGO;
        let ended = self.0.ended.read().unwrap_or_else(PoisonError::into_inner);
        let matters = |id: &&SessionId| !stored.contains(id) && id.expires_at() >= long_ago;
        ended.keys().filter(matters).copied().collect()
    }

    async fn sweep(&self) -> Result<(), SessionsError> {
        let now = clock::now();
        let long_ago = now - LONG_AGO;
        let written_back: Vec<SessionId> = {
            let mut ended = self.0.ended.write().unwrap_or_else(PoisonError::into_inner);
            ended.retain(|id, _| id.expires_at() >= long_ago);
            ended.iter().filter(|(_, since)| **since >= long_ago).map(|(id, _)| *id).collect()
        };
        self.0.backend.remove(&written_back).await?;
        let over = self.0.backend.sweep(now, long_ago).await?;
        self.report_expired(&over, long_ago).await
    }
}

/// One after the other, so that nobody can make the store busy with cookies.
async fn remove_forgotten(
    backend: Arc<dyn SessionBackend>,
    mut forgotten: mpsc::Receiver<SessionId>,
) {
    while let Some(id) = forgotten.recv().await {
        if let Err(error) = backend.remove(&[id]).await {
            tracing::debug!(error = %telemetry::chain(&error), "a session that is over could not be removed");
        }
    }
}

async fn in_time<T>(
    work: impl Future<Output = Result<T, SessionsError>>,
) -> Result<T, SessionsError> {
    timeout(STORE_TIMEOUT, work).await.unwrap_or(Err(SessionsError::TimedOut))
}
