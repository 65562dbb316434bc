//! What a store must be able to keep: Flask's records, and our notes about them.

mod azure;
mod cachelib;
mod disk;
pub(super) mod files;
pub(super) mod metrics;
pub(super) mod redis;
mod redis_connection;
mod redis_credentials;
pub(super) mod redis_fault;
mod redis_script;
mod reserve;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tower_sessions_core::session::Id;
use uuid::Uuid;

use super::{SessionsError, limits::Network};
use crate::{
    authz::session::SessionId,
    config::Limit,
    flask::{session_codec::SessionMembers, session_record::FlaskRecord},
};

/// What the gateway remembers of a session it minted; Flask never sees it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionMeta {
    /// tower-sessions' part of the id.
    #[serde(with = "id_as_text")]
    pub(crate) id: Id,
    /// Unix seconds.
    pub(crate) expires_at: i64,
    /// Unix milliseconds: logins of one second have an order too.
    pub(crate) opened_at: i64,
    /// Entra's object id.
    pub(crate) subject: Uuid,
    /// The client app's id.
    pub(crate) client: String,
    /// SHA-256 of the token it was minted from.
    pub(crate) token: String,
}

impl SessionMeta {
    /// The whole id.
    pub(crate) fn session_id(&self) -> SessionId {
        SessionId::new(self.id, self.expires_at)
    }
}

/// As its 22 characters: JSON has no numbers of 128 bits.
mod id_as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tower_sessions_core::session::Id;

    pub(super) fn serialize<S: Serializer>(id: &Id, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// How often may be logged in, and have failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    pub(super) logins: Option<Limit>,
    /// Failures from where it is tried.
    pub(super) failures: Option<(Limit, Network)>,
}

/// What became of a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// Stored.
    New {
        /// Sessions of the subject including this one, or more.
        subject_sessions: usize,
    },
    /// The id has metadata already.
    Taken,
    /// Too often: to be tried again after so long.
    TooOften(Duration),
}

/// Where reading the ended sessions left off; made and understood by a shelf alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor(pub(super) String);

/// Texts of the gateway's own that every instance reads until the database has what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Decisions in force.
    Decisions,
    /// Records of what was done.
    Records,
}

impl Waiting {
    /// In keys and as a folder's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decisions => "decisions",
            Self::Records => "records",
        }
    }
}

/// Ended sessions, as far as asked for.
#[derive(Debug)]
pub(super) struct Revoked {
    /// Their ids.
    pub(super) ids: Vec<SessionId>,
    /// Whether these are all there are, or those since the bookmark.
    pub(super) is_whole: bool,
    /// For the next time.
    pub(super) cursor: Option<Cursor>,
}

/// A part of the sessions whose end has not come.
#[derive(Debug)]
pub(super) struct Unexpired {
    /// Their ids.
    pub(super) ids: Vec<SessionId>,
    /// Whether there are no more after them.
    pub(super) is_last: bool,
}

/// A store. Whatever it answers `Ok` to is confirmed by the store itself.
#[async_trait]
pub(super) trait SessionBackend: std::fmt::Debug + Send + Sync + 'static {
    /// Writes Flask's record; false if there is one already, and nothing was written.
    async fn create(
        &self,
        id: &SessionId,
        session: &SessionMembers<'_>,
        now: i64,
    ) -> Result<bool, SessionsError>;
    /// What Flask's record under an id says, a minted one or one of its own; `None`: there is none.
    async fn record(&self, id: &str) -> Result<Option<FlaskRecord>, SessionsError>;
    /// Whether Flask's record is there, whatever it holds.
    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError>;
    /// Removes Flask's records; those that are gone already are passed over.
    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError>;

    /// Whether [`Self::add_note`] itself holds logins to the quota, for all instances together.
    fn counts_logins(&self) -> bool {
        false
    }
    /// Adds a note, if the quota has not been used up by all instances together.
    async fn add_meta(
        &self,
        meta: &SessionMeta,
        quota: &Quota,
        now: i64,
    ) -> Result<Added, SessionsError>;
    /// The note of an id; it is kept for a while after the session's end.
    async fn meta(&self, id: Id) -> Result<Option<SessionMeta>, SessionsError>;
    /// The sessions of a subject whose end has not come, oldest first.
    async fn sessions_of(&self, subject: Uuid, now: i64) -> Result<Vec<SessionId>, SessionsError>;
    /// Sessions whose end has not come, also such as were ended before: those that end last first, `most`
    /// of them after the first `skip`.
    async fn unexpired(
        &self,
        now: i64,
        skip: usize,
        max: usize,
    ) -> Result<Unexpired, SessionsError>;
    /// Removes a note.
    async fn remove_meta(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError>;

    /// Writes down, for all instances and across restarts, that a session has ended.
    async fn revoke(&self, id: &SessionId) -> Result<(), SessionsError>;
    /// The ended sessions, all of them or those since a bookmark.
    async fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError>;

    /// Counts a login that failed, for all instances together; how long to wait when it is one too many.
    /// A store that only one instance has need not.
    async fn count_failure(
        &self,
        _from: Network,
        _limit: Limit,
    ) -> Result<Option<Duration>, SessionsError> {
        Ok(None)
    }

    /// Takes out what [`Self::mark_ended`] wrote down about a session, and what was kept for the sweep.
    async fn erase(&self, id: &SessionId) -> Result<(), SessionsError>;

    /// Removes Flask's records of sessions whose end has passed, and, once no request of theirs can
    /// be in flight any more (`forget_before`, Unix seconds), what was noted about them. Which those are.
    async fn sweep(&self, now: i64, forget_before: i64) -> Result<Vec<SessionId>, SessionsError>;
    /// How many sessions there are whose end has not come.
    async fn count(&self, now: i64) -> Result<u64, SessionsError>;
    /// Writes down that an instance is there, with its database; all that were since `since` (Unix
    /// seconds), this one among them.
    async fn register(
        &self,
        instance: &str,
        database: &str,
        now: i64,
        since: i64,
    ) -> Result<Vec<(String, String)>, SessionsError>;
    /// Adds a text to those that wait; again is harmless. `now` in Unix seconds.
    async fn add_waiting(&self, of: Waiting, text: &str, now: i64) -> Result<(), SessionsError>;
    /// Texts that wait, `most` of them.
    async fn waiting(&self, of: Waiting, max: usize) -> Result<Vec<String>, SessionsError>;
    /// Removes a text from those that wait.
    async fn remove_waiting(&self, of: Waiting, text: &str) -> Result<(), SessionsError>;
    /// Drops its connection and makes a new one, if it has any: this one answers no more.
    fn reconnect(&self) {}
    /// What will keep the store from letting us in before long.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// Whether the store is there.
    async fn ping(&self) -> Result<(), SessionsError>;
}
