//! What operators see of the running gateway: log lines, and traces, metrics and logs by OpenTelemetry.
//!
//! Requests only put things into bounded queues; each exporter has threads of its own. What does not fit,
//! or cannot be delivered, is lost, and counted (`losses`).

mod drops;
pub(crate) mod escape;
mod exporters;
mod line_queue;
mod lines;

use std::{error::Error, fmt::Write as _, sync::mpsc, thread};

use opentelemetry::{global, metrics::Meter, trace::TracerProvider};
use opentelemetry_sdk::{
    logs::SdkLoggerProvider,
    metrics::SdkMeterProvider,
    trace::{SdkTracer, SdkTracerProvider},
};
use prometheus::{Registry, TextEncoder};

use self::{drops::Drops, lines::Lines};
use crate::{cli::exit::Failure, config::Config, timeouts};

/// The instrumentation scope.
const SCOPE: &str = "simplechat-gateway";

/// Everything that is told; to be ended by [`Self::end`], outside any runtime.
pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
    metrics: Option<SdkMeterProvider>,
    scrape: Option<Scrape>,
    drops: Drops,
    lines: Lines,
}

impl Telemetry {
    /// Begins to log and to export, before any runtime: exporters' clients have threads of their own.
    ///
    /// # Errors
    /// When an exporter cannot be built, or no thread can be started.
    pub(crate) fn start(config: &Config) -> Result<Self, Failure> {
        let exporters = exporters::build(&config.telemetry, config.ops_listen.is_some())
            .map_err(|error| Failure::Unavailable(format!("telemetry: {error}")))?;
        if let Some(metrics) = &exporters.metrics {
            global::set_meter_provider(metrics.clone());
            exporters.drops.observe(&meter());
        }
        // Last: what the libraries tell of their own start is no news.
        let lines = Lines::start(&config.log_filter, exporters.logs.as_ref(), &exporters.drops)
            .map_err(|error| Failure::Internal(format!("cannot log to stderr: {error}")))?;
        let exporters::Exporters { traces, logs, metrics, scrape, drops } = exporters;
        Ok(Self { traces, logs, metrics, scrape: scrape.map(Scrape), drops, lines })
    }

    /// From now on another filter of log lines counts.
    pub(crate) fn filter(&self, filter: &str) {
        self.lines.filter(filter);
    }

    /// Begins spans, where traces go anywhere.
    pub(crate) fn tracer(&self) -> Option<SdkTracer> {
        self.traces.as_ref().map(|traces| traces.tracer(SCOPE))
    }

    /// What Prometheus reads.
    pub(crate) fn scrape(&self) -> Option<Scrape> {
        self.scrape.clone()
    }

    /// Exports what waits, as far as it goes in [`timeouts::EXPORT`], then writes the log lines that wait. What
    /// could not be delivered by then is counted.
    pub(crate) fn end(self) {
        let Self { traces, logs, metrics, drops, lines, .. } = self;
        let (done, all_done) = mpsc::channel::<()>();
        let finish = |work: Box<dyn FnOnce() + Send>| {
            let done = done.clone();
            // Not joined: an exporter in the middle of something does not hold up the process.
            thread::spawn(move || {
                work();
                drop(done);
            });
        };
        let each = timeouts::EXPORT_EACH;
        finish(Box::new(move || drop(traces.map(|it| it.shutdown_with_timeout(each)))));
        finish(Box::new(move || drop(logs.map(|it| it.shutdown_with_timeout(each)))));
        finish(Box::new(move || drop(metrics.map(|it| it.shutdown_with_timeout(each)))));
        drop(done);
        // Nothing is sent: it ends when the last of them has.
        let _ = all_done.recv_timeout(timeouts::EXPORT);
        drops.report_remaining();
        drop(lines);
    }
}

/// What a part of the gateway measures with. Until exporters are started nothing is measured.
pub(crate) fn meter() -> Meter {
    global::meter(SCOPE)
}

/// All metrics as Prometheus reads them.
#[derive(Debug, Clone)]
pub(crate) struct Scrape(Registry);

impl Scrape {
    /// `text/plain; version=0.0.4`.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.0.gather()).unwrap_or_default()
    }
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        // Some errors tell their cause themselves.
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
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("away: {0}")]
    struct WithCause(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outside")]
    struct Outside(#[source] WithCause);

    #[test]
    fn each_cause_is_told_once() {
        let error = Outside(WithCause(io::Error::other("refused")));
        assert_eq!(chain(&error), "outside: away: refused");
    }
}
