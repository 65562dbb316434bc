//! The one place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Now, in Unix seconds.
pub(crate) fn now() -> i64 {
    millis() / 1000
}

/// Now, in Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "this is the edge that the ban points to")]
pub(crate) fn millis() -> i64 {
    #[cfg(debug_assertions)]
    if let Some(seconds) = stopped::at() {
        return seconds * 1000;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Now, as the `Date` header has it (RFC 9110 §5.6.7).
#[expect(clippy::disallowed_methods, reason = "this is the edge that the ban points to")]
pub(crate) fn http_date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// Unix milliseconds as RFC 3339 has it, in UTC.
pub(crate) fn rfc3339(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Unix milliseconds of a time as RFC 3339 has it; `None`: it is none.
pub(crate) fn millis_of(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// A clock that stands still, so that tokens of a test corpus can be judged at the moment they were made
/// for. Debug builds alone have it: no released gateway can be told another time.
#[cfg(debug_assertions)]
pub(crate) mod stopped {
    use std::sync::OnceLock;

    static AT: OnceLock<i64> = OnceLock::new();

    pub(super) fn at() -> Option<i64> {
        AT.get().copied()
    }

    /// Stops the clock at a Unix time in seconds, for good.
    pub(crate) fn stop(at: i64) {
        let _ = AT.set(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_rfc_3339_has_them() {
        assert_eq!(rfc3339(1_795_384_800_123), "2026-11-22T22:00:00.123Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
