//! Rate limit of denial records. Denials are recorded one by one up to a rate for all callers together; those
//! beyond it are counted and recorded as one record for each kind and reason, so that anonymous callers can fill
//! neither the log's disk nor its queue.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::record::{EventKind, Record};
use crate::clock;

/// Denials recorded one by one in a burst, and the rate after it: about 65 MB a day.
const BURST: u32 = 600;
const PER_SECOND: u32 = 1;
/// Interval between records of counted denials.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of denials in the writer's queue: a quarter of it.
const MAX_QUEUED: usize = 4096;

/// Admits denials to the log.
#[derive(Debug)]
pub(super) struct Denials {
    state: Mutex<DenialWindow>,
    waiting: Arc<Semaphore>,
}

#[derive(Debug)]
struct DenialWindow {
    /// Denials that may still be recorded one by one.
    credit: u32,
    /// Time up to which the credit was raised.
    raised: Instant,
    /// Number of denials by kind and reason, and the time of the first in Unix milliseconds.
    counted: BTreeMap<(EventKind, Option<String>), (u64, i64)>,
}

/// Denials of one kind and reason that are recorded as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    kind: EventKind,
    reason: Option<String>,
    count: u64,
    /// Time of the first in Unix milliseconds.
    since: i64,
}

impl Counted {
    pub(super) fn record(&self) -> Record {
        let since = clock::rfc3339(self.since);
        let text = format!("{} more denied of this kind since {since}", self.count);
        let reason = self.reason.clone();
        Record { text: Some(text), reason, ..Record::refused(self.kind, "") }
    }
}

/// Place of a denial in the queue, released on drop.
#[derive(Debug)]
pub(super) struct DenialSlot {
    _permit: OwnedSemaphorePermit,
}

impl Denials {
    pub(super) fn new() -> Self {
        let state =
            DenialWindow { credit: BURST, raised: Instant::now(), counted: BTreeMap::new() };
        Self { state: Mutex::new(state), waiting: Arc::new(Semaphore::new(MAX_QUEUED)) }
    }

    /// Returns a place for a denial. `None`: the denial is beyond the rate or its share of the queue, and was counted.
    pub(super) fn admit(&self, record: &Record) -> Option<DenialSlot> {
        let has_credit = self.lock().take(Instant::now());
        let place = if has_credit { self.place() } else { None };
        if place.is_none() {
            self.count(record);
        }
        place
    }

    /// Counts a denial that is not recorded on its own.
    pub(super) fn count(&self, record: &Record) {
        let (kind, reason) = (record.kind, record.reason.clone());
        self.put_back(Counted { kind, reason, count: 1, since: clock::millis() });
    }

    /// Adds a count, for example one from [`Self::take_aggregated`] that could not be recorded.
    pub(super) fn put_back(&self, Counted { kind, reason, count, since }: Counted) {
        let mut state = self.lock();
        let (total, first) = state.counted.entry((kind, reason)).or_insert((0, since));
        *total += count;
        *first = since.min(*first);
    }

    /// Removes and returns the counts, as long as there are places for their records.
    pub(super) fn take_aggregated(&self) -> Vec<(Counted, DenialSlot)> {
        let mut all = Vec::new();
        let mut state = self.lock();
        while let Some(entry) = state.counted.first_entry() {
            let Some(place) = self.place() else { break };
            let ((kind, reason), (count, since)) = entry.remove_entry();
            all.push((Counted { kind, reason, count, since }, place));
        }
        all
    }

    fn place(&self) -> Option<DenialSlot> {
        let permit = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        Some(DenialSlot { _permit: permit })
    }

    fn lock(&self) -> MutexGuard<'_, DenialWindow> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DenialWindow {
    fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.raised).as_secs();
        if seconds > 0 {
            let earned = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.credit = self.credit.saturating_add(earned).min(BURST);
            self.raised += Duration::from_secs(seconds);
        }
        let has_credit = self.credit > 0;
        self.credit = self.credit.saturating_sub(1);
        has_credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_beyond_the_rate_are_counted_by_kind_and_reason() {
        let denials = Denials::new();
        let denied = |reason: &str| Record::refused(EventKind::LoginDenied, reason);
        let mut places = Vec::new();
        for _ in 0..BURST {
            places.push(denials.admit(&denied("expired")).expect("within the burst"));
        }
        assert!(denials.take_aggregated().is_empty());
        for _ in 0..3 {
            assert!(denials.admit(&denied("expired")).is_none());
        }
        assert!(denials.admit(&denied("audience")).is_none());
        let counted: Vec<_> = denials
            .take_aggregated()
            .into_iter()
            .map(|(counted, _)| counted.record())
            .map(|record| (record.reason.unwrap(), record.text.unwrap()))
            .collect();
        assert_eq!(counted.len(), 2);
        assert_eq!(counted[0].0, "audience");
        assert!(counted[0].1.starts_with("1 more denied of this kind since 20"), "{counted:?}");
        assert!(counted[1].1.starts_with("3 more denied of this kind"), "{counted:?}");
        assert!(denials.take_aggregated().is_empty(), "once");
    }

    #[test]
    fn a_count_that_does_not_fit_in_the_queue_is_restored() {
        let denials = Denials::new();
        let reasons = [Some("expired".to_owned()), None];
        let of = |reason: &Option<String>, count, since| Counted {
            kind: EventKind::LoginDenied,
            reason: reason.clone(),
            count,
            since,
        };
        for reason in &reasons {
            denials.put_back(of(reason, 500, 1000));
            let (taken, place) = denials.take_aggregated().remove(0);
            assert_eq!(taken, of(reason, 500, 1000));
            assert_eq!(taken.record().reason, *reason);
            drop(place);
            // Another denial, counted before the count is restored.
            denials
                .count(&Record { reason: reason.clone(), ..Record::new(EventKind::LoginDenied) });
            denials.put_back(taken);
            let (taken, _) = denials.take_aggregated().remove(0);
            assert_eq!(taken, of(reason, 501, 1000));
        }
    }

    #[test]
    fn one_denial_per_second_is_recorded_after_the_burst() {
        let begun = Instant::now();
        let mut state = DenialWindow { credit: 0, raised: begun, counted: BTreeMap::new() };
        let after = |millis| begun + Duration::from_millis(millis);
        assert!(!state.take(after(900)));
        assert!(state.take(after(1100)) && !state.take(after(1900)) && state.take(after(2000)));
        let admitted = (0..2000).filter(|_| state.take(after(10_000_000))).count();
        assert_eq!(admitted, BURST as usize, "idle time earns one burst at most");
    }

    #[test]
    fn denials_take_a_quarter_of_the_queue() {
        let denials = Denials::new();
        let denied = Record::refused(EventKind::LoginDenied, "expired");
        let places: Vec<_> = std::iter::from_fn(|| denials.place()).collect();
        assert_eq!(places.len(), MAX_QUEUED);
        assert!(denials.admit(&denied).is_none());
        assert!(denials.take_aggregated().is_empty(), "the count stays where no record has room");
        drop(places);
        assert_eq!(denials.take_aggregated().len(), 1);
    }
}
