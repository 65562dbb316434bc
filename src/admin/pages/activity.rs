//! Activity page: the log, and its exports.

use std::borrow::Cow;

use askama::Template;
use axum::{
    Extension,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{Frame, View, actor_name, csv, filters, page};
use crate::{
    activity::{Activity, EventKind, Filter, Outcome, Record},
    admin::{
        Admin,
        api::activity::{ActivityQuery, cursor, find},
    },
    clock,
    gateway::{Export, Exports},
    http::error::Refusal,
};

/// Records on one page.
const SHOWN: u32 = 50;
/// Maximum number of records in an export.
const MAX: usize = 100_000;
/// Maximum size of an export, in bytes: it is built in memory.
const MAX_BYTES: usize = 14 * 1024 * 1024;
/// Records per database query of an export.
const BATCH: u32 = 2000;

/// Record of the log, as a row.
struct ActivityRow(Record);

impl ActivityRow {
    fn at(&self) -> String {
        clock::rfc3339(self.0.at)
    }

    fn summary(&self) -> &'static str {
        self.0.summary()
    }

    fn reason(&self) -> Option<Cow<'static, str>> {
        self.0.reason_in_words()
    }

    fn is_refused(&self) -> bool {
        self.0.outcome == Outcome::Failure
    }

    /// Display name of the actor, or the subject.
    fn who(&self) -> &str {
        actor_name(&self.0.actor).or(self.0.subject.as_deref()).unwrap_or_default()
    }

    /// E-mail address of the actor, if the name is shown.
    fn email(&self) -> Option<&str> {
        self.0.actor.email.as_deref().filter(|_| self.0.actor.name.is_some())
    }

    /// Subject, unless it is the actor.
    fn about(&self) -> Option<&str> {
        let subject = self.0.subject.as_deref();
        subject.filter(|it| self.0.actor.oid.as_deref() != Some(*it) && *it != self.who())
    }

    fn details(&self) -> Vec<(&'static str, &str)> {
        let Record { actor, reason, address, request_id, text, id, .. } = &self.0;
        [
            ("Reason code", reason),
            ("Object ID", &actor.oid),
            ("Address", address),
            ("Request ID", request_id),
            ("Text", text),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
        .chain([("Record ID", &**id)])
        .collect()
    }
}

#[derive(Template)]
#[template(path = "admin/activity.html")]
struct ActivityView {
    frame: Frame,
    filter: ActivityQuery,
    kinds: [EventKind; 14],
    rows: Vec<ActivityRow>,
    /// Query of the next, older page.
    older: Option<String>,
    /// Query of the filter, for exports.
    query: String,
    has_database: bool,
}

/// Page of records that match the query, newest first.
pub(super) async fn get(
    State(activity): State<Activity>,
    admin: Admin,
    Query(mut query): Query<ActivityQuery>,
) -> Result<Response, Refusal> {
    let filter = Filter { limit: SHOWN, ..query.filter()? };
    // In the format of the page's input fields.
    query.since = local(filter.since);
    query.until = local(filter.until);
    let has_database = activity.has_database();
    let (records, before) =
        if has_database { find(&activity, filter).await? } else { (Vec::new(), None) };
    let view = ActivityView {
        frame: Frame::new(View::Activity, &admin, None),
        kinds: EventKind::ALL,
        rows: records.into_iter().map(ActivityRow).collect(),
        older: before.map(|before| query.query(&before)),
        query: query.query(""),
        has_database,
        filter: query,
    };
    Ok(page(StatusCode::OK, &view))
}

/// Time in UTC without an offset, to the second: the format of a `datetime-local` field.
fn local(millis: Option<i64>) -> String {
    millis
        .map(clock::rfc3339)
        .and_then(|text| text.get(..19).map(str::to_owned))
        .unwrap_or_default()
}

