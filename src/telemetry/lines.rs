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
    registry,
    util::SubscriberInitExt,
};

/// Begins to log. `filter` as in `RUST_LOG`; one that cannot be read counts as `info`.
pub(super) fn start(filter: &str, exported: Option<&SdkLoggerProvider>) {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_filter(judging(filter, is_fit_to_print)).boxed()
    } else {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
        lines.with_filter(judging(filter, is_fit_to_print)).boxed()
    };
    let exported = exported.map(|provider| {
        OpenTelemetryTracingBridge::new(provider).with_filter(judging(filter, is_fit_to_export))
    });
    // A second start (in a test) changes nothing.
    let _ = registry().with(lines).with(exported).try_init();
}

fn judging<S: Subscriber>(
    filter: &str,
    is_fit: fn(&Metadata<'_>) -> bool,
) -> impl Filter<S> + use<S> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // With it what nobody asked for is not even looked at.
    let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    filter.and(filter_fn(is_fit).with_max_level_hint(most))
}

/// What libraries tell below `info` is what they send and receive: tokens, session ids, passwords. No
/// filter brings that into a log.
fn is_fit_to_print(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with("simplechat_gateway")
}

/// What the exporters' own libraries tell is not exported: that would be told again, without end.
fn is_fit_to_export(metadata: &Metadata<'_>) -> bool {
    let of_exporters = ["opentelemetry", "reqwest", "hyper", "rustls", "h2"];
    is_fit_to_print(metadata)
        && !of_exporters.iter().any(|library| metadata.target().starts_with(library))
}
