//! Stop times from docs/operating.md.

use std::{fs, time::Duration};

use super::process::{Process, until};

/// Maximum time from the end of both drains to the end of the process.
pub(crate) const AFTER_DRAIN: Duration = Duration::from_secs(9);

/// Waits until a process has a handler for SIGTERM.
pub(crate) async fn handles_sigterm(process: &Process) {
    let path = format!("/proc/{}/status", process.id());
    until("SIGTERM has a handler", async || {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // Signal 15 is bit 14 (proc_pid_status(5)).
        caught.is_some_and(|mask| mask & (1 << 14) != 0)
    })
    .await;
}
