//! The one place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in Unix seconds.
pub(crate) fn now() -> i64 {
    millis() / 1000
}

/// Now, in Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the edge that the ban points to")]
pub(crate) fn millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Now, as the `Date` header has it (RFC 9110 §5.6.7).
#[expect(clippy::disallowed_methods, reason = "this is the edge that the ban points to")]
pub(crate) fn http_date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}
