//! Activity records as a table (RFC 4180) that spreadsheets open without running anything in it.

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

/// The first line.
pub(super) fn heading() -> String {
    row(COLUMNS.into_iter())
}

/// A record's line.
pub(super) fn line(record: &Record) -> String {
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

/// A spreadsheet takes what begins like a formula for one, whoever wrote it (CWE-1236).
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let guard = if is_formula { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Kind;

    #[test]
    fn what_looks_like_a_formula_is_text() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            assert_eq!(cell(formula), format!("\"'{formula}\""));
        }
        assert_eq!(cell("Ada \"the\" first, =1"), "\"Ada \"\"the\"\" first, =1\"");
    }

    #[test]
    fn a_line_has_a_cell_for_each_column() {
        let record = Record { reason: Some("=x".to_owned()), ..Record::new(Kind::Login) };
        let line = line(&record);
        assert_eq!(line.matches("\",\"").count() + 1, COLUMNS.len());
        assert_eq!(heading().matches(',').count() + 1, COLUMNS.len());
        assert!(line.contains("\"login\",\"success\",\"'=x\"") && line.ends_with("\"\r\n"));
    }
}
