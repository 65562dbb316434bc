//! Sessions that came to their end by themselves, told once.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

use super::{Sessions, SessionsError, backend::SessionMeta, error::malformed_as_none};
use crate::authz::{policy::CANARY, session::SessionId};

/// Those that wait to be heard of; more are told with a later sweep.
const MAX_WAITING: usize = 1024;

/// A session whose end has passed, and that nobody had ended before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expired {
    /// [`SessionId::handle`].
    pub(crate) handle: String,
    /// Whoever tells of this session, and however often, gives the same.
    pub(crate) record_id: Uuid,
    /// Entra's object id.
    pub(crate) subject: Uuid,
    /// The client app's id.
    pub(crate) client: String,
    /// Unix milliseconds.
    pub(crate) opened_at: i64,
    /// When it expired, in Unix milliseconds.
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

/// Who is told, and of which he was told already.
#[derive(Debug)]
pub(super) struct ExpiryEvents {
    sender: mpsc::Sender<Expired>,
    /// Until somebody takes it nothing is told.
    receiver: Mutex<Option<mpsc::Receiver<Expired>>>,
    /// Those of which there is nothing more to tell.
    reported: Mutex<HashSet<SessionId>>,
}

impl ExpiryEvents {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        Self { sender, receiver: Mutex::new(Some(receiver)), reported: Mutex::default() }
    }

    fn has_listener(&self) -> bool {
        let untaken = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !untaken && !self.sender.is_closed()
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
    /// Where sessions are told of that expire from now on, and that expired a short while ago; given out
    /// once. Each is told once by this process; other instances, and a process that comes after this one,
    /// tell the same ones again, under the same [`Expired::record_id`].
    pub(crate) fn expired(&self) -> Option<mpsc::Receiver<Expired>> {
        self.0.expiry_events.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells of those among sessions whose end has passed that were not ended before, as many as there
    /// is room for.
    pub(super) async fn report_expired(
        &self,
        over: &[SessionId],
        forget_before: i64,
    ) -> Result<(), SessionsError> {
        let events = &self.0.expiry_events;
        events.forget_before(forget_before);
        if !events.has_listener() {
            return Ok(());
        }
        for id in over.iter().filter(|id| id.expires_at() >= forget_before) {
            if events.is_reported(id) {
                continue;
            }
            // What has no room now is told with a later sweep.
            let room = match events.sender.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(()) | TrySendError::Closed(())) => return Ok(()),
            };
            // Whose note is gone, that was ended, perhaps elsewhere.
            let meta = malformed_as_none(self.0.backend.meta(id.id()).await)?;
            let meta = meta.filter(|meta| meta.session_id() == *id && meta.subject != CANARY);
            if let Some(meta) = meta.filter(|_| !self.is_revoked(id)) {
                room.send(Expired::of(id, meta));
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
    async fn a_session_that_expires_is_told_once() {
        let folders = folders();
        let sessions = instance(folders.path());
        let id = put(&sessions, (ZOE, "app"), 1_000, -5).await;
        put(&sessions, (ZOE, "app"), 1_000, 900).await;
        put(&sessions, (CANARY, "canary"), 1_000, -5).await;
        let ended = put(&sessions, (ZOE, "app"), 1_000, -5).await;
        sessions.end_of(&ended, ZOE).await.unwrap();
        let ended_elsewhere = put(&sessions, (ZOE, "app"), 1_000, -5).await;
        instance(folders.path()).revoke(&ended_elsewhere).await.unwrap();

        // Nobody listens yet, and nothing is lost.
        sessions.read_revocations().await.unwrap();
        sessions.sweep().await.unwrap();
        let mut reported = sessions.expired().unwrap();
        assert!(sessions.expired().is_none(), "given out once");
        sessions.sweep().await.unwrap();
        sessions.sweep().await.unwrap();
        let events = received(&mut reported);
        let [expired] = &events[..] else { panic!("{events:?}") };
        assert_eq!((&expired.handle, expired.subject), (&id.handle(), ZOE));
        assert_eq!((&*expired.client, expired.opened_at), ("app", 1_000));
        assert_eq!(expired.at, id.expires_at() * 1000);

        // Another process tells the same, by the same name.
        let another = instance(folders.path());
        let mut reported = another.expired().unwrap();
        another.read_revocations().await.unwrap();
        another.sweep().await.unwrap();
        assert_eq!(received(&mut reported), events);
    }

    #[tokio::test]
    async fn what_has_no_room_is_told_later() {
        let folders = folders();
        let sessions = instance(folders.path());
        let mut reported = sessions.expired().unwrap();
        let (first, second) =
            (put(&sessions, (ZOE, "app"), 1, -5).await, put(&sessions, (ZOE, "app"), 2, -6).await);
        let crowd = sessions.0.expiry_events.sender.reserve_many(MAX_WAITING - 1).await.unwrap();
        sessions.sweep().await.unwrap();
        let one = received(&mut reported);
        assert_eq!(one.len(), 1);
        drop(crowd);
        sessions.sweep().await.unwrap();
        let other = received(&mut reported);
        let mut both: Vec<_> = one.into_iter().chain(other).map(|one| one.handle).collect();
        both.sort();
        let mut expected = [first.handle(), second.handle()];
        expected.sort();
        assert_eq!(both, expected);
    }

    #[tokio::test]
    async fn a_note_outlives_its_session_but_is_no_session() {
        let folders = folders();
        let sessions = instance(folders.path());
        let over = put(&sessions, (ZOE, "app"), 1, -5).await;
        sessions.sweep().await.unwrap();
        assert!(sessions.0.backend.meta(over.id()).await.unwrap().is_some());
        assert_eq!(sessions.subject_of(&over).await.unwrap(), None);
        let long_over = put(&sessions, (ZOE, "app"), 1, -RETENTION - 5).await;
        sessions.sweep().await.unwrap();
        assert!(sessions.0.backend.meta(long_over.id()).await.unwrap().is_none());
    }

    #[test]
    fn a_record_id_is_a_session_ids_own() {
        let of = |end| {
            SessionId::new(tower_sessions_core::session::Id(0), end).record_id("session_expired")
        };
        // printf session_expired:AAAAAAAAAAAAAAAAAAAAAA.1795384800 | sha256sum
        assert_eq!(of(1_795_384_800).to_string(), "1cde9912-f551-81af-9ef7-ff6c7d240417");
        assert_ne!(of(1_795_384_800), of(1_795_384_801));
        assert_eq!(of(clock::now()).get_version_num(), 8);
    }
}
