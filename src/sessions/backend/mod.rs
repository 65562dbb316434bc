//! Session backends: storage of Flask's records and of the gateway's own data.

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

/// Metadata of a minted session. Flask does not read it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionMeta {
    /// tower-sessions' part of the session id.
    #[serde(with = "id_as_text")]
    pub(crate) id: Id,
    /// Unix seconds.
    pub(crate) expires_at: i64,
    /// Unix milliseconds, so that logins of one second have an order.
    pub(crate) opened_at: i64,
    /// Entra's object id.
    pub(crate) subject: Uuid,
    /// The client app's id.
    pub(crate) client: String,
    /// SHA-256 of the token that the session was minted from.
    pub(crate) token: String,
}

impl SessionMeta {
    /// The whole session id.
    pub(crate) fn session_id(&self) -> SessionId {
        SessionId::new(self.id, self.expires_at)
    }
}

/// Serializes an id as its 22 characters: JSON has no 128-bit numbers.
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

/// Login limits that a new session must respect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    pub(super) logins: Option<Limit>,
    /// Failures from the caller's network.
    pub(super) failures: Option<(Limit, Network)>,
}

/// Result of [`SessionBackend::add_meta`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// Stored.
    New {
        /// Sessions of the subject including this one, or more.
        subject_sessions: usize,
    },
    /// The id has metadata already.
    Taken,
    /// A limit is reached; retry after this time.
    TooOften(Duration),
}

/// Position in the revocation list. Opaque outside the backend that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor(pub(super) String);

/// Kinds of texts that every instance reads until the database has stored their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outbox {
    /// Decisions in force.
    Decisions,
    /// Activity records.
    Records,
}

impl Outbox {
    /// Part of the key, and name of the folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decisions => "decisions",
            Self::Records => "records",
        }
    }
}

/// Revoked sessions read from the store.
#[derive(Debug)]
pub(super) struct Revoked {
    pub(super) ids: Vec<SessionId>,
    /// True for the whole list, false for additions since the cursor.
    pub(super) is_whole: bool,
    /// Position for the next read.
    pub(super) cursor: Option<Cursor>,
}

/// A page of the sessions that have not expired.
#[derive(Debug)]
pub(super) struct Unexpired {
    pub(super) ids: Vec<SessionId>,
    /// True if no further page follows.
    pub(super) is_last: bool,
}

/// A session store. `Ok` means that the store itself has confirmed the operation.
#[async_trait]
pub(super) trait SessionBackend: std::fmt::Debug + Send + Sync + 'static {
    /// Writes Flask's record; false if there is one already, and nothing was written.
    async fn create(
        &self,
        id: &SessionId,
        session: &SessionMembers<'_>,
        now: i64,
    ) -> Result<bool, SessionsError>;
    /// Reads Flask's record under an id, minted or Flask's own; `None` when there is none.
    async fn record(&self, id: &str) -> Result<Option<FlaskRecord>, SessionsError>;
    /// True if Flask's record exists, even a malformed one.
    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError>;
    /// Removes Flask's records; missing ones are skipped.
    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError>;

    /// True if [`Self::add_meta`] enforces the quota for all instances together.
    fn counts_logins(&self) -> bool {
        false
    }
    /// Adds metadata, unless the quota is used up.
    async fn add_meta(
        &self,
        meta: &SessionMeta,
        quota: &Quota,
        now: i64,
    ) -> Result<Added, SessionsError>;
    /// Reads metadata; it outlives its session by about 20 minutes.
    async fn meta(&self, id: Id) -> Result<Option<SessionMeta>, SessionsError>;
    /// Sessions of a subject that have not expired, oldest first.
    async fn sessions_of(&self, subject: Uuid, now: i64) -> Result<Vec<SessionId>, SessionsError>;
    /// Sessions that have not expired, revoked ones included, latest expiry first: up to `max` after the first
    /// `skip`.
    async fn unexpired(
        &self,
        now: i64,
        skip: usize,
        max: usize,
    ) -> Result<Unexpired, SessionsError>;
    /// Removes metadata.
    async fn remove_meta(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError>;

    /// Adds a session to the revocation list, for all instances and across restarts.
    async fn revoke(&self, id: &SessionId) -> Result<(), SessionsError>;
    /// Reads the revocation list: all of it, or additions since a cursor.
    async fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError>;

    /// Counts a failed login for all instances together; returns the wait when it exceeds the limit. A backend of
    /// a single instance does not count.
    async fn count_failure(
        &self,
        _from: Network,
        _limit: Limit,
    ) -> Result<Option<Duration>, SessionsError> {
        Ok(None)
    }

    /// Removes a session from the revocation list and from the sweep's index.
    async fn erase(&self, id: &SessionId) -> Result<(), SessionsError>;

    /// Removes Flask's records of expired sessions and returns their ids. Of those that expired before
    /// `forget_before` (Unix seconds) metadata and revocations are removed as well.
    async fn sweep(&self, now: i64, forget_before: i64) -> Result<Vec<SessionId>, SessionsError>;
    /// Number of sessions that have not expired.
    async fn count(&self, now: i64) -> Result<u64, SessionsError>;
    /// Records a heartbeat of an instance with its database; returns all instances with a heartbeat since `since`
    /// (Unix seconds), this one included.
    async fn register(
        &self,
        instance: &str,
        database: &str,
        now: i64,
        since: i64,
    ) -> Result<Vec<(String, String)>, SessionsError>;
    /// Adds a waiting text. Idempotent. `now` in Unix seconds.
    async fn add_waiting(&self, of: Outbox, text: &str, now: i64) -> Result<(), SessionsError>;
    /// Reads up to `max` waiting texts.
    async fn waiting(&self, of: Outbox, max: usize) -> Result<Vec<String>, SessionsError>;
    /// Removes a waiting text.
    async fn remove_waiting(&self, of: Outbox, text: &str) -> Result<(), SessionsError>;
    /// Replaces the connection, if the backend has one.
    fn reconnect(&self) {}
    /// Reason why the store will refuse the gateway before long.
    fn warning(&self) -> Option<String> {
        None
    }
    /// Checks that the store answers.
    async fn ping(&self) -> Result<(), SessionsError>;
}
