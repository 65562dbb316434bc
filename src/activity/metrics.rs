//! Metrics of the activity log.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

use crate::telemetry::meter;

/// Bucket bounds in seconds: a local file takes about a millisecond, a failover of the server many seconds.
const BOUNDS: [f64; 8] = [0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 2.0];

/// Instruments of the writer.
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
                    "Activity records: written, or not: then they are in the log only",
                )
                .build(),
            writing: meter
                .f64_histogram("simplechat.gateway.activity.write.duration")
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .with_description("Time to write a group of records")
                .build(),
        }
    }

    /// Records a group that was written.
    pub(super) fn written(&self, count: usize, took: Duration) {
        self.count(count, "written");
        self.writing.record(took.as_secs_f64(), &[]);
    }

    /// Counts records that could not be written.
    pub(super) fn not_written(&self, count: usize) {
        self.count(count, "not_written");
    }

    fn count(&self, count: usize, outcome: &'static str) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.records.add(count, &[KeyValue::new("outcome", outcome)]);
    }

    /// Observes the length of the queue.
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
