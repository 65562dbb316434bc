//! The stop, as docs/operating.md documents it.

use std::time::Duration;

/// Longest time from the end of both drains to the end of the process.
pub(crate) const AFTER_DRAIN: Duration = Duration::from_secs(9);
