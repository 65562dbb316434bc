//! Activity records as CSV (RFC 4180), safe to open in a spreadsheet.

use crate::{activity::Record, clock};

const COLUMNS: [&str; 14] = [
    "at",
    "kind",
    "outcome",
    "reason",
    "actor_oid",
    "actor_name",
    "actor_email",
    "subject",
    "client",
    "session",
    "address",
    "request_id",
    "text",
    "id",
];

/// Header line.
pub(crate) fn heading() -> String {
    row(COLUMNS.into_iter())
}

/// Line of a record.
pub(crate) fn line(record: &Record) -> String {
    let at = clock::rfc3339(record.at);
    let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
    let cells = [
        at,
        record.kind.name().to_owned(),
        record.outcome.name().to_owned(),
        text(&record.reason),
        text(&record.actor.oid),
        text(&record.actor.name),
        text(&record.actor.email),
        text(&record.subject),
        text(&record.client),
        text(&record.session),
        text(&record.address),
        text(&record.request_id),
        text(&record.text),
        record.id.clone(),
    ];
    row(cells.iter().map(String::as_str))
}

fn row<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    cells.map(cell).collect::<Vec<_>>().join(",") + "\r\n"
}

/// Quotes a cell. Spreadsheets evaluate text that starts like a formula (CWE-1236), also after other
/// separators and in full-width forms: an apostrophe makes it text.
fn cell(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    let mut is_beginning = true;
    for letter in text.chars() {
        if is_beginning && matches!(letter, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠') {
            quoted.push('\'');
        }
        is_beginning = matches!(letter, ';' | '\t' | '\r' | '\n') || is_beginning && letter == ' ';
        if letter == '"' {
            quoted.push('"');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::EventKind;

    #[test]
    fn text_that_starts_like_a_formula_gets_an_apostrophe() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "＝1+1", "＋1", "－1", "＠SUM(A1)"] {
            assert_eq!(cell(formula), format!("\"'{formula}\""));
            for before in [";", "\t", "\r", "\n", "x;", "x\r\n", "; ", " "] {
                assert_eq!(cell(&format!("{before}{formula}")), format!("\"{before}'{formula}\""));
            }
        }
        assert_eq!(cell("2026-11-29T05:00:00Z a=b"), "\"2026-11-29T05:00:00Z a=b\"");
        assert_eq!(cell("Ada \"the\" first, =1"), "\"Ada \"\"the\"\" first, =1\"");
    }

    #[test]
    fn a_line_has_a_cell_for_each_column() {
        let record = Record { reason: Some("=x".to_owned()), ..Record::new(EventKind::Login) };
        let line = line(&record);
        assert_eq!(line.matches("\",\"").count() + 1, COLUMNS.len());
        assert_eq!(heading().matches(',').count() + 1, COLUMNS.len());
        assert!(line.contains("\"login\",\"success\",\"'=x\"") && line.ends_with("\"\r\n"));
    }
}
