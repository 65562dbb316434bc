//! Metrics of a session backend: duration of each operation, number of live sessions.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::{
    KeyValue,
    metrics::{Gauge, Histogram},
};
use tower_sessions_core::session::Id;
use uuid::Uuid;

use super::{Added, Cursor, Outbox, Quota, Revoked, SessionBackend, SessionMeta, Unexpired};
use crate::{
    authz::session::SessionId,
    config::Limit,
    flask::{session_codec::SessionMembers, session_record::FlaskRecord},
    sessions::{SessionsError, limits::Network},
    telemetry::meter,
};

/// Histogram boundaries in seconds; no caller waits longer than 1.8 s.
const BOUNDS: [f64; 9] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 1.0, 2.5];

/// Decorator that measures another backend.
#[derive(Debug)]
pub(crate) struct InstrumentedBackend<S> {
    inner: S,
    /// `redis` or `filesystem`.
    kind: &'static str,
    durations: Histogram<f64>,
    live: Gauge<u64>,
}

impl<S: SessionBackend> InstrumentedBackend<S> {
    pub(crate) fn new(inner: S, kind: &'static str) -> Self {
        Self {
            inner,
            kind,
            durations: meter()
                .f64_histogram("simplechat.gateway.session_store.operation.duration")
                .with_description("Duration of session store operations")
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .build(),
            live: meter()
                .u64_gauge("simplechat.gateway.sessions.live")
                .with_description("Minted sessions that have not expired, of all instances; in Redis it includes revoked ones")
                .build(),
        }
    }

    async fn timed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, SessionsError>> + Send,
    ) -> Result<T, SessionsError> {
        let mut timing =
            Stopwatch { backend: self, operation, begun: Instant::now(), error: Some("abandoned") };
        let result = work.await;
        timing.error = result.as_ref().err().map(SessionsError::reason);
        result
    }

    fn record(&self, operation: &'static str, took: Duration, error: Option<&'static str>) {
        let [store, operation] =
            [KeyValue::new("store", self.kind), KeyValue::new("operation", operation)];
        let took = took.as_secs_f64();
        match error {
            None => self.durations.record(took, &[store, operation]),
            Some(error) => {
                let error = KeyValue::new("error.type", error);
                self.durations.record(took, &[store, operation, error]);
            }
        }
    }
}

/// An operation in progress. Dropped at a time-out, it records `abandoned`.
struct Stopwatch<'a, S: SessionBackend> {
    backend: &'a InstrumentedBackend<S>,
    operation: &'static str,
    begun: Instant,
    error: Option<&'static str>,
}

impl<S: SessionBackend> Drop for Stopwatch<'_, S> {
    fn drop(&mut self) {
        self.backend.record(self.operation, self.begun.elapsed(), self.error);
    }
}

#[async_trait]
impl<S: SessionBackend> SessionBackend for InstrumentedBackend<S> {
    async fn create(
        &self,
        id: &SessionId,
        session: &SessionMembers<'_>,
        now: i64,
    ) -> Result<bool, SessionsError> {
        self.timed("put", self.inner.create(id, session, now)).await
    }

    async fn record(&self, id: &str) -> Result<Option<FlaskRecord>, SessionsError> {
        self.timed("record", self.inner.record(id)).await
    }

    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        self.timed("has", self.inner.has(id)).await
    }

    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        self.timed("remove", self.inner.remove(ids)).await
    }

    fn counts_logins(&self) -> bool {
        self.inner.counts_logins()
    }

    async fn add_meta(
        &self,
        meta: &SessionMeta,
        quota: &Quota,
        now: i64,
    ) -> Result<Added, SessionsError> {
        self.timed("add_note", self.inner.add_meta(meta, quota, now)).await
    }

    async fn meta(&self, id: Id) -> Result<Option<SessionMeta>, SessionsError> {
        self.timed("note", self.inner.meta(id)).await
    }

    async fn sessions_of(&self, subject: Uuid, now: i64) -> Result<Vec<SessionId>, SessionsError> {
        self.timed("sessions_of", self.inner.sessions_of(subject, now)).await
    }

    async fn unexpired(
        &self,
        now: i64,
        skip: usize,
        max: usize,
    ) -> Result<Unexpired, SessionsError> {
        self.timed("unended", self.inner.unexpired(now, skip, max)).await
    }

    async fn remove_meta(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError> {
        self.timed("remove_note", self.inner.remove_meta(id, subject)).await
    }

    async fn revoke(&self, id: &SessionId) -> Result<(), SessionsError> {
        self.timed("mark_ended", self.inner.revoke(id)).await
    }

    async fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError> {
        self.timed("ended", self.inner.revoked(since)).await
    }

    async fn count_failure(
        &self,
        from: Network,
        limit: Limit,
    ) -> Result<Option<Duration>, SessionsError> {
        self.timed("count_failure", self.inner.count_failure(from, limit)).await
    }

    async fn erase(&self, id: &SessionId) -> Result<(), SessionsError> {
        self.timed("erase", self.inner.erase(id)).await
    }

    async fn sweep(&self, now: i64, forget_before: i64) -> Result<Vec<SessionId>, SessionsError> {
        self.timed("sweep", self.inner.sweep(now, forget_before)).await
    }

    async fn count(&self, now: i64) -> Result<u64, SessionsError> {
        let count = self.timed("count", self.inner.count(now)).await?;
        self.live.record(count, &[]);
        Ok(count)
    }

    async fn register(
        &self,
        instance: &str,
        database: &str,
        now: i64,
        since: i64,
    ) -> Result<Vec<(String, String)>, SessionsError> {
        self.timed("register", self.inner.register(instance, database, now, since)).await
    }

    async fn add_waiting(&self, of: Outbox, text: &str, now: i64) -> Result<(), SessionsError> {
        self.timed("add_waiting", self.inner.add_waiting(of, text, now)).await
    }

    async fn waiting(&self, of: Outbox, max: usize) -> Result<Vec<String>, SessionsError> {
        self.timed("waiting", self.inner.waiting(of, max)).await
    }

    async fn remove_waiting(&self, of: Outbox, text: &str) -> Result<(), SessionsError> {
        self.timed("remove_waiting", self.inner.remove_waiting(of, text)).await
    }

    fn reconnect(&self) {
        self.inner.reconnect();
    }

    fn warning(&self) -> Option<String> {
        self.inner.warning()
    }

    async fn ping(&self) -> Result<(), SessionsError> {
        self.timed("ping", self.inner.ping()).await
    }
}
