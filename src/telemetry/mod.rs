//! Telemetry: log lines on stderr, and traces, metrics and logs through OpenTelemetry.
//!
//! Requests only add items to bounded queues; each exporter has its own threads. Items that do not fit, or cannot be
//! delivered, are dropped and counted (`drops`).

mod drops;
pub(crate) mod escape;
mod exporters;
mod line_queue;
mod lines;

use std::{error::Error, fmt::Write as _, io, sync::mpsc, thread};

use opentelemetry::{global, metrics::Meter, trace::TracerProvider};
use opentelemetry_sdk::{
    logs::SdkLoggerProvider,
    metrics::SdkMeterProvider,
    trace::{SdkTracer, SdkTracerProvider},
};
use prometheus::{Registry, TextEncoder};

use self::{drops::Drops, lines::Lines};
use crate::{config::Config, timeouts};

/// Name of the instrumentation scope.
const SCOPE: &str = "simplechat-gateway";

/// Reasons for which telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    #[error("telemetry: {0}")]
    Exporters(Box<dyn Error>),
    #[error("cannot log to stderr: {0}")]
    Stderr(io::Error),
}

/// Log and exporters of the process. Call [`Self::end`] at the stop, outside any runtime.
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    metrics: Option<SdkMeterProvider>,
    scrape: Option<Scrape>,
    drops: Drops,
    lines: Lines,
}

impl Telemetry {
    /// Starts the log and the exporters, before any runtime: the exporters' clients have their own threads.
    ///
    /// # Errors
    /// When an exporter cannot be built, or no thread can be started.
    pub(crate) fn start(config: &Config) -> Result<Self, TelemetryError> {
        let exporters = exporters::build(&config.telemetry, config.ops_listen.is_some())
            .map_err(TelemetryError::Exporters)?;
        if let Some(metrics) = &exporters.metrics {
            global::set_meter_provider(metrics.clone());
            exporters.drops.observe(&meter());
        }
        // Last: the libraries' messages about their own start are not logged.
        let lines = Lines::start(&config.log_filter, exporters.logs.as_ref(), &exporters.drops)
            .map_err(TelemetryError::Stderr)?;
        let exporters::Exporters { traces, logs, metrics, scrape, drops } = exporters;
        Ok(Self { traces, logs, metrics, scrape: scrape.map(Scrape), drops, lines })
    }

    /// Replaces the filter of log lines.
    pub(crate) fn filter(&self, filter: &str) {
        self.lines.filter(filter);
    }

    /// Tracer for spans; `None`: traces are not exported.
    pub(crate) fn tracer(&self) -> Option<SdkTracer> {
        self.traces.as_ref().map(|traces| traces.tracer(SCOPE))
    }

    /// Metrics for Prometheus; `None`: there is no management port.
    pub(crate) fn scrape(&self) -> Option<Scrape> {
        self.scrape.clone()
    }

    /// Exports the queued items within [`timeouts::EXPORT_TIMEOUT`], then writes the queued log lines. Items that are not
    /// delivered by then are counted.
    pub(crate) fn end(self) {
        let Self { traces, logs, metrics, drops, lines, .. } = self;
        let (done, all_done) = mpsc::channel::<()>();
        let finish = |work: Box<dyn FnOnce() + Send>| {
            let done = done.clone();
            // Not joined: an exporter that hangs must not delay the end of the process.
            thread::spawn(move || {
                work();
                drop(done);
            });
        };
        let each = timeouts::EXPORTER_TIMEOUT;
        finish(Box::new(move || drop(traces.map(|it| it.shutdown_with_timeout(each)))));
        finish(Box::new(move || drop(logs.map(|it| it.shutdown_with_timeout(each)))));
        finish(Box::new(move || drop(metrics.map(|it| it.shutdown_with_timeout(each)))));
        drop(done);
        // No value is sent: the channel closes when the last thread has finished.
        let _ = all_done.recv_timeout(timeouts::EXPORT_TIMEOUT);
        drops.report_remaining();
        drop(lines);
    }
}

/// Meter for instruments. Before [`Telemetry::start`] it records nothing.
pub(crate) fn meter() -> Meter {
    global::meter(SCOPE)
}

/// All metrics in Prometheus' text format.
#[derive(Debug, Clone)]
pub(crate) struct Scrape(Registry);

impl Scrape {
    /// The metrics as `text/plain; version=0.0.4`.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.0.gather()).unwrap_or_default()
    }
}

/// Message of an error with those of all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        // The message of some errors contains their cause.
        if !text.ends_with(&message) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {message}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("unavailable: {0}")]
    struct WithCause(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outside")]
    struct Outside(#[source] WithCause);

    #[test]
    fn each_cause_appears_once() {
        let error = Outside(WithCause(io::Error::other("refused")));
        assert_eq!(chain(&error), "outside: unavailable: refused");
    }
}
