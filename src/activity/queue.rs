//! Queue of records, and what a record does on its way to the database.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Activity, Inner, denials, error::ActivityError, log};
use crate::{
    activity::{
        database::Database,
        denials::DenialSlot,
        metrics::ActivityMetrics,
        record::Record,
        writer::{Entry, Failing, WriterError},
    },
    config::ActivityRequired,
};

/// Maximum time that a caller waits for a record to be queued or written.
pub(super) const ENQUEUE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Repeated denials of one caller that are recorded one by one.
const MAX_REPETITIONS: u32 = 20;

/// Time without a repetition after which a caller's denials are recorded again.
pub(super) const REPETITION_WINDOW: Duration = Duration::from_mins(1);

/// The database, and the queue of the writer.
#[derive(Debug)]
pub(super) struct LogWriter {
    pub(super) database: Database,
    pub(super) entries: mpsc::Sender<Entry>,
    pub(super) metrics: ActivityMetrics,
    pub(super) last_error: WriterError,
    /// Stops the writer: receives the flush timeout; the task ends after the flush.
    pub(super) end: Mutex<Option<(oneshot::Sender<Duration>, JoinHandle<()>)>>,
}

impl LogWriter {
    fn not_written(&self, count: usize) {
        self.metrics.not_written(count);
        tracing::error!(count, "activity records were not written: the database is unavailable");
    }
}

/// Reserved place in the queue for one record.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(super) activity: Activity,
    /// `None`: there is no database, or the queue is full and records are not required.
    permit: Option<mpsc::OwnedPermit<Entry>>,
}

/// Records counted denials every [`denials::INTERVAL`], until the log is dropped.
pub(super) async fn aggregate_loop(activity: Weak<Inner>) {
    loop {
        sleep(denials::INTERVAL).await;
        let Some(inner) = activity.upgrade() else { return };
        Activity(inner).enqueue_aggregated();
    }
}

impl Slot {
    /// Writes the record of the action. On `Ok` it is written or, where the database is unavailable and not required
    /// for this action, queued.
    ///
    /// # Errors
    /// When the record is required and was not written in time. The caller must undo the action.
    pub(crate) async fn write(self, record: Record) -> Result<(), ActivityError> {
        record.emit();
        let Some(permit) = self.permit else { return Ok(()) };
        let (confirm, written) = oneshot::channel();
        permit.send(Entry { record, written: Some(confirm), _place: None });
        let Inner { required, .. } = &*self.activity.0;
        match required {
            ActivityRequired::None => Ok(()),
            ActivityRequired::Decisions if self.activity.last_error().is_some() => Ok(()),
            _ => {
                let is_written = matches!(timeout(ENQUEUE_TIMEOUT, written).await, Ok(Ok(())));
                if is_written || *required == ActivityRequired::Decisions {
                    Ok(())
                } else {
                    Err(ActivityError::TimedOut)
                }
            }
        }
    }
}

impl Activity {
    /// Reserves a place for the record of an action before the action. Waits while the queue is full.
    ///
    /// # Errors
    /// When the action must not take place because it could not be recorded (`GATEWAY_ACTIVITY_REQUIRED`).
    pub(crate) async fn reserve(&self) -> Result<Slot, ActivityError> {
        let slot = |permit| Slot { activity: self.clone(), permit };
        let Some(written) = &self.0.writer else { return Ok(slot(None)) };
        if self.0.required == ActivityRequired::All && written.last_error.load().is_some() {
            return Err(ActivityError::QueueFull);
        }
        match timeout(ENQUEUE_TIMEOUT, written.entries.clone().reserve_owned()).await {
            Ok(Ok(permit)) => Ok(slot(Some(permit))),
            Ok(Err(_)) | Err(_) if self.0.required == ActivityRequired::None => {
                written.not_written(1);
                Ok(slot(None))
            }
            Ok(Err(_)) | Err(_) => Err(ActivityError::QueueFull),
        }
    }

