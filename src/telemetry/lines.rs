//! Log lines: on stderr, JSON unless that is a terminal, and to where logs are exported.

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

/// Sets a filter anew.
type Refilter = Box<dyn Fn(EnvFilter)>;

/// Target of panics. A filter that names it decides about them, no other.
const PANIC: &str = "panic";

/// The lines that have begun. Those that wait for stderr are written when this is dropped, as far as they
/// can be in [`timeouts::LINES`].
pub(super) struct Lines {
    refilters: Vec<Refilter>,
    queue: LineQueue,
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.queue.flush(timeouts::LINES);
    }
}

impl Lines {
    /// Begins to log, panics included. `filter` as in `RUST_LOG`; one that cannot be read counts as `info`.
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
        // A second start (in a test) changes nothing.
        let _ = registry().with(lines).with(exported).try_init();
        panic::set_hook(Box::new(log_panic));
        Ok(Self { refilters, queue })
    }

    /// From now on another filter counts.
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

/// Fields on a terminal: all of their control characters are escaped, before the formatter adds its colours.
pub(super) fn text_fields() -> impl for<'w> FormatFields<'w> {
    let fields = format::debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        let value = escape(&value, &[]);
        match field.name() {
            "message" => write!(writer, "{value}"),
            // Of a library's `log` record: its target and place, which the formatter knows.
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{name}={value}"),
        }
    });
    fields.delimited(" ")
}

/// Logs a panic. The standard library's hook writes to stderr itself, and would wait for its reader.
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
    // With the filter's hint what nobody asked for is not even looked at; ours must not stand in its way.
    let included = filter_fn(is_included).with_max_level_hint(LevelFilter::TRACE);
    let refilter = move |filter| drop(handle.reload(filter));
    (filter.and(included), Box::new(refilter))
}

/// What libraries tell below `info` is what they send and receive: tokens, session ids, passwords. No
/// filter brings that into a log. sqlx repeats what it does not know of a database's URL, value and all.
/// OpenTelemetry's own progress is nothing to an operator, and its failures to export are told by `losses`,
/// once in a while.
fn is_printed(metadata: &Metadata<'_>) -> bool {
    let of_libraries =
        if metadata.target().starts_with("opentelemetry") { Level::WARN } else { Level::INFO };
    let of_urls = metadata.target().starts_with("sqlx_postgres::options");
    *metadata.level() <= of_libraries && !of_urls && !metadata.name().ends_with(".ExportError")
        || metadata.target().starts_with("simplechat_gateway")
}

/// What the exporters' own libraries tell is not exported: that would be told again, without end.
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

    /// The standard hook would wait for the reader of stderr.
    #[test]
    fn a_panic_is_a_log_line_whatever_the_filter() {
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