/// Export for spreadsheets.
pub(super) async fn get_csv(
    State(activity): State<Activity>,
    State(exports): State<Exports>,
    _: Admin,
    Query(query): Query<ActivityQuery>,
) -> Result<Response, Refusal> {
    let filter = query.filter()?;
    let export = exports.begin().ok_or(Refusal::ExportInProgress)?;
    let (text, is_whole) = written(&activity, filter, csv::heading(), csv::line).await?;
    Ok(file("csv", "text/csv; charset=utf-8", text, is_whole, export))
}

/// Export for programs: one JSON object per line.
pub(super) async fn get_jsonl(
    State(activity): State<Activity>,
    State(exports): State<Exports>,
    _: Admin,
    Query(query): Query<ActivityQuery>,
) -> Result<Response, Refusal> {
    let filter = query.filter()?;
    let export = exports.begin().ok_or(Refusal::ExportInProgress)?;
    let line = |record: &Record| serde_json::to_string(record).unwrap_or_default() + "\n";
    let (text, is_whole) = written(&activity, filter, String::new(), line).await?;
    Ok(file("jsonl", "application/jsonl; charset=utf-8", text, is_whole, export))
}

/// Lines of the newest matching records up to the limits, and true if those are all.
async fn written(
    activity: &Activity,
    mut filter: Filter,
    mut text: String,
    line: impl Fn(&Record) -> String,
) -> Result<(String, bool), Refusal> {
    let mut count = 0;
    filter.limit = BATCH;
    loop {
        let (records, before) = find(activity, filter.clone()).await?;
        for record in &records {
            let line = line(record);
            if count == MAX || text.len() + line.len() > MAX_BYTES {
                tracing::info!(count, from = cursor(record), "an activity export was truncated");
                return Ok((text, false));
            }
            text.push_str(&line);
            count += 1;
        }
        let last = records.last().map(|record| (record.at, record.id.clone()));
        match (before, last) {
            (Some(_), Some(last)) => filter.before = Some(last),
            _ => return Ok((text, true)),
        }
    }
}

/// Export as a download. The next export may begin once the response has been sent.
fn file(
    extension: &str,
    media_type: &'static str,
    text: String,
    is_whole: bool,
    export: Export,
) -> Response {
    let part = if is_whole { "" } else { "-newest-part" };
    let disposition = format!("attachment; filename=\"gateway-activity{part}.{extension}\"");
    let disposition =
        HeaderValue::try_from(disposition).unwrap_or(HeaderValue::from_static("attachment"));
    let fixed: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (Extension(export), fixed, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authz::{policy::Denial, token::TokenError},
        control::external_access::BlockError,
        entra::EntraError,
    };

    #[test]
    fn every_reason_code_of_a_denied_login_has_a_text() {
        let of_token = [
            TokenError::Malformed("x"),
            TokenError::UnknownKey,
            TokenError::Signature,
            TokenError::Claim("aud"),
            TokenError::Expired,
            TokenError::NotYetValid,
            TokenError::Issuer,
            TokenError::Audience,
            TokenError::Tenant,
            TokenError::WrongType,
            TokenError::IssuerUnknownYet,
        ];
        let of_caller = [
            Denial::RoleMissing,
            Denial::ScopeMissing,
            Denial::ClientNotAllowed,
            Denial::AppOnlyNotAllowed,
        ];
        let refusals = of_token
            .map(|error| Refusal::Entra(EntraError::Rejected(error)))
            .into_iter()
            .chain(of_caller.map(Refusal::Denied))
            .chain([
                Refusal::RepeatedAuthorization,
                Refusal::MalformedBearer,
                Refusal::ForeignOrigin,
                Refusal::TooOften(std::time::Duration::ZERO),
                Refusal::Blocked(BlockError::Blocked),
            ]);
        for refusal in refusals {
            let code = refusal.reason();
            let denied = Record::refused(EventKind::LoginDenied, code);
            assert_ne!(denied.reason_in_words().unwrap(), code.replace('_', " "), "{code}");
        }
    }
}
