//! Loops that follow the database and apply what it holds.

use std::sync::{PoisonError, atomic::Ordering};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    DATABASE, ExternalAccess, MAX_STALENESS, MEASURE_INTERVAL, PRUNE_INTERVAL, READ_INTERVAL,
    is_in_force,
};
use crate::{config::ExternalAccessMode, control::revocation, telemetry};

impl ExternalAccess {
    /// Reads the database every [`READ_INTERVAL`]; runs forever, to be spawned.
    pub(crate) async fn run(self) {
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut read = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.0.read_now.notified() => {}
            }
            match self.read().await {
                Ok(()) => {
                    read = Instant::now();
                    self.end_sessions_of_blocked();
                    let heartbeat_error = self.0.heartbeat_error.load_full();
                    match self.0.activity.last_error().or(heartbeat_error) {
                        None => self.0.health.clear(DATABASE),
                        Some(why) => drop(self.0.health.raise(DATABASE, why.to_string())),
                    }
                }
                Err(error) => {
                    self.0.health.raise(DATABASE, telemetry::chain(&error));
                    if read.elapsed() > MAX_STALENESS {
                        self.0.is_enabled.store(false, Ordering::Relaxed);
                        self.apply();
                    }
                }
            }
            self.check_writability();
        }
    }

    /// Turns `managed` access off when the database has been unwritable for longer than [`MAX_STALENESS`], measured by
    /// this instance's heartbeat and by queued records.
    fn check_writability(&self) {
        let unwritable = self.0.unwritable.load().as_ref().map(|since| since.elapsed());
        let longest = unwritable.max(self.0.activity.failing_for());
        let is_too_long = longest.is_some_and(|it| it > MAX_STALENESS);
        if is_too_long && self.0.is_writable.swap(false, Ordering::Relaxed) {
            if *self.mode() == ExternalAccessMode::Managed {
                tracing::error!(
                    "the database cannot be written: external access is off until writing succeeds"
                );
            }
            self.apply();
        }
    }

    /// Notes a successful write: the database is writable, unless queued records have been failing for too long.
    pub(super) fn is_written(&self) {
        self.0.unwritable.store(None);
        if self.0.activity.failing_for().is_none_or(|failing| failing <= MAX_STALENESS) {
            self.0.is_writable.store(true, Ordering::Relaxed);
            self.apply();
        }
    }

    /// Applies pending decisions from the session store; runs forever, to be spawned.
    pub(crate) async fn follow_restrictions(self) {
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The reader of the revocation list reports an unavailable store.
            let _ = self.0.restrictions.follow().await;
            self.apply();
            self.end_sessions_of_blocked();
        }
    }

    /// Records pending decisions and revocations; runs forever, to be spawned.
    pub(crate) async fn record_restrictions(self) {
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.0.restrictions.record().await {
                Ok(0) => {}
                Ok(_) => self.read_now(),
                // The error was logged with the decision.
                Err(_) => continue,
            }
            self.0.restrictions.record_ended_before().await;
        }
    }

    /// Removes old records; runs forever, to be spawned.
    pub(crate) async fn prune_loop(self) {
        loop {
            match self.0.activity.prune(self.0.retention).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "old activity records removed"),
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(error, "old activity records could not be removed");
                }
            }
            sleep(PRUNE_INTERVAL).await;
        }
    }

    /// Enforces the maximum size of the log; runs forever, to be spawned.
    pub(crate) async fn enforce_size_loop(self) {
        let mut is_failing = false;
        loop {
            let begun = Instant::now();
            let removed = self.0.activity.shrink_to(self.0.max_size).await;
            let pause = match &removed {
                Ok(0) | Err(_) => MEASURE_INTERVAL.max(begun.elapsed() * 20),
                Ok(_) => MEASURE_INTERVAL,
            };
            let has_failed_before = std::mem::replace(&mut is_failing, removed.is_err());
            match removed {
                Ok(0) => {}
                Ok(count) => tracing::info!(
                    count,
                    "the oldest activity records were removed: the log had reached GATEWAY_ACTIVITY_MAX_SIZE"
                ),
                Err(error) if !has_failed_before => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(
                        error,
                        "the size limit of the activity log could not be enforced"
                    );
                }
                Err(_) => {}
            }
            sleep(pause).await;
        }
    }

    /// Revokes the sessions of blocked callers. Each instance does so: a login may be in progress on any.
    pub(super) fn end_sessions_of_blocked(&self) {
        let blocks = self.blocks();
        let mut followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|(blocked, since)| is_in_force(&blocks, blocked, *since));
        for block in blocks {
            if followed.insert((block.blocked.clone(), block.since)) {
                let (external_access, blocked, since) =
                    (self.clone(), block.blocked.clone(), block.since);
                let is_in_force = move || is_in_force(&external_access.blocks(), &blocked, since);
                tokio::spawn(revocation::end_blocked(
                    self.0.restrictions.clone(),
                    block,
                    is_in_force,
                ));
            }
        }
    }
}
