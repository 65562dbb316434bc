//! Writes records down in groups: those that come while one group is being written are the next.
//!
//! What has been taken in is written, however long the database is away; who brings more than it can hold
//! waits. At the end what waits is written, or, where that cannot be, told in the log.

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

/// Records that may wait: some seconds of a busy gateway.
const QUEUE: usize = 16_384;
/// Between attempts.
const AGAIN: Duration = Duration::from_millis(200);

/// The writer's failure, if its last attempt failed.
pub(super) type Trouble = Arc<ArcSwapOption<Failing>>;

/// A writer that fails.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) since: Instant,
    /// Why the last attempt failed.
    pub(super) why: Arc<String>,
}

/// A record on its way.
pub(super) struct Entry {
    pub(super) record: Record,
    /// Told once it is written.
    pub(super) written: Option<oneshot::Sender<()>>,
    /// A denial's.
    pub(super) _place: Option<DenialSlot>,
}

/// Takes records and writes them.
pub(super) struct Writer {
    database: Database,
    entries: mpsc::Receiver<Entry>,
    metrics: ActivityMetrics,
    trouble: Trouble,
}

impl Writer {
    /// A writer, and where records go in.
    pub(super) fn new(
        database: Database,
        metrics: ActivityMetrics,
        trouble: Trouble,
    ) -> (Self, mpsc::Sender<Entry>) {
        let (entry, entries) = mpsc::channel(QUEUE);
        (Self { database, entries, metrics, trouble }, entry)
    }

    /// Until told to stop; then what has been taken in is written in the time that is left.
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
                "activity records could not be written: the database is away; they stand in this log alone"
            );
        }
    }

    /// How many there are to be written next.
    async fn next(&mut self, group: &mut Vec<Entry>) -> usize {
        if group.is_empty() { self.entries.recv_many(group, log::GROUP).await } else { group.len() }
    }

    /// Until they are written. What was, although the database did not say so, is not written twice.
    async fn write(&self, group: &mut Vec<Entry>) {
        while !group.is_empty() {
            let records = group.iter().map(|entry| entry.record.clone()).collect();
            let begun = Instant::now();
            match log::add(&self.database, records).await {
                Ok(()) => {
                    self.metrics.written(group.len(), begun.elapsed());
                    if self.trouble.swap(None).is_some() {
                        tracing::info!("the database is back");
                    }
                    for entry in group.drain(..) {
                        if let Some(written) = entry.written {
                            let _ = written.send(());
                        }
                    }
                }
                Err(error) => {
                    let error = telemetry::chain(&error);
                    let since = self.trouble.load().as_ref().map_or(begun, |known| known.since);
                    let failing = Failing { since, why: Arc::new(error.clone()) };
                    if self.trouble.swap(Some(Arc::new(failing))).is_none() {
                        tracing::error!(error, "the database is away: activity records wait");
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }
}