    /// Writes and emits the records of a decision before it takes effect. Without a database they are only emitted;
    /// with `GATEWAY_ACTIVITY_REQUIRED=none` also when writing them fails.
    ///
    /// # Errors
    /// When the records could not be written.
    pub(crate) async fn record_decisions(&self, records: Vec<Record>) -> Result<(), ActivityError> {
        if let Some(written) = &self.0.writer {
            match log::add(&written.database, records.clone()).await {
                Ok(()) => {}
                Err(_) if self.0.required == ActivityRequired::None => {
                    written.not_written(records.len());
                }
                Err(error) => return Err(error),
            }
        }
        records.iter().for_each(Record::emit);
        Ok(())
    }

    /// Emits and queues the record of an event that is already past. Waits for a place in the queue, not for the
    /// database.
    pub(crate) async fn record(&self, record: Record) {
        record.emit();
        let Some(written) = &self.0.writer else { return };
        let entry = Entry { record, written: None, _place: None };
        let taken = timeout(ENQUEUE_TIMEOUT, written.entries.send(entry)).await;
        if !matches!(taken, Ok(Ok(()))) {
            written.not_written(1);
        }
    }

    /// Queues the record of a denial. Anonymous callers can cause any number of them, so denials beyond a rate for all
    /// callers together, or beyond their share of the queue, are only counted. Never waits.
    pub(crate) fn record_denial(&self, record: Record) {
        if let Some(place) = self.0.denials.admit(&record)
            && let Some(record) = self.enqueue_denial(record, place)
        {
            self.0.denials.count(&record);
        }
    }

    /// Queues the record of a denial. Returns the record when the queue is full.
    fn enqueue_denial(&self, record: Record, place: DenialSlot) -> Option<Record> {
        let Some(written) = &self.0.writer else {
            record.emit();
            return None;
        };
        let Ok(permit) = written.entries.try_reserve() else { return Some(record) };
        record.emit();
        permit.send(Entry { record, written: None, _place: Some(place) });
        None
    }

    fn enqueue_aggregated(&self) {
        for (counted, place) in self.0.denials.take_aggregated() {
            if self.enqueue_denial(counted.record(), place).is_some() {
                self.0.denials.put_back(counted);
            }
        }
    }

    /// [`Self::record_denial`] for denials that an authenticated caller can cause any number of times: records the first few
    /// of one caller (`whose`), until a minute passes without another.
    pub(crate) fn record_repeated_denial(&self, whose: String, record: Record) {
        let times = self.0.repeated.entry(whose);
        let times = times.and_upsert_with(|times| times.map_or(1, |times| times.into_value() + 1));
        if times.into_value() <= MAX_REPETITIONS {
            self.record_denial(record);
        }
    }

    /// Queues records that were emitted before. False: the queue is full, and not all of them are in it.
    pub(crate) async fn wait_for(&self, records: Vec<Record>) -> bool {
        let Some(written) = &self.0.writer else { return true };
        let count = records.len();
        for (at, record) in records.into_iter().enumerate() {
            let entry = Entry { record, written: None, _place: None };
            if !matches!(timeout(ENQUEUE_TIMEOUT, written.entries.send(entry)).await, Ok(Ok(()))) {
                // The others would wait for as long.
                written.not_written(count - at);
                return false;
            }
        }
        true
    }

    /// Error of the writer's last attempt, if it failed.
    pub(crate) fn last_error(&self) -> Option<Arc<String>> {
        self.failing().map(|failing| Arc::clone(&failing.why))
    }

    /// Time since which the writer's attempts fail.
    pub(crate) fn failing_for(&self) -> Option<Duration> {
        self.failing().map(|failing| failing.since.elapsed())
    }

    fn failing(&self) -> Option<Arc<Failing>> {
        self.0.writer.as_ref()?.last_error.load_full()
    }

    /// Stops the writer after it has written the queue, within `flush_timeout`. Later records are only emitted.
    pub(crate) async fn end(&self, flush_timeout: Duration) {
        self.enqueue_aggregated();
        let Some(written) = &self.0.writer else { return };
        let end = written.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((end, writing)) = end {
            let _ = end.send(flush_timeout);
            let _ = writing.await;
        }
    }
}
