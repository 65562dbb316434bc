//! The activity log, by the page and as a file.

use std::borrow::Cow;

use askama::Template;
use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};

use super::{Frame, View, csv, page, timestamp::Timestamp};
use crate::{
    activity::{Activity, EventKind, Filter, Outcome, Record},
    admin::{
        Admin,
        api::activity::{ActivityQuery, find, place},
    },
    clock,
    gateway::{Administered, Export},
    http::error::Refusal,
};

/// Records of one page.
const SHOWN: u32 = 50;
/// Records of one file.
const MAX: usize = 100_000;
/// Bytes of one file: it is put together in memory.
const MAX_BYTES: usize = 14 * 1024 * 1024;
/// Records read at a time for a file.
const BATCH: u32 = 2000;

struct ActivityRow {
    at: Timestamp,
    words: &'static str,
    /// Reason in words.
    why: Option<Cow<'static, str>>,
    is_refused: bool,
    who: String,
    /// E-mail address, where `who` is a name.
    email: Option<String>,
    whom: Option<String>,
    client: Option<String>,
    session: Option<String>,
    details: Vec<(&'static str, String)>,
}

impl From<Record> for ActivityRow {
    fn from(record: Record) -> Self {
        let actor = &record.actor;
        let who = actor.name.clone().or_else(|| actor.email.clone()).or_else(|| actor.oid.clone());
        let whom = record.subject.clone().filter(|subject| actor.oid.as_ref() != Some(subject));
        let (words, why) = (record.summary(), record.reason_in_words());
        let details = [
            ("Reason code", record.reason),
            ("Object id", actor.oid.clone()),
            ("Address", record.address),
            ("Request", record.request_id),
            ("Text", record.text),
            ("Record", Some(record.id)),
        ];
        Self {
            at: Timestamp::of(clock::rfc3339(record.at)),
            words,
            why,
            is_refused: record.outcome == Outcome::Failure,
            email: actor.email.clone().filter(|_| actor.name.is_some()),
            who: who.or_else(|| record.subject.clone()).unwrap_or_default(),
            whom,
            client: record.client,
            session: record.session,
            details: details.into_iter().filter_map(|(name, it)| Some((name, it?))).collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "admin/activity.html")]
struct ActivityView {
    frame: Frame,
    asked: ActivityQuery,
    kinds: [EventKind; 14],
    rows: Vec<ActivityRow>,
    /// The address of older ones.
    older: Option<String>,
    /// The filter as a query, for files.
    query: String,
    has_database: bool,
}

/// The view.
pub(super) async fn get(
    State(administered): State<Administered>,
    admin: Admin,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut asked = ActivityQuery::of(&uri);
    let filter = Filter { limit: SHOWN, ..asked.filter()? };
    // As fields for times have them, whatever they came as.
    asked.since = local(filter.since);
    asked.until = local(filter.until);
    let has_database = administered.activity.has_database();
    let (records, before) =
        if has_database { find(&administered.activity, filter).await? } else { (Vec::new(), None) };
    let view = ActivityView {
        frame: Frame::new(View::Activity, &admin, None),
        kinds: EventKind::ALL,
        rows: records.into_iter().map(ActivityRow::from).collect(),
        older: before.map(|before| asked.query(&before)),
        query: asked.query(""),
        has_database,
        asked,
    };
    Ok(page(StatusCode::OK, &view))
}

/// A time in UTC without saying so, to the second.
fn local(millis: Option<i64>) -> String {
    millis
        .map(clock::rfc3339)
        .and_then(|text| text.get(..19).map(str::to_owned))
        .unwrap_or_default()
}

/// For spreadsheets.
pub(super) async fn get_csv(
    State(administered): State<Administered>,
    _: Admin,
    uri: Uri,
) -> Result<Response, Refusal> {
    let filter = ActivityQuery::of(&uri).filter()?;
    let export = administered.exports.begin().ok_or(Refusal::ExportInProgress)?;
    let (text, is_whole) =
        written(&administered.activity, filter, csv::heading(), csv::line).await?;
    Ok(file("csv", "text/csv; charset=utf-8", text, is_whole, export))
}

/// For programs: a record a line.
pub(super) async fn get_jsonl(
    State(administered): State<Administered>,
    _: Admin,
    uri: Uri,
) -> Result<Response, Refusal> {
    let filter = ActivityQuery::of(&uri).filter()?;
    let export = administered.exports.begin().ok_or(Refusal::ExportInProgress)?;
    let line = |record: &Record| serde_json::to_string(record).unwrap_or_default() + "\n";
    let (text, is_whole) = written(&administered.activity, filter, String::new(), line).await?;
    Ok(file("jsonl", "application/jsonl; charset=utf-8", text, is_whole, export))
}

/// Lines of all records that fit; whether those are all.
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
                tracing::info!(count, from = place(record), "an activity file ends before its end");
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

/// A file to be saved. The export is over once it has been sent.
fn file(
    ending: &str,
    media_type: &'static str,
    text: String,
    is_whole: bool,
    export: Export,
) -> Response {
    let part = if is_whole { "" } else { "-newest-part" };
    let disposition = format!("attachment; filename=\"gateway-activity{part}.{ending}\"");
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
    fn every_reason_for_a_denied_login_has_words_of_its_own() {
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
