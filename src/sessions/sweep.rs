//! Removal of records of ended sessions: on request, and by a sweep.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{RETENTION, Sessions, SessionsError, backend::SessionBackend};
use crate::{authz::session::SessionId, clock, telemetry};

/// Interval of the sweep.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

impl Sessions {
    /// Queues the removal of Flask's record of an ended session. When the queue is full the sweep removes it.
    pub(crate) fn forget(&self, id: SessionId) {
        let _ = self.0.removals.try_send(id);
    }

    /// Sweeps for as long as the process runs; to be spawned.
    pub(crate) async fn sweep_loop(self) {
        let mut ticks = interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(error = %telemetry::chain(&error), "sessions could not be swept");
            }
            // Updates the metrics, of failures too.
            let _ = self.0.backend.count(clock::now()).await;
        }
    }

    /// Removes records that Flask wrote back after a revocation, and those of expired sessions.
    pub(super) async fn sweep(&self) -> Result<(), SessionsError> {
        let now = clock::now();
        let forget_before = now - RETENTION;
        let revoked = self.0.revocations.prune(forget_before);
        self.0.backend.remove(&revoked).await?;
        let expired = self.0.backend.sweep(now, forget_before).await?;
        self.report_expired(&expired, forget_before).await
    }
}

/// Removes queued records one by one, so that cookies of ended sessions cannot keep the store busy.
pub(super) async fn removal_loop(
    backend: Arc<dyn SessionBackend>,
    mut queue: mpsc::Receiver<SessionId>,
) {
    while let Some(id) = queue.recv().await {
        if let Err(error) = backend.remove(&[id]).await {
            tracing::debug!(error = %telemetry::chain(&error), "the record of an ended session could not be removed");
        }
    }
}
