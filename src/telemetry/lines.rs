//! Log lines: on stderr (JSON unless it is a terminal) and to the exporters of logs.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal as _},
    panic, thread,
};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::MakeExt as _,
    filter::{FilterExt, LevelFilter, filter_fn},
    fmt::{self, FormatFields, format},
    layer::{Filter, SubscriberExt},
    registry, reload,
    util::SubscriberInitExt,
};

use super::{drops::Drops, escape::escape, line_queue::LineQueue};
use crate::timeouts;

/// Replaces a filter.
type Refilter = Box<dyn Fn(EnvFilter)>;

/// Target of panic records. Only a filter that names it can exclude them.
const PANIC: &str = "panic";

/// Running log. On drop the queued lines are written to stderr within [`timeouts::LINES_TIMEOUT`].
pub(super) struct Lines {
    refilters: Vec<Refilter>,
    queue: LineQueue,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.queue.flush(timeouts::LINES_TIMEOUT);
    }
}

impl Lines {
    /// Starts the log, panics included. `filter` as in `RUST_LOG`; an invalid one is replaced by `info`.
    ///
    /// # Errors
    /// When the thread that writes to stderr cannot be started.
    pub(super) fn start(
        filter: &str,
        exported: Option<&SdkLoggerProvider>,
        drops: &Drops,
    ) -> io::Result<Self> {
        let queue = LineQueue::start(drops.counts("stderr", "logs"))?;
        let (filtered, refilter) = filtered(filter, is_printed);
        let mut refilters = vec![refilter];
        let lines = fmt::layer().with_writer(queue.clone());
        let lines = if io::stderr().is_terminal() {
            lines.fmt_fields(text_fields()).with_filter(filtered).boxed()
        } else {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).with_filter(filtered).boxed()
        };
        let exported = exported.map(|provider| {
            let (filtered, refilter) = self::filtered(filter, is_exported);
            refilters.push(refilter);
            OpenTelemetryTracingBridge::new(provider).with_filter(filtered)
        });
        // A second start (in a test) has no effect.
        let _ = registry().with(lines).with(exported).try_init();
        panic::set_hook(Box::new(log_panic));
        Ok(Self { refilters, queue })
    }

    /// Replaces the filter.
    pub(super) fn filter(&self, filter: &str) {
        for refilter in &self.refilters {
            refilter(read(filter));
        }
    }
}

fn read(filter: &str) -> EnvFilter {
    let panics = format!("{PANIC}=error");
    EnvFilter::try_new(format!("{panics},{filter}"))
        .unwrap_or_else(|_| EnvFilter::new(format!("{panics},info")))
}

/// Field formatter for a terminal: escapes all control characters, before the formatter adds its colours.
pub(super) fn text_fields() -> impl for<'w> FormatFields<'w> {
    let fields = format::debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        let value = escape(&value, &[]);
        match field.name() {
            "message" => write!(writer, "{value}"),
            // Target and location of a library's `log` record, which the formatter writes itself.
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{name}={value}"),
        }
    });
    fields.delimited(" ")
}

/// Logs a panic. The standard library's hook writes to stderr itself, and would block on its reader.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        target: PANIC,
        thread = thread.name(),
        location = panic.location().map(tracing::field::display),
        panic = panic.payload_as_str(),
        backtrace = is_captured.then(|| tracing::field::display(&backtrace)),
        "a thread panicked"
    );
}

fn filtered<S: Subscriber>(
    filter: &str,
    is_included: fn(&Metadata<'_>) -> bool,
) -> (impl Filter<S> + use<S>, Refilter) {
    let (filter, handle) = reload::Layer::new(read(filter));
    // The filter's level hint disables call sites early; TRACE here leaves that hint in effect.
    let included = filter_fn(is_included).with_max_level_hint(LevelFilter::TRACE);
    let refilter = move |filter| drop(handle.reload(filter));
    (filter.and(included), Box::new(refilter))
}

/// True for records that may be logged. Libraries log below `info` the bytes that they send and receive: tokens,
/// session ids, passwords. No filter may enable that. sqlx logs unknown parameters of a database URL with their
/// values. OpenTelemetry's progress is of no use to operators, and `drops` reports its failed exports.
fn is_printed(metadata: &Metadata<'_>) -> bool {
    let max_level =
        if metadata.target().starts_with("opentelemetry") { Level::WARN } else { Level::INFO };
    let is_of_url = metadata.target().starts_with("sqlx_postgres::options");
    *metadata.level() <= max_level && !is_of_url && !metadata.name().ends_with(".ExportError")
        || metadata.target().starts_with("simplechat_gateway")
}

/// True for records that may be exported. Records of the exporters' own libraries are not: each export would cause
/// new ones, without end.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    let of_exporters = ["opentelemetry", "reqwest", "hyper", "rustls", "h2"];
    is_printed(metadata)
        && !of_exporters.iter().any(|library| metadata.target().starts_with(library))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The standard hook would block on the reader of stderr.
    #[test]
    fn a_panic_is_logged_with_every_filter() {
        for filter in ["info", "off", "simplechat_gateway::http=debug", "not=a=filter"] {
            let written = Written::default();
            let into = written.clone();
            let lines = fmt::layer().json().with_writer(move || into.clone());
            let subscriber = registry().with(lines.with_filter(read(filter)));
            let standard = panic::take_hook();
            panic::set_hook(Box::new(log_panic));
            let caught = tracing::subscriber::with_default(subscriber, || {
                panic::catch_unwind(|| panic!("at {}", 42))
            });
            panic::set_hook(standard);
            assert!(caught.is_err());
            let written = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let line: serde_json::Value = serde_json::from_slice(&written).expect("one line");
            assert_eq!(line["level"], "ERROR", "{filter}");
            assert_eq!(line["fields"]["panic"], "at 42", "{filter}");
            let location = line["fields"]["location"].as_str().expect("a place");
            assert!(location.starts_with("src/telemetry/lines.rs:"), "{location}");
        }
    }
}
