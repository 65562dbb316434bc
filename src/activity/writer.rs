//! Queue and writer of records. Records that arrive while a group is being written form the next group.
//!
//! Queued records are written however long the database is unavailable; while the queue is full, senders wait. At
//! shutdown the queue is written, or the log reports how many records were lost to the database.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use super::{
    database::Database, denials::DenialSlot, log, metrics::ActivityMetrics, record::Record,
};
use crate::telemetry;

/// Capacity of the queue: some seconds of a busy gateway.
const QUEUE: usize = 16_384;
/// Pause between attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Failure of the writer's last attempt; empty after a success.
pub(super) type WriterError = Arc<ArcSwapOption<Failing>>;

/// Continuing failure of the writer.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) since: Instant,
    /// Error of the last attempt.
    pub(super) why: Arc<String>,
}

/// Queued record.
pub(super) struct Entry {
    pub(super) record: Record,
    /// Notified once the record is written.
    pub(super) written: Option<oneshot::Sender<()>>,
    /// Place of a denial in the queue.
    pub(super) _place: Option<DenialSlot>,
}

/// Task that writes queued records.
pub(super) struct Writer {
    database: Database,
    entries: mpsc::Receiver<Entry>,
    metrics: ActivityMetrics,
    last_error: WriterError,
}

impl Writer {
    /// Creates a writer and the sender of its queue.
    pub(super) fn new(
        database: Database,
        metrics: ActivityMetrics,
        last_error: WriterError,
    ) -> (Self, mpsc::Sender<Entry>) {
        let (entry, entries) = mpsc::channel(QUEUE);
        (Self { database, entries, metrics, last_error }, entry)
    }

    /// Runs until `stop`; then writes the queue within the received flush timeout.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Duration>) {
        let mut group = Vec::new();
        let flush_timeout = loop {
            tokio::select! {
                _ = self.next(&mut group) => {}
                flush_timeout = &mut stop => break flush_timeout.unwrap_or_default(),
            }
            if group.is_empty() {
                return;
            }
            tokio::select! {
                () = self.write(&mut group) => {}
                flush_timeout = &mut stop => break flush_timeout.unwrap_or_default(),
            }
        };
        self.entries.close();
        let rest = async {
            self.write(&mut group).await;
            while self.next(&mut group).await > 0 {
                self.write(&mut group).await;
            }
        };
        if tokio::time::timeout(flush_timeout, rest).await.is_err() {
            while let Ok(entry) = self.entries.try_recv() {
                group.push(entry);
            }
            self.metrics.not_written(group.len());
            tracing::error!(
                count = group.len(),
                "activity records could not be written: the database is unavailable; this log is their only copy"
            );
        }
    }

    /// Fills an empty group from the queue. Returns the size of the group.
    async fn next(&mut self, group: &mut Vec<Entry>) -> usize {
        if group.is_empty() { self.entries.recv_many(group, log::GROUP).await } else { group.len() }
    }

    /// Retries until the group is written. A record whose write succeeded without a confirmation is not written twice.
    async fn write(&self, group: &mut Vec<Entry>) {
        while !group.is_empty() {
            let records = group.iter().map(|entry| entry.record.clone()).collect();
            let begun = Instant::now();
            match log::add(&self.database, records).await {
                Ok(()) => {
                    self.metrics.written(group.len(), begun.elapsed());
                    if self.last_error.swap(None).is_some() {
                        tracing::info!(
                            "the database is available again: activity records are written"
                        );
                    }
                    for entry in group.drain(..) {
                        if let Some(written) = entry.written {
                            let _ = written.send(());
                        }
                    }
                }
                Err(error) => {
                    let error = telemetry::chain(&error);
                    let since = self.last_error.load().as_ref().map_or(begun, |known| known.since);
                    let failing = Failing { since, why: Arc::new(error.clone()) };
                    if self.last_error.swap(Some(Arc::new(failing))).is_none() {
                        tracing::error!(
                            error,
                            "the database is unavailable: activity records wait"
                        );
                    }
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }
}
