//! How the activity log keeps up.

use std::time::Duration;

use crate::telemetry::meter;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

/// Bounds in seconds: a local file takes about a millisecond, a server that is being replaced many seconds.
const BOUNDS: [f64; 8] = [0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0];

/// What is counted.
#[derive(Debug, Clone)]
pub(super) struct ActivityMetrics {
    records: Counter<u64>,
    writing: Histogram<f64>,
}

impl ActivityMetrics {
    pub(super) fn new() -> Self {
        let meter = meter();
        Self {
            records: meter
                .u64_counter("simplechat.gateway.activity.records")
                .with_description(
                    "Activity records: written, or not: then they stand in the log alone",
                )
                .build(),
            writing: meter
                .f64_histogram("simplechat.gateway.activity.write.duration")
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .with_description("How long a group of records took to be written")
                .build(),
        }
    }

    /// So many were written together.
    pub(super) fn written(&self, count: usize, took: Duration) {
        self.count(count, "written");
        self.writing.record(took.as_secs_f64(), &[]);
    }

    /// So many could not be.
    pub(super) fn not_written(&self, count: usize) {
        self.count(count, "not_written");
    }

    fn count(&self, count: usize, outcome: &'static str) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.records.add(count, &[KeyValue::new("outcome", outcome)]);
    }

    /// How many wait.
    pub(super) fn watch(waiting: impl Fn() -> Option<usize> + Send + Sync + 'static) {
        meter()
            .u64_observable_gauge("simplechat.gateway.activity.waiting")
            .with_description("Activity records that wait to be written")
            .with_callback(move |observer| {
                let Some(waiting) = waiting() else { return };
                observer.observe(u64::try_from(waiting).unwrap_or(u64::MAX), &[]);
            })
            .build();
    }
}
