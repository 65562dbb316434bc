//! Metrics of requests. Each thread holds the series that it has used, so that a request does no lookup that
//! threads share; one short lock on the series itself remains.

use std::{cell::RefCell, collections::HashMap, fmt, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, BoundUpDownCounter, Counter, Histogram},
};

use super::endpoint::Endpoint;
use crate::telemetry::meter;

/// Bucket bounds in seconds: those of the semantic conventions, and lower ones.
const BOUNDS: [f64; 16] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    10.0,
];

/// Series by endpoint, method and status.
type Series = HashMap<(Endpoint, &'static str, u16), BoundHistogram<f64>>;

/// Instruments of one thread.
pub(crate) struct ServerMetrics {
    durations: Histogram<f64>,
    series: RefCell<Series>,
    active: BoundUpDownCounter<i64>,
    refusals: Counter<u64>,
    logins: Counter<u64>,
}

impl fmt::Debug for ServerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerMetrics(..)")
    }
}

impl ServerMetrics {
    pub(crate) fn new() -> Self {
        let meter = meter();
        Self {
            durations: meter
                .f64_histogram("http.server.request.duration")
                .with_description("Duration of requests, from the head to the end of the response")
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .build(),
            series: RefCell::default(),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_description("Requests in progress")
                .build()
                .bind(&[]),
            refusals: meter
                .u64_counter("simplechat.gateway.refusals")
                .with_description("Requests refused by the gateway")
                .build(),
            logins: meter
                .u64_counter("simplechat.gateway.logins")
                .with_description("Login attempts")
                .build(),
        }
    }

    /// Counts a request as active until the returned guard is dropped.
    pub(crate) fn begin(&self) -> Active<'_> {
        self.active.add(1);
        Active(&self.active)
    }

    /// Counts a finished request; `reason`: `error.type` of its refusal, if it was refused.
    pub(crate) fn answered(
        &self,
        endpoint: Endpoint,
        method: &'static str,
        status: u16,
        took: Duration,
        reason: Option<&'static str>,
    ) {
        let mut series = self.series.borrow_mut();
        let bound = series.entry((endpoint, method, status)).or_insert_with(|| {
            self.durations.bind(&[
                KeyValue::new("http.route", endpoint.route()),
                KeyValue::new("http.request.method", method),
                KeyValue::new("http.response.status_code", i64::from(status)),
            ])
        });
        bound.record(took.as_secs_f64());
        let error = reason.map(|reason| KeyValue::new("error.type", reason));
        if endpoint == Endpoint::Login && method == "POST" {
            self.logins.add(1, error.as_slice());
        }
        if let Some(error) = error {
            self.refusals.add(1, &[KeyValue::new("http.route", endpoint.route()), error]);
        }
    }
}

/// Guard of an active request.
pub(crate) struct Active<'a>(&'a BoundUpDownCounter<i64>);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
