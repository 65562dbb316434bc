//! Log lines: on stderr, JSON unless that is a terminal, and to where logs are exported.

use std::io::IsTerminal;

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt,
    layer::{Filter, SubscriberExt},
    registry, reload,
    util::SubscriberInitExt,
};

/// Sets a filter anew.
type Refilter = Box<dyn Fn(EnvFilter)>;

/// The lines that have begun.
pub(super) struct Lines(Vec<Refilter>);

impl Lines {
    /// Begins to log. `filter` as in `RUST_LOG`; one that cannot be read counts as `info`.
    pub(super) fn start(filter: &str, exported: Option<&SdkLoggerProvider>) -> Self {
        let (judging, refilter) = judging(filter, is_fit_to_print);
        let mut refilters = vec![refilter];
        let lines = fmt::layer().with_writer(std::io::stderr);
        let lines = if std::io::stderr().is_terminal() {
            lines.with_filter(judging).boxed()
        } else {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).with_filter(judging).boxed()
        };
        let exported = exported.map(|provider| {
            let (judging, refilter) = self::judging(filter, is_fit_to_export);
            refilters.push(refilter);
            OpenTelemetryTracingBridge::new(provider).with_filter(judging)
        });
        // A second start (in a test) changes nothing.
        let _ = registry().with(lines).with(exported).try_init();
        Self(refilters)
    }

    /// From now on another filter counts.
    pub(super) fn filter(&self, filter: &str) {
        for refilter in &self.0 {
            refilter(read(filter));
        }
    }
}

fn read(filter: &str) -> EnvFilter {
    EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"))
}

fn judging<S: Subscriber>(
    filter: &str,
    is_fit: fn(&Metadata<'_>) -> bool,
) -> (impl Filter<S> + use<S>, Refilter) {
    let (filter, handle) = reload::Layer::new(read(filter));
    // With the filter's hint what nobody asked for is not even looked at; ours must not stand in its way.
    let fit = filter_fn(is_fit).with_max_level_hint(LevelFilter::TRACE);
    let refilter = move |filter| drop(handle.reload(filter));
    (filter.and(fit), Box::new(refilter))
}

/// What libraries tell below `info` is what they send and receive: tokens, session ids, passwords. No
/// filter brings that into a log. sqlx repeats what it does not know of a database's URL, value and all.
/// OpenTelemetry's own progress is nothing to an operator, and its failures to export are told by `losses`,
/// once in a while.
fn is_fit_to_print(metadata: &Metadata<'_>) -> bool {
    let of_libraries =
        if metadata.target().starts_with("opentelemetry") { Level::WARN } else { Level::INFO };
    let of_urls = metadata.target().starts_with("sqlx_postgres::options");
    *metadata.level() <= of_libraries && !of_urls && !metadata.name().ends_with(".ExportError")
        || metadata.target().starts_with("simplechat_gateway")
}

/// What the exporters' own libraries tell is not exported: that would be told again, without end.
fn is_fit_to_export(metadata: &Metadata<'_>) -> bool {
    let of_exporters = ["opentelemetry", "reqwest", "hyper", "rustls", "h2"];
    is_fit_to_print(metadata)
        && !of_exporters.iter().any(|library| metadata.target().starts_with(library))
}
