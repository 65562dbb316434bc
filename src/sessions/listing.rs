//! Listing of live minted sessions for administrators, and bulk ending.

use std::{
    cmp::Reverse,
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{Stream, StreamExt, TryStreamExt, future::ready, stream};
use uuid::Uuid;

use super::{
    Sessions, SessionsError,
    backend::{SessionBackend, Unexpired},
    error::malformed_as_none,
    in_time,
};
use crate::{
    authz::{policy::CANARY, session::SessionId},
    clock,
    flask::{FormatError, session_record::FlaskRecord},
    telemetry,
};

/// Ids read together, minimum and maximum.
const BATCH: (usize, usize) = (50, 500);
/// Operations in flight: enough to hide the store's latency, few enough not to delay callers.
const CONCURRENCY: usize = 32;
/// Failures in one batch after which no further operation is begun: the store is unavailable.
const MAX_FAILURES: usize = 32;
/// Failures in all batches after which no further batch is begun.
const MAX_FAILURES_IN_ALL: usize = 50;

/// A live minted session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: SessionId,
    /// Entra's object id; nil when neither metadata nor record holds it.
    pub(crate) subject: Uuid,
    /// The client app's id.
    pub(crate) client: String,
    /// Unix milliseconds; 0 when the metadata is lost.
    pub(crate) opened_at: i64,
    /// Flask's `last_activity_epoch`, in Unix milliseconds.
    pub(crate) last_activity: Option<i64>,
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
}

/// Selection of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Sessions of a user or a service.
    Subject(Uuid),
    /// Sessions of a client app, by its id in any case.
    Client(String),
    /// One session, by its handle or its whole id.
    Handle(String),
}

impl Which {
    /// True if a session of this subject and client can be selected. Canaries never are.
    fn includes(&self, subject: Uuid, client: &str) -> bool {
        subject != CANARY
            && match self {
                Self::Subject(selected) => *selected == subject,
                Self::Client(selected) => selected.eq_ignore_ascii_case(client),
                Self::All | Self::Handle(_) => true,
            }
    }

    fn includes_id(&self, id: &SessionId) -> bool {
        match self {
            Self::Handle(text) => id.to_string() == *text || id.handle() == *text,
            Self::All | Self::Subject(_) | Self::Client(_) => true,
        }
    }
}

/// A session that has neither expired nor been ended.
struct LiveSession {
    listed: Listed,
    /// False if Flask's record is missing; upstream then treats the caller as anonymous.
    has_record: bool,
}

/// Result of a selection.
struct Matches {
    found: Vec<LiveSession>,
    /// Failure that may have hidden further sessions.
    failure: Option<SessionsError>,
}

/// Results of work on many items, [`CONCURRENCY`] at a time and in any order. After [`MAX_FAILURES`] failures
/// no further item is begun.
fn each<T, R, F>(
    items: Vec<T>,
    work: impl FnMut(T) -> F,
) -> impl Stream<Item = Result<R, SessionsError>>
where
    F: Future<Output = Result<R, SessionsError>>,
{
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failures);
    stream::iter(items)
        .take_while(move |_| ready(failures.load(Ordering::Relaxed) < MAX_FAILURES))
        .map(work)
        .buffer_unordered(CONCURRENCY)
        .inspect_err(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        })
}

impl Sessions {
    /// Number of minted sessions that have not expired; in Redis it includes revoked ones.
    pub(crate) async fn count(&self) -> Result<u64, SessionsError> {
        in_time(self.0.backend.count(clock::now())).await
    }

    /// Live minted sessions without canaries, newest first. Where there are many more than `limit`, the
    /// selection is made among those that expire last: the others are not read.
    pub(crate) async fn list(
        &self,
        which: &Which,
        limit: usize,
    ) -> Result<Vec<Listed>, SessionsError> {
        let Matches { found, failure } = self.select(which, limit, |live| live.has_record).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        let mut listed: Vec<_> = found.into_iter().map(|live| live.listed).collect();
        listed.sort_by_cached_key(|listed| (Reverse(listed.opened_at), listed.id.to_string()));
        listed.truncate(limit);
        Ok(listed)
    }

    /// Sessions that have neither expired nor been ended, also those without a record of Flask's; and the
    /// failure that may have hidden further ones.
    pub(crate) async fn unended(&self, which: &Which) -> (Vec<Listed>, Option<SessionsError>) {
        match self.select(which, usize::MAX, |_| true).await {
            Ok(Matches { found, failure }) => {
                (found.into_iter().map(|live| live.listed).collect(), failure)
            }
            Err(error) => (Vec::new(), Some(error)),
        }
    }

