//! Timeouts: the table of all of them, the constants of the stop, and the stop signals.
//!
//! Intervals, ages and pauses are not timeouts and are documented at their constants.
//!
//! # Callers
//!
//! | timeout | value | bounds | contains |
//! |---|---|---|---|
//! | `GATEWAY_TIMEOUT_HEAD` | 10 s | a request head, from its first byte (408) | |
//! | `GATEWAY_TIMEOUT_IDLE` | 240 s | idle time between requests; one wait for more of a body; an unused tunnel | |
//! | `GATEWAY_TIMEOUT_SEND` | 60 s | time in which a caller accepts no byte of a response | |
//! | `h1::min_rate::GRACE`, `MAX_CREDIT` | 5 s, 30 s | time in which a body is below 240 B/s (408); at most `GATEWAY_TIMEOUT_IDLE` | |
//! | `h1::caller::IDLE_AFTER` | 1 s | time without a byte until the state for requests is dropped | |
//! | `h1::caller::closing::DRAIN` | 1 s | reading and discarding a short body, to reuse the connection | |
//! | `h1::caller::closing::LINGER`, `LINGER_OVER_CAPACITY` | 2 s, 0.1 s | lingering close | |
//! | `GATEWAY_WARMUP_WAIT` | 180 s | wait of `GET /robots933456.txt` for upstream's first response | |
//!
//! # Upstream
//!
//! | timeout | value | bounds | contains |
//! |---|---|---|---|
//! | `GATEWAY_TIMEOUT_CONNECT` | 5 s | TCP or Unix connect and TLS handshake (502) | |
//! | `GATEWAY_TIMEOUT_RESPONSE` | 900 s | time in which upstream neither accepts request bytes nor starts its response (504) | |
//! | `GATEWAY_TIMEOUT_SLOT` | 30 s | wait for an upload slot (503) | |
//! | `upstream::exchange::Exchange::small_body` | 1 s | reading a short response before the request is repeated | |
//! | `upstream::PROBE_TIMEOUT` | 5 s | one probe | connect |
//! | `upstream::field_limit::MEASUREMENT_TIMEOUT` | 2 s | one measurement of the field limit during a login: two requests | connect |
//! | `cli::check::MEASUREMENT_TIMEOUT` | 10 s | all measurements of `check` | connect |
//! | `canary::UPSTREAM_TIMEOUT` | 10 s | one request of the canary | connect |
//! | `registration::token_version_probe::UPSTREAM_TIMEOUT` | 10 s | one request | connect |
//! | `cli::doctor::bypass::UPSTREAM_TIMEOUT` | 10 s | one request | connect |
//! | `cli::doctor::bypass::CONNECT_TIMEOUT` | 2 s | one connect to another address | |
//! | `cli::doctor::documents::UPSTREAM_TIMEOUT` | 10 s | one request | connect |
//! | `admin::api::guide::UPSTREAM_TIMEOUT` | 2 s | the request of the set-up guide for SimpleChat's token version | connect |
//!
//! # Session store
//!
//! | timeout | value | bounds | contains |
//! |---|---|---|---|
//! | `sessions::STORE_TIMEOUT` | 1.8 s | one operation while a caller waits | `COMMAND_TIMEOUT` |
//! | `sessions::limits::COUNT_TIMEOUT` | 0.25 s | counting a failed login while the caller waits | |
//! | `sessions::CONNECT_TIMEOUT` | 5 s | first connection of a command | `COMMAND_TIMEOUT` |
//! | `sessions::backend::redis_connection::COMMAND_TIMEOUT` | 1.5 s | one Redis command, the wait for a connection included | `UNRESPONSIVE` |
//! | `sessions::backend::redis_connection::UNRESPONSIVE` | 1 s | silence of a Redis connection with an open command | |
//! | `sessions::backend::redis_credentials::FETCH_TIMEOUT` | 20 s | one renewal of credentials for Redis | `azure::REQUEST_TIMEOUT` |
//! | `sessions::backend::azure::REQUEST_TIMEOUT` | 10 s | one HTTP request to Azure | |
//!
//! # Database
//!
//! | timeout | value | bounds | contains |
//! |---|---|---|---|
//! | `activity::queue::ENQUEUE_TIMEOUT` | 1.5 s | wait of a caller for a record to be queued, written, or a restriction to be stored | |
//! | `control::restrictions::RECORD_TIMEOUT` | 1.5 s | wait of a revocation for its records | |
//! | `control::decisions::APPLY_TIMEOUT` | 1 s | wait until this instance applies a decision of its own administrator | |
//! | `activity::pool::QUERY_TIMEOUT` | 2 s | one unit of work; getting, returning or opening a connection; SQLite's lock | |
//! | `activity::pool::LONG_QUERY_TIMEOUT` | 30 s | one unit of work on many rows | |
//!
//! `ENQUEUE_TIMEOUT` and `RECORD_TIMEOUT` are shorter than `QUERY_TIMEOUT`: a caller does not wait for a query that
//! hangs.
//!
//! # Entra, public URL, telemetry
//!
//! | timeout | value | bounds | contains |
//! |---|---|---|---|
//! | `entra::documents::Documents::new` | 5 s, of which 3 s connect | one HTTP request to Entra | |
//! | `registration::public_url_probe::REQUEST_TIMEOUT` | 5 s | one HTTP request to a public URL | |
//! | `cli::check::REQUEST_TIMEOUT` | 5 s | one HTTP request to the gateway | |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT` | 10 s | one batch to the collector | |
//! | `telemetry::exporters::INGESTION` | 10 s | one HTTP request to Application Insights | |
//!
//! # Start and reload
//!
//! | timeout | value | bounds | contains |
//! |---|---|---|---|
//! | `server::startup::START_TIMEOUT` | 0.5 s each | first read of the revocation list; first read of the blocks | |
//! | `server::READ_TIMEOUT` | 5 s | reading the settings at SIGHUP | |
//!
//! # Stop
//!
//! No step takes longer, whatever is unavailable: the process ends within `GATEWAY_DRAIN_DELAY` +
//! `GATEWAY_DRAIN_TIMEOUT` + the sum of the constants below, which docs/operating.md documents. The steps run one
//! after the other. Timeouts of the tables above that are longer than a step end with the step.
//!
//! | step | maximum | contains |
//! |---|---|---|
//! | not ready, still accepting connections | `GATEWAY_DRAIN_DELAY` (5 s) | |
//! | requests in flight | `GATEWAY_DRAIN_TIMEOUT` (20 s) | |
//! | activity records, deregistration of the instance, the canary's session, ends of threads: concurrently | [`RECORDS_TIMEOUT`] (5 s) | `QUERY_TIMEOUT`, `STORE_TIMEOUT`, [`BLOCKING_TIMEOUT`] of worker threads |
//! | blocking calls: file system, name resolution | [`BLOCKING_TIMEOUT`] (0.5 s) | |
//! | export of telemetry | [`EXPORT_TIMEOUT`] (2.5 s) | [`EXPORTER_TIMEOUT`] (1.25 s) for one exporter |
//! | queued log lines to stderr | [`LINES_TIMEOUT`] (0.5 s) | |
//! | the message of a failure to stderr | [`MESSAGE_TIMEOUT`] (0.5 s) | |
//!
//! A signal during the start skips both drains: no request has been served yet.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Activity records, deregistration, the canary's session and ends of threads, concurrently.
pub(crate) const RECORDS_TIMEOUT: Duration = Duration::from_secs(5);
/// Blocking calls of a thread: file system and name resolution. That of worker threads is within [`RECORDS_TIMEOUT`].
pub(crate) const BLOCKING_TIMEOUT: Duration = Duration::from_millis(500);
/// Export of all queued telemetry.
pub(crate) const EXPORT_TIMEOUT: Duration = Duration::from_millis(2500);
/// Export by one exporter: one that hangs leaves the same time for the other.
pub(crate) const EXPORTER_TIMEOUT: Duration = Duration::from_millis(1250);
/// Writing of the queued log lines to stderr.
pub(crate) const LINES_TIMEOUT: Duration = Duration::from_millis(500);
/// Writing of the message of a failure to stderr.
pub(crate) const MESSAGE_TIMEOUT: Duration = Duration::from_millis(500);

