//! Revocation list: ids of ended sessions, held in memory and shared through the store.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{RETENTION, Sessions, SessionsError, backend::Cursor};
use crate::{authz::session::SessionId, clock, telemetry};

/// Interval at which additions to the list are read.
const READ_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which the whole list is read.
const FULL_READ_INTERVAL: Duration = Duration::from_mins(1);
/// Maximum age of the revocation list; when older, minted sessions get 503.
const MAX_STALENESS: Duration = Duration::from_secs(5);
/// Failed reads in a row after which the connection is replaced.
const RECONNECT_AFTER: u32 = 3;
/// Revocations written back per read to a store that lost them.
const WRITE_BACK_BATCH: usize = 100;

/// State of a minted session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionStatus {
    /// Neither expired nor revoked. The store may hold no record of it: upstream finds out.
    Active,
    /// Expired or revoked.
    Ended,
}

/// The list in memory.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// Revoked sessions, with the time at which this instance learned of it (Unix seconds).
    revoked: RwLock<HashMap<SessionId, i64>>,
    /// Begin of the last read that succeeded.
    read_at: ArcSwapOption<Instant>,
}

impl Revocations {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<SessionId, i64>> {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<SessionId, i64>> {
        self.revoked.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds ids; `now` in Unix seconds.
    pub(super) fn merge(&self, ids: impl IntoIterator<Item = SessionId>, now: i64) {
        let mut revoked = self.write();
        for id in ids {
            revoked.entry(id).or_insert(now);
        }
    }

    pub(super) fn contains(&self, id: &SessionId) -> bool {
        self.read().contains_key(id)
    }

    pub(super) fn remove(&self, id: &SessionId) {
        self.write().remove(id);
    }

    /// True after the first read from the store.
    pub(super) fn was_read(&self) -> bool {
        self.read_at.load().is_some()
    }

    fn is_stale(&self) -> bool {
        self.read_at.load().as_ref().is_none_or(|read_at| read_at.elapsed() >= MAX_STALENESS)
    }

    /// Ids that the store lacks, without those that expired before `forget_before` (Unix seconds).
    fn missing_in(&self, stored: &[SessionId], forget_before: i64) -> Vec<SessionId> {
        let stored: HashSet<_> = stored.iter().collect();
        let is_missing = |id: &&SessionId| !stored.contains(id) && id.expires_at() >= forget_before;
        self.read().keys().filter(is_missing).copied().collect()
    }

    /// Drops ids that expired before `forget_before` (Unix seconds), and returns those that arrived since.
    pub(super) fn prune(&self, forget_before: i64) -> Vec<SessionId> {
        let mut revoked = self.write();
        revoked.retain(|id, _| id.expires_at() >= forget_before);
        revoked.iter().filter(|(_, since)| **since >= forget_before).map(|(id, _)| *id).collect()
    }
}

impl Sessions {
    /// Status of a session; `now` in Unix seconds. Makes no request. [`SessionsError::NotRead`] when the list
    /// is older than [`MAX_STALENESS`].
    pub(crate) fn status(&self, id: &SessionId, now: i64) -> Result<SessionStatus, SessionsError> {
        if id.expires_at() <= now || self.is_revoked(id) {
            return Ok(SessionStatus::Ended);
        }
        if self.0.revocations.is_stale() {
            return Err(SessionsError::NotRead);
        }
        Ok(SessionStatus::Active)
    }

    pub(super) fn is_revoked(&self, id: &SessionId) -> bool {
        self.0.revocations.contains(id)
    }

    /// Revokes a session: in the store first, so that a restart does not undo it.
    pub(super) async fn revoke(&self, id: &SessionId) -> Result<(), SessionsError> {
        self.0.backend.revoke(id).await?;
        self.revoke_here(*id);
        Ok(())
    }

    /// Revokes a session on this instance; the next full read writes it to the store.
    pub(super) fn revoke_here(&self, id: SessionId) {
        self.0.revocations.merge([id], clock::now());
    }

    /// Reads the whole list once; at the start, before the first request is served.
    pub(crate) async fn read_revocations(&self) -> Result<(), SessionsError> {
        self.sync(&mut None).await
    }

    /// Reads the list for as long as the process runs; to be spawned.
    pub(crate) async fn sync_loop(self) {
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut cursor = None;
        let mut failures = 0;
        let mut full_read_at = Instant::now();
        loop {
            ticks.tick().await;
            if full_read_at.elapsed() > FULL_READ_INTERVAL {
                cursor = None;
                full_read_at = Instant::now();
            }
            match self.sync(&mut cursor).await {
                Ok(()) => {
                    if failures > 0 {
                        tracing::info!("the session store is available again");
                    }
                    failures = 0;
                }
                Err(error) => {
                    // After an outage the whole list is read.
                    cursor = None;
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(error = %telemetry::chain(&error), "the session store is unavailable");
                    }
                    if failures % RECONNECT_AFTER == 0 {
                        self.0.backend.reconnect();
                    }
                }
            }
        }
    }

    /// Reads additions since `cursor`, or the whole list, and writes back what the store lost.
    async fn sync(&self, cursor: &mut Option<Cursor>) -> Result<(), SessionsError> {
        let begun = Instant::now();
        let read = self.0.backend.revoked(cursor.as_ref()).await?;
        *cursor = read.cursor;
        let now = clock::now();
        let revocations = &self.0.revocations;
        let lost = if read.is_whole {
            revocations.missing_in(&read.ids, now - RETENTION)
        } else {
            Vec::new()
        };
        revocations.merge(read.ids, now);
        revocations.read_at.store(Some(Arc::new(begun)));
        // In batches: reading must go on.
        for id in lost.iter().take(WRITE_BACK_BATCH) {
            self.0.backend.revoke(id).await?;
        }
        if lost.len() > WRITE_BACK_BATCH {
            *cursor = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tower_sessions_core::session::Id;

    use super::*;

    fn id(bits: i128, expires_at: i64) -> SessionId {
        SessionId::new(Id(bits), expires_at)
    }

    #[test]
    fn merging_keeps_the_time_of_the_first_arrival() {
        let revocations = Revocations::default();
        let (old, new) = (id(1, 9_000), id(2, 9_000));
        revocations.merge([old], 1_000);
        revocations.merge([old, new], 2_000);
        assert!(revocations.contains(&old) && revocations.contains(&new));
        assert_eq!(revocations.prune(1_500), [new]);
        assert!(revocations.contains(&old), "not expired yet");
        revocations.remove(&old);
        assert!(!revocations.contains(&old));
    }

    #[test]
    fn pruning_drops_expired_ids_alone() {
        let revocations = Revocations::default();
        let (over, live) = (id(1, 999), id(2, 1_000));
        revocations.merge([over, live], 900);
        assert_eq!(revocations.prune(1_000), []);
        assert!(!revocations.contains(&over) && revocations.contains(&live));
    }

    #[test]
    fn ids_that_the_store_lost_are_found() {
        let revocations = Revocations::default();
        let (stored, lost, over) = (id(1, 9_000), id(2, 9_000), id(3, 999));
        revocations.merge([stored, lost, over], 900);
        assert_eq!(revocations.missing_in(&[stored], 1_000), [lost]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_stale_until_read_and_five_seconds_after() {
        let revocations = Revocations::default();
        assert!(revocations.is_stale() && !revocations.was_read());
        revocations.read_at.store(Some(Arc::new(Instant::now())));
        assert!(!revocations.is_stale() && revocations.was_read());
        tokio::time::advance(MAX_STALENESS).await;
        assert!(revocations.is_stale());
    }
}
