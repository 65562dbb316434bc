//! Metrics of token verification and key refreshes.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

use super::{DocumentError, EntraError};
use crate::telemetry::meter;

/// Bucket bounds in seconds: a verification takes about 30 µs, one that waits for a refresh far more.
const BOUNDS: [f64; 8] = [0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.01, 0.1, 1.0];

pub(super) struct EntraMetrics {
    verifications: Histogram<f64>,
    refreshes: Counter<u64>,
}

impl EntraMetrics {
    pub(super) fn new() -> Self {
        Self {
            verifications: meter()
                .f64_histogram("simplechat.gateway.token.verification.duration")
                .with_description("Token verifications; cached tokens are not verified again")
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .build(),
            refreshes: meter()
                .u64_counter("simplechat.gateway.signing_keys.refreshes")
                .with_description("Attempts to fetch the tenant's signing keys")
                .build(),
        }
    }

    pub(super) fn verified<T>(&self, took: Duration, result: &Result<T, EntraError>) {
        let took = took.as_secs_f64();
        match result {
            Ok(_) => self.verifications.record(took, &[]),
            Err(error) => {
                self.verifications.record(took, &[KeyValue::new("error.type", error.reason())]);
            }
        }
    }

    pub(super) fn refreshed<T>(&self, result: &Result<T, DocumentError>) {
        match result {
            Ok(_) => self.refreshes.add(1, &[]),
            Err(error) => self.refreshes.add(1, &[KeyValue::new("error.type", reason(error))]),
        }
    }
}

/// Observes the age of the keys, while there are any.
pub(super) fn observe_age(age: impl Fn() -> Option<Duration> + Send + Sync + 'static) {
    meter()
        .f64_observable_gauge("simplechat.gateway.signing_keys.age")
        .with_description(
            "Time since the last fetch of the signing keys; after 24 h they are discarded",
        )
        .with_unit("s")
        .with_callback(move |observer| {
            if let Some(age) = age() {
                observer.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
}

fn reason(error: &DocumentError) -> &'static str {
    match error {
        DocumentError::Unreachable { .. } => "unreachable",
        DocumentError::Status { .. } => "status",
        DocumentError::TooLarge { .. } => "too_large",
        DocumentError::Malformed { .. } => "malformed",
    }
}
