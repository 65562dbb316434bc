//! The only source of wall-clock time, and its text forms.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Current time in Unix seconds.
pub(crate) fn now() -> i64 {
    millis() / 1000
}

/// Current time in Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "the lint refers callers to this function")]
pub(crate) fn millis() -> i64 {
    #[cfg(debug_assertions)]
    if let Some(seconds) = stopped::at() {
        return seconds * 1000;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Current time in the format of the `Date` header (RFC 9110 §5.6.7).
#[expect(clippy::disallowed_methods, reason = "the lint refers callers to this function")]
pub(crate) fn http_date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// RFC 3339 text of a time in Unix milliseconds, in UTC.
pub(crate) fn rfc3339(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Unix milliseconds of an RFC 3339 text; `None`: it is malformed.
pub(crate) fn millis_of(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// Stopped clock, with which tokens of a test corpus are verified at the time for which they were issued. Exists in
/// debug builds only: the time of a released gateway cannot be changed.
#[cfg(debug_assertions)]
pub(crate) mod stopped {
    use std::sync::OnceLock;

    static AT: OnceLock<i64> = OnceLock::new();

    pub(super) fn at() -> Option<i64> {
        AT.get().copied()
    }

    /// Stops the clock permanently at a time in Unix seconds.
    pub(crate) fn stop(at: i64) {
        let _ = AT.set(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_by_rfc_3339() {
        assert_eq!(rfc3339(1_795_384_800_123), "2026-11-22T22:00:00.123Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
