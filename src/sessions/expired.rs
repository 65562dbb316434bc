//! Events of sessions that expired without being ended, sent once.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

use super::{Sessions, SessionsError, backend::SessionMeta, error::malformed_as_none};
use crate::authz::{policy::CANARY, session::SessionId};

/// Capacity of the event channel; a later sweep sends the rest.
const CAPACITY: usize = 1024;

/// A session that expired, and had not been ended before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expired {
    /// [`SessionId::handle`].
    pub(crate) handle: String,
    /// Equal for every event of this session, of any instance.
    pub(crate) record_id: Uuid,
    /// Entra's object id.
    pub(crate) subject: Uuid,
    /// The client app's id.
    pub(crate) client: String,
    /// Unix milliseconds.
    pub(crate) opened_at: i64,
    /// Expiry, in Unix milliseconds.
    pub(crate) at: i64,
}

impl Expired {
    fn of(id: &SessionId, meta: SessionMeta) -> Self {
        Self {
            handle: id.handle(),
            record_id: id.record_id("session_expired"),
            subject: meta.subject,
            client: meta.client,
            opened_at: meta.opened_at,
            at: id.expires_at().saturating_mul(1000),
        }
    }
}

/// Channel of expiry events, and the sessions already reported.
#[derive(Debug)]
pub(super) struct ExpiryEvents {
    sender: mpsc::Sender<Expired>,
    /// Nothing is sent until the receiver is taken.
    receiver: Mutex<Option<mpsc::Receiver<Expired>>>,
    /// Sessions that need no further event.
    reported: Mutex<HashSet<SessionId>>,
}

impl ExpiryEvents {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        Self { sender, receiver: Mutex::new(Some(receiver)), reported: Mutex::default() }
    }

    fn has_receiver(&self) -> bool {
        let is_untaken = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !is_untaken && !self.sender.is_closed()
    }

    fn is_reported(&self, id: &SessionId) -> bool {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    fn remember(&self, id: SessionId) {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn forget_before(&self, forget_before: i64) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.retain(|id| id.expires_at() >= forget_before);
    }
}

impl Sessions {
    /// Receiver of the sessions that expire from now on or expired up to 20 minutes ago; `None` after the first call.
    /// This process sends each session once. Other instances and later processes send it again, under the same
    /// [`Expired::record_id`].
    pub(crate) fn expired(&self) -> Option<mpsc::Receiver<Expired>> {
        self.0.expiry_events.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends events for those of the expired sessions that were not ended, as many as the channel admits.
    pub(super) async fn report_expired(
        &self,
        expired: &[SessionId],
        forget_before: i64,
    ) -> Result<(), SessionsError> {
        let events = &self.0.expiry_events;
        events.forget_before(forget_before);
        if !events.has_receiver() {
            return Ok(());
        }
        for id in expired.iter().filter(|id| id.expires_at() >= forget_before) {
            if events.is_reported(id) {
                continue;
            }
            // A later sweep sends the rest.
            let permit = match events.sender.try_reserve() {
                Ok(permit) => permit,
                Err(TrySendError::Full(()) | TrySendError::Closed(())) => return Ok(()),
            };
            // Without metadata the session was ended, perhaps by another instance.
            let meta = malformed_as_none(self.0.backend.meta(id.id()).await)?;
            let meta = meta.filter(|meta| meta.session_id() == *id && meta.subject != CANARY);
            if let Some(meta) = meta.filter(|_| !self.is_revoked(id)) {
                permit.send(Expired::of(id, meta));
            }
            events.remember(*id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock,
        sessions::{
            RETENTION,
            test_support::{folders, instance, put},
        },
    };

    const ZOE: Uuid = Uuid::from_u128(1);

    fn received(reported: &mut mpsc::Receiver<Expired>) -> Vec<Expired> {
        std::iter::from_fn(|| reported.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn an_expired_session_is_reported_once() {
        let folders = folders();
        let sessions = instance(folders.path());
        let id = put(&sessions, (ZOE, "app"), 1_000, -5).await;
        put(&sessions, (ZOE, "app"), 1_000, 900).await;
        put(&sessions, (CANARY, "canary"), 1_000, -5).await;
        let ended = put(&sessions, (ZOE, "app"), 1_000, -5).await;
        sessions.end_of(&ended, ZOE).await.unwrap();
        let ended_elsewhere = put(&sessions, (ZOE, "app"), 1_000, -5).await;
        instance(folders.path()).revoke(&ended_elsewhere).await.unwrap();

        // Without a receiver nothing is lost.
        sessions.read_revocations().await.unwrap();
        sessions.sweep().await.unwrap();
        let mut reported = sessions.expired().unwrap();
        assert!(sessions.expired().is_none(), "a second call returns none");
        sessions.sweep().await.unwrap();
        sessions.sweep().await.unwrap();
        let events = received(&mut reported);
        let [expired] = &events[..] else { panic!("{events:?}") };
        assert_eq!((&expired.handle, expired.subject), (&id.handle(), ZOE));
        assert_eq!((&*expired.client, expired.opened_at), ("app", 1_000));
        assert_eq!(expired.at, id.expires_at() * 1000);

        // Another process sends the same event under the same record id.
        let another = instance(folders.path());
        let mut reported = another.expired().unwrap();
        another.read_revocations().await.unwrap();
        another.sweep().await.unwrap();
        assert_eq!(received(&mut reported), events);
    }

    #[tokio::test]
    async fn events_beyond_the_capacity_are_sent_by_a_later_sweep() {
        let folders = folders();
        let sessions = instance(folders.path());
        let mut reported = sessions.expired().unwrap();
        let (first, second) =
            (put(&sessions, (ZOE, "app"), 1, -5).await, put(&sessions, (ZOE, "app"), 2, -6).await);
        let permits = sessions.0.expiry_events.sender.reserve_many(CAPACITY - 1).await.unwrap();
        sessions.sweep().await.unwrap();
        let one = received(&mut reported);
        assert_eq!(one.len(), 1);
        drop(permits);
        sessions.sweep().await.unwrap();
        let other = received(&mut reported);
        let mut both: Vec<_> = one.into_iter().chain(other).map(|one| one.handle).collect();
        both.sort();
        let mut expected = [first.handle(), second.handle()];
        expected.sort();
        assert_eq!(both, expected);
    }

    #[tokio::test]
    async fn metadata_outlives_its_session_without_being_a_session() {
        let folders = folders();
        let sessions = instance(folders.path());
        let expired = put(&sessions, (ZOE, "app"), 1, -5).await;
        sessions.sweep().await.unwrap();
        assert!(sessions.0.backend.meta(expired.id()).await.unwrap().is_some());
        assert_eq!(sessions.subject_of(&expired).await.unwrap(), None);
        let long_expired = put(&sessions, (ZOE, "app"), 1, -RETENTION - 5).await;
        sessions.sweep().await.unwrap();
        assert!(sessions.0.backend.meta(long_expired.id()).await.unwrap().is_none());
    }

    #[test]
    fn record_ids_are_derived_from_the_whole_session_id() {
        let of = |end| {
            SessionId::new(tower_sessions_core::session::Id(0), end).record_id("session_expired")
        };
        // printf session_expired:AAAAAAAAAAAAAAAAAAAAAA.1795384800 | sha256sum
        assert_eq!(of(1_795_384_800).to_string(), "1cde9912-f551-81af-9ef7-ff6c7d240417");
        assert_ne!(of(1_795_384_800), of(1_795_384_801));
        assert_eq!(of(clock::now()).get_version_num(), 8);
    }
}