    /// Ends any number of sessions; returns how many were ended, and the last failure.
    pub(crate) async fn end_these(&self, listed: Vec<Listed>) -> (usize, Option<SessionsError>) {
        let (mut ended, mut failure) = (0, None);
        let mut results = std::pin::pin!(each(listed, |listed| self.end_listed(listed)));
        while let Some(result) = results.next().await {
            match result {
                Ok(()) => ended += 1,
                Err(error) => failure = Some(error),
            }
        }
        (ended, failure)
    }

    /// The revocation ends a session; a failed removal is left to the sweep.
    async fn end_listed(&self, listed: Listed) -> Result<(), SessionsError> {
        let id = listed.id;
        self.revoke(&id).await?;
        let (backend, ids) = (&self.0.backend, [id]);
        let removed =
            tokio::try_join!(backend.remove(&ids), backend.remove_meta(&id, listed.subject));
        if let Err(error) = removed {
            tracing::debug!(error = %telemetry::chain(&error), "an ended session is left to the sweep");
        }
        Ok(())
    }

    /// Selected sessions, `limit` of them or a few more; fewer when the store fails.
    async fn select(
        &self,
        which: &Which,
        limit: usize,
        is_wanted: impl Fn(&LiveSession) -> bool,
    ) -> Result<Matches, SessionsError> {
        // Before the first read, revoked sessions would be listed.
        if !self.0.revocations.was_read() {
            self.read_revocations().await?;
        }
        let now = clock::now();
        let mut known = HashSet::new();
        let (mut found, mut failure, mut failures) = (Vec::new(), None, 0);
        let batch = match which {
            Which::All => limit.clamp(BATCH.0, BATCH.1),
            _ => BATCH.1,
        };
        let mut skip = 0;
        loop {
            let (ids, is_last) = match which {
                Which::Subject(subject) => (self.0.backend.sessions_of(*subject, now).await?, true),
                Which::Handle(text) if SessionId::parse(text).is_some() => {
                    (SessionId::parse(text).into_iter().collect(), true)
                }
                Which::All | Which::Client(_) | Which::Handle(_) => {
                    let Unexpired { ids, is_last } =
                        self.0.backend.unexpired(now, skip, batch).await?;
                    (ids, is_last)
                }
            };
            skip += batch;
            let mut ids: Vec<_> = ids
                .into_iter()
                .filter(|id| id.expires_at() > now && which.includes_id(id))
                .filter(|id| !self.is_revoked(id) && known.insert(*id))
                .collect();
            // Backends differ in their order.
            ids.sort_by_key(|id| Reverse(id.expires_at()));
            let mut results = std::pin::pin!(each(ids, |id| look_up(&*self.0.backend, id, which)));
            while let Some(result) = results.next().await {
                match result {
                    Ok(live) => found.extend(live.filter(&is_wanted)),
                    Err(error) => {
                        failure = Some(error);
                        failures += 1;
                    }
                }
            }
            if is_last
                || failures >= MAX_FAILURES_IN_ALL
                || found.len() >= limit
                || (matches!(which, Which::Handle(_)) && !found.is_empty())
            {
                return Ok(Matches { found, failure });
            }
        }
    }
}

/// Reads metadata and record of a session; `None` when it has neither, or is not selected.
async fn look_up(
    backend: &dyn SessionBackend,
    id: SessionId,
    which: &Which,
) -> Result<Option<LiveSession>, SessionsError> {
    let meta = malformed_as_none(backend.meta(id.id()).await)?;
    let meta = meta.filter(|meta| meta.session_id() == id);
    if meta.as_ref().is_some_and(|meta| !which.includes(meta.subject, &meta.client)) {
        return Ok(None);
    }
    let record = match backend.record(&id.to_string()).await {
        // A malformed record is a record.
        Err(SessionsError::Format(FormatError::Decoding)) => Some(FlaskRecord::default()),
        record => record?,
    };
    if meta.is_none() && record.is_none() {
        return Ok(None);
    }
    let has_record = record.is_some();
    let record = record.unwrap_or_default();
    let account = record.account();
    let oid = account.as_ref().and_then(|account| account.oid).unwrap_or_default();
    let (subject, client, opened_at) = match meta {
        Some(meta) => (meta.subject, meta.client, meta.opened_at),
        None => (oid, record.client().unwrap_or_default(), 0),
    };
    if !which.includes(subject, &client) {
        return Ok(None);
    }
    let (name, email) = account.map(|account| (account.name, account.email)).unwrap_or_default();
    let last_activity = record.last_activity();
    let listed = Listed { id, subject, client, opened_at, last_activity, name, email };
    Ok(Some(LiveSession { listed, has_record }))
}

#[cfg(test)]
mod tests;
