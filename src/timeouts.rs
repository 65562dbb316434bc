//! The stop: its signals and its time-outs. No step waits longer, whatever is away: the process ends within
//! `GATEWAY_DRAIN_DELAY` + `GATEWAY_DRAIN_TIMEOUT` + the sum of the constants, which docs/operating.md
//! documents.
//!
//! | step | most |
//! |---|---|
//! | not ready, still taking connections | `GATEWAY_DRAIN_DELAY` |
//! | requests in flight | `GATEWAY_DRAIN_TIMEOUT` |
//! | activity records, deregistration of the instance, the canary's session, ends of threads: all at once | [`RECORDS`] |
//! | blocking calls: file system, name server | [`BLOCKING`] |
//! | export of telemetry | [`EXPORT`], of which [`EXPORT_EACH`] for one exporter |
//! | log lines that wait for stderr | [`LINES`] |
//! | the message of a failure, on stderr | [`MESSAGE`] |
//!
//! A signal during the start skips both drains: nothing has been served yet.

use std::{io, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Activity records, deregistration, the canary's session and ends of threads, all at once.
pub(crate) const RECORDS: Duration = Duration::from_secs(5);
/// Blocking calls of a thread: the file system and the name server. Worker threads take it within
/// [`RECORDS`].
pub(crate) const BLOCKING: Duration = Duration::from_millis(500);
/// Export of all telemetry that waits.
pub(crate) const EXPORT: Duration = Duration::from_millis(2500);
/// Export by one exporter: one that hangs leaves as much for the other.
pub(crate) const EXPORT_EACH: Duration = Duration::from_millis(1250);
/// Log lines that wait for stderr.
pub(crate) const LINES: Duration = Duration::from_millis(500);
/// The message of a failure, on stderr.
pub(crate) const MESSAGE: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT, from now on.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Replaces the default action of both, within a runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub(crate) fn install() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Seconds after both drains that the documentation and the deployment files give the process.
    const GRACE: u64 = 10;

    fn read(path: &str) -> String {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The number after `name` in a file.
    fn seconds(path: &str, name: &str) -> u64 {
        let text = read(path);
        let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("{path}: no {name}"));
        let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().expect("a number")
    }

    /// decocms/studio#3975.
    #[test]
    fn documentation_and_deployment_files_have_the_sum_of_the_time_outs() {
        let sum = RECORDS + BLOCKING + EXPORT + LINES + MESSAGE;
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
        for (value, setting) in [(RECORDS, "database"), (EXPORT, "telemetry")] {
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
