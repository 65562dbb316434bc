//! What operators read: log lines on stderr, JSON unless stderr is a terminal.

use std::{error::Error, fmt::Write as _, io::IsTerminal};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry,
    util::SubscriberInitExt,
};

/// Begins to log. `filter` as in `RUST_LOG`; one that cannot be read counts as `info`.
pub(crate) fn start(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // With it what nobody asked for is not even looked at.
    let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let filter = filter.and(filter_fn(is_fit_to_print).with_max_level_hint(most));
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_filter(filter).boxed()
    } else {
        let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
        lines.with_filter(filter).boxed()
    };
    // A second start (in a test) changes nothing.
    let _ = registry().with(lines).try_init();
}

/// What libraries tell below `info` is what they send and receive: tokens, session ids, passwords. No
/// filter brings that into a log.
fn is_fit_to_print(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || metadata.target().starts_with("simplechat_gateway")
}

/// An error with all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {next}");
        cause = next.source();
    }
    text
}
