//! Registration of this instance, and the check for instances with another database.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::ExternalAccess;
use crate::{
    activity::{ActivityError, Instance},
    clock,
    config::ExternalAccessMode,
    telemetry,
};

/// Interval between heartbeats while nothing changes.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// Component name of the other instances in the health registry.
const INSTANCES: &str = "instances";

impl ExternalAccess {
    /// Sends heartbeats and checks the other instances until this one stops; then deregisters it. To be spawned.
    pub(crate) async fn heartbeat_loop(self, stopping: CancellationToken) {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            match self.heartbeat().await {
                Ok(()) => {
                    self.0.heartbeat_error.store(None);
                    self.check_instances().await;
                }
                Err(error) => {
                    self.0.heartbeat_error.store(Some(Arc::new(telemetry::chain(&error))));
                }
            }
            tokio::select! {
                _ = timeout(HEARTBEAT_INTERVAL, changes.changed()) => {}
                () = stopping.cancelled() => break,
            }
        }
        self.deregister().await;
    }

    /// Removes this instance from the database, if there is one.
    pub(crate) async fn deregister(&self) {
        let _ = self.0.activity.deregister(self.0.instance.id.clone()).await;
    }

    /// Heartbeat. Success also proves that the activity log is writable.
    pub(crate) async fn heartbeat(&self) -> Result<(), ActivityError> {
        let (seen_at, is_on) = (clock::millis(), self.is_on());
        let begun = Instant::now();
        let beat =
            self.0.activity.heartbeat(Instance { seen_at, is_on, ..self.0.instance.clone() });
        let beat = beat.await;
        if beat.is_ok() {
            self.is_written();
        } else if self.0.unwritable.load().is_none() {
            self.0.unwritable.store(Some(Arc::new(begun)));
        }
        beat
    }

    /// Reports instances that use another database, or the same SQLite file.
    async fn check_instances(&self) {
        if *self.mode() != ExternalAccessMode::Managed {
            self.0.health.clear(INSTANCES);
            return;
        }
        let Some(database) = self.0.database.load_full() else { return };
        let own = &self.0.instance.id;
        let (Ok(others), Ok(here)) =
            (self.0.sessions.register(own, &database).await, self.0.activity.instances().await)
        else {
            // The other instances are unknown.
            return;
        };
        let elsewhere = others.iter().any(|(_, other)| *other != *database);
        let here = here.iter().any(|one| one.id != *own);
        let reason = if elsewhere {
            "other instances use another database and do not receive administrators' decisions: configure one PostgreSQL for all instances (DATABASE_URL)"
        } else if here && self.0.is_embedded {
            "several instances use one SQLite file: configure PostgreSQL for all instances (DATABASE_URL)"
        } else {
            self.0.health.clear(INSTANCES);
            return;
        };
        if self.0.health.raise(INSTANCES, reason.to_owned()) {
            tracing::warn!("{reason}");
        }
    }
}