/// Handlers of SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Replaces the default action of both signals. Requires a runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub(crate) fn install() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Grace period after both drains in the documentation and the deployment files, in seconds.
    const GRACE: u64 = 10;

    fn read(path: &str) -> String {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// First number after `name` in a file.
    fn seconds(path: &str, name: &str) -> u64 {
        let text = read(path);
        let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{path}: no {name}"));
        let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().expect("a number")
    }

    /// decocms/studio#3975.
    /// Sources below a directory, with their module paths.
    fn sources(folder: &Path, module: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let inner = if module.is_empty() { name.clone() } else { format!("{module}::{name}") };
            if path.is_dir() {
                sources(&path, &inner, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let module = if name == "mod" { module.to_owned() } else { inner };
                found.push((module, fs::read_to_string(&path).unwrap()));
            }
        }
    }

    #[test]
    fn the_table_names_every_timeout() {
        let mut all = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut all);
        let (_, table) = all.iter().find(|(module, _)| module == "timeouts").unwrap();
        let mut count = 0;
        for (module, text) in all.iter().filter(|(module, _)| module != "timeouts") {
            for line in text.lines().filter(|line| line.contains("_TIMEOUT: Duration =")) {
                let name = line.split("const ").nth(1).unwrap().split(':').next().unwrap();
                assert!(table.contains(&format!("`{module}::{name}`")), "{module}::{name}");
                count += 1;
            }
        }
        assert!(count >= 20, "{count}");
    }

    #[test]
    fn documentation_and_deployment_files_contain_the_sum_of_the_timeouts() {
        let sum =
            RECORDS_TIMEOUT + BLOCKING_TIMEOUT + EXPORT_TIMEOUT + LINES_TIMEOUT + MESSAGE_TIMEOUT;
        let documented = format!("{} seconds", sum.as_secs_f64());
        let grace = format!("`GATEWAY_DRAIN_DELAY` + `GATEWAY_DRAIN_TIMEOUT` + {GRACE} s");
        assert!(sum < Duration::from_secs(GRACE));
        assert!(read("docs/operating.md").contains(&documented), "{documented}");
        for page in [
            "docs/operating.md",
            "docs/hardening.md",
            "docs/telemetry.md",
            "docs/deploy/app-service.md",
            "docs/deploy/container-apps.md",
            "docs/deploy/images.md",
            "docs/deploy/kubernetes.md",
        ] {
            let text = read(page).replace('\n', " ");
            assert!(text.contains(&grace), "{page}: {grace}");
        }
        for (value, setting) in [(RECORDS_TIMEOUT, "database"), (EXPORT_TIMEOUT, "telemetry")] {
            let page = read(&format!("docs/{setting}.md"));
            let value = format!("{} s", value.as_secs_f64());
            assert!(page.contains(&value), "docs/{setting}.md: {value}");
        }

        let defaults = 5 + 20 + GRACE;
        assert_eq!(seconds("charts/simplechat-gateway/values.yaml", "marginSeconds:"), GRACE);
        assert_eq!(seconds("compose.yaml", "stop_grace_period:"), defaults);
        assert_eq!(seconds("docs/deploy/images.md", "--stop-timeout"), defaults);
        let app_service = "deploy/app-service/main.bicep";
        assert_eq!(seconds(app_service, "WEBSITES_CONTAINER_STOP_TIME_LIMIT"), defaults);
        let container_apps = "deploy/container-apps/main.bicep";
        let drain = seconds(container_apps, "'GATEWAY_DRAIN_DELAY'")
            + seconds(container_apps, "'GATEWAY_DRAIN_TIMEOUT'");
        assert_eq!(seconds(container_apps, "terminationGracePeriodSeconds"), drain + GRACE);
    }
}
