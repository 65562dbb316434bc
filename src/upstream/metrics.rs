//! Metrics of upstream: open connections, and durations of connects and of waits for an upload slot.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{BoundUpDownCounter, Histogram},
};

use super::UpstreamError;
use crate::telemetry::meter;

/// Histogram boundaries in seconds.
const BOUNDS: [f64; 8] = [0.000_5, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0];

pub(super) struct UpstreamMetrics {
    connects: Histogram<f64>,
    slot_waits: Histogram<f64>,
    active: BoundUpDownCounter<i64>,
    idle: BoundUpDownCounter<i64>,
}

impl UpstreamMetrics {
    pub(super) fn new() -> Self {
        let waits = |name: &'static str, description: &'static str| {
            meter()
                .f64_histogram(name)
                .with_description(description)
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .build()
        };
        let open = meter()
            .i64_up_down_counter("http.client.open_connections")
            .with_description("Connections to upstream")
            .build();
        let in_state = |state| open.bind(&[KeyValue::new("http.connection.state", state)]);
        Self {
            connects: waits(
                "simplechat.gateway.upstream.connect.duration",
                "New connections to upstream, TLS included",
            ),
            slot_waits: waits(
                "simplechat.gateway.upstream.upload_slot.wait.duration",
                "Wait of long uploads for an upload slot (GATEWAY_STREAMING_UPLOADS)",
            ),
            active: in_state("active"),
            idle: in_state("idle"),
        }
    }

    pub(super) fn connected<T>(&self, took: Duration, result: &Result<T, UpstreamError>) {
        record(&self.connects, took, result);
    }

    pub(super) fn waited_for_slot<T>(&self, took: Duration, result: &Result<T, UpstreamError>) {
        record(&self.slot_waits, took, result);
    }

    /// Counts a connection until the guard is dropped.
    pub(super) fn open(&self) -> Open {
        self.active.add(1);
        Open { active: self.active.clone(), idle: self.idle.clone(), is_idle: false }
    }
}

fn record<T>(histogram: &Histogram<f64>, took: Duration, result: &Result<T, UpstreamError>) {
    match result {
        Ok(_) => histogram.record(took.as_secs_f64(), &[]),
        Err(error) => {
            let reason = [KeyValue::new("error.type", error.reason())];
            histogram.record(took.as_secs_f64(), &reason);
        }
    }
}

/// Guard that counts one open connection.
#[derive(Debug)]
pub(super) struct Open {
    active: BoundUpDownCounter<i64>,
    idle: BoundUpDownCounter<i64>,
    is_idle: bool,
}

impl Open {
    pub(super) fn set_idle(&mut self, is_idle: bool) {
        if self.is_idle != is_idle {
            self.current().add(-1);
            self.is_idle = is_idle;
            self.current().add(1);
        }
    }

    fn current(&self) -> &BoundUpDownCounter<i64> {
        if self.is_idle { &self.idle } else { &self.active }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.current().add(-1);
    }
}
