//! Times for people, in UTC.

use std::fmt;

use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

/// A time, as pages show it and as programs read it.
#[derive(Debug, Clone)]
pub(super) struct Timestamp {
    pub(super) machine: String,
    human: String,
}

impl Timestamp {
    /// As RFC 3339 has it.
    pub(super) fn of(machine: String) -> Self {
        const HUMAN: &[BorrowedFormatItem<'_>] = format_description!(
            "[day padding:none]\u{a0}[month repr:short]\u{a0}[year], [hour]:[minute]:[second]"
        );
        let human = OffsetDateTime::parse(&machine, &Rfc3339).ok();
        let human = human.and_then(|at| at.format(HUMAN).ok()).unwrap_or_else(|| machine.clone());
        Self { machine, human }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.human)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_no_milliseconds() {
        let moment = Timestamp::of("2026-11-02T22:00:05.123Z".to_owned());
        assert_eq!(moment.to_string(), "2\u{a0}Nov\u{a0}2026, 22:00:05");
        assert_eq!(moment.machine, "2026-11-02T22:00:05.123Z");
    }
}
