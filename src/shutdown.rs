//! Time-outs of the stop, after SIGTERM or SIGINT.

use std::time::Duration;

/// Log lines that wait for stderr.
pub(crate) const LINES: Duration = Duration::from_millis(500);
/// The message of a failure, on stderr.
pub(crate) const MESSAGE: Duration = Duration::from_millis(500);
