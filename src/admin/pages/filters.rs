//! Filters for templates.

use std::fmt::Display;

use askama::Values;
use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

/// Formats an RFC 3339 time for people, in UTC without milliseconds: `2 Nov 2026, 22:00:05`. Returns
/// other text unchanged.
#[askama::filter_fn]
pub(super) fn utc(time: impl Display, _: &dyn Values) -> askama::Result<String> {
    Ok(readable(&time.to_string()))
}

fn readable(time: &str) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] = format_description!(
        "[day padding:none]\u{a0}[month repr:short]\u{a0}[year], [hour]:[minute]:[second]"
    );
    let parsed = OffsetDateTime::parse(time, &Rfc3339).ok();
    parsed.and_then(|at| at.format(FORMAT).ok()).unwrap_or_else(|| time.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_without_milliseconds() {
        assert_eq!(readable("2026-11-02T22:00:05.123Z"), "2\u{a0}Nov\u{a0}2026, 22:00:05");
        assert_eq!(readable("unknown"), "unknown");
    }
}
