//! Sessions that came to their end by themselves, told once.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

use super::{Sessions, SessionsError, shelf::Note};
use crate::access::{policy::CANARY, session::SessionId};

/// Those that wait to be heard of; more are told with a later sweep.
const MOST_WAITING: usize = 1024;

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
    /// Unix milliseconds.
    pub(crate) expired_at: i64,
}

impl Expired {
    fn of(id: &SessionId, note: Note) -> Self {
        Self {
            handle: id.handle(),
            record_id: id.record_id("session_expired"),
            subject: note.subject,
            client: note.client,
            opened_at: note.opened_at,
            expired_at: id.expires_at().saturating_mul(1000),
        }
    }
}

/// Who is told, and of which he was told already.
#[derive(Debug)]
pub(super) struct Telling {
    sender: mpsc::Sender<Expired>,
    /// Until somebody takes it nothing is told.
    receiver: Mutex<Option<mpsc::Receiver<Expired>>>,
    /// Those of which there is nothing more to tell.
    told: Mutex<HashSet<SessionId>>,
}

impl Telling {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        Self { sender, receiver: Mutex::new(Some(receiver)), told: Mutex::default() }
    }

    fn has_listener(&self) -> bool {
        let untaken = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !untaken && !self.sender.is_closed()
    }

    fn has_told(&self, id: &SessionId) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    fn remember(&self, id: SessionId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    fn forget_before(&self, long_ago: i64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|id| id.expires_at() >= long_ago);
    }
}

impl Sessions {
    /// Where sessions are told of that expire from now on, and that expired a short while ago; given out
    /// once. Each is told once by this process; other instances, and a process that comes after this one,
    /// tell the same ones again, under the same [`Expired::record_id`].
    pub(crate) fn expired(&self) -> Option<mpsc::Receiver<Expired>> {
        self.0.telling.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Tells of those among sessions whose end has passed that were not ended before, as many as there
    /// is room for.
    pub(super) async fn tell_expired(
        &self,
        over: &[SessionId],
        long_ago: i64,
    ) -> Result<(), SessionsError> {
        let telling = &self.0.telling;
        telling.forget_before(long_ago);
        if !telling.has_listener() {
            return Ok(());
        }
        for id in over.iter().filter(|id| id.expires_at() >= long_ago) {
            if telling.has_told(id) {
                continue;
            }
            // What has no room now is told with a later sweep.
            let room = match telling.sender.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(()) | TrySendError::Closed(())) => return Ok(()),
            };
            // Whose note is gone, that was ended, perhaps elsewhere.
            let note = match self.0.shelf.note(id.id()).await {
                Err(SessionsError::Decoding) => None,
                note => note?.filter(|note| note.session_id() == *id && note.subject != CANARY),
            };
            if let Some(note) = note.filter(|_| !self.knows_as_ended(id)) {
                room.send(Expired::of(id, note));
            }
            telling.remember(*id);
        }
        Ok(())
    }
}
