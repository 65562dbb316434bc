//! Activity log, filtered and paged.

use axum::{
    Json,
    extract::{Query, State},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    activity::{Activity, ActivityError, EventKind, Filter, Record},
    admin::Admin,
    clock,
    http::error::{Problem, Refusal},
};

/// Default number of records in a response.
const DEFAULT_LIMIT: u32 = 100;
/// Maximum number of records in a response.
const MAX_LIMIT: u32 = 1000;

/// Records, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActivityPage {
    #[schema(max_items = 1000)]
    records: Vec<Record>,
    /// Cursor for the parameter `before`; null: no older records.
    #[schema(
        required = true,
        max_length = 64,
        pattern = "^[0-9]+_[0-9a-f-]{36}$",
        example = "1795384800123_019ab3f0-7c1e-7b6e-9a8d-0f2a4c6e8b10"
    )]
    before: Option<String>,
}

/// Query parameters, trimmed. Read from pairs, because a reader derived for the struct refuses a
/// repeated parameter, which is accepted here: the first non-empty one applies. Unknown ones are
/// ignored.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(from = "Vec<(String, String)>")]
pub(crate) struct ActivityQuery {
    pub(crate) kind: String,
    pub(crate) person: String,
    pub(crate) client: String,
    pub(crate) session: String,
    pub(crate) since: String,
    pub(crate) until: String,
    pub(crate) before: String,
    limit: String,
}

impl From<Vec<(String, String)>> for ActivityQuery {
    fn from(pairs: Vec<(String, String)>) -> Self {
        let mut query = Self::default();
        for (name, value) in pairs {
            let parameter = match &*name {
                "kind" => &mut query.kind,
                "person" => &mut query.person,
                "client" => &mut query.client,
                "session" => &mut query.session,
                "since" => &mut query.since,
                "until" => &mut query.until,
                "before" => &mut query.before,
                "limit" => &mut query.limit,
                _ => continue,
            };
            if parameter.is_empty() {
                value.trim().clone_into(parameter);
            }
        }
        query
    }
}

impl ActivityQuery {
    /// Encodes the filter as a query string, with another cursor.
    pub(crate) fn query(&self, before: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("kind", &*self.kind),
            ("person", &self.person),
            ("client", &self.client),
            ("session", &self.session),
            ("since", &self.since),
            ("until", &self.until),
            ("before", before),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }

    /// Validates the parameters.
    pub(crate) fn filter(&self) -> Result<Filter, Refusal> {
        let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        let kind = match &*self.kind {
            "" => None,
            name => Some(EventKind::of(name).ok_or(Refusal::Input("Unknown event kind"))?),
        };
        let limit = match &*self.limit {
            "" => DEFAULT_LIMIT,
            digits => {
                let limit = digits.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                limit.ok_or(Refusal::Input("limit must be a number from 1 to 1000"))?
            }
        };
        Ok(Filter {
            kind,
            person: text(&self.person),
            client: text(&self.client),
            session: text(&self.session),
            since: time_of(&self.since)?,
            until: time_of(&self.until)?,
            before: if self.before.is_empty() { None } else { Some(cursor_of(&self.before)?) },
            limit,
        })
    }
}

/// Parses RFC 3339, or the value of a `datetime-local` field in UTC, to Unix milliseconds.
fn time_of(text: &str) -> Result<Option<i64>, Refusal> {
    use time::{PrimitiveDateTime, macros::format_description};
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(millis) = clock::millis_of(text) {
        return Ok(Some(millis));
    }
    let short = format_description!("[year]-[month]-[day]T[hour]:[minute]");
    let long = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let at = PrimitiveDateTime::parse(text, &short)
        .or_else(|_| PrimitiveDateTime::parse(text, &long))
        .map_err(|_| {
            Refusal::Input("Invalid time; expected RFC 3339, like 2026-11-22T20:00:00Z")
        })?;
    Ok(Some(at.assume_utc().unix_timestamp() * 1000))
}

fn cursor_of(text: &str) -> Result<(i64, String), Refusal> {
    let wrong = || Refusal::Input("before must be a cursor from an earlier response");
    let (at, id) = text.split_once('_').ok_or_else(wrong)?;
    let id = uuid::Uuid::try_parse(id).map_err(|_| wrong())?;
    Ok((at.parse().map_err(|_| wrong())?, id.to_string()))
}

/// Finds records, and the cursor of older ones, if any.
pub(crate) async fn find(
    activity: &Activity,
    mut filter: Filter,
) -> Result<(Vec<Record>, Option<String>), Refusal> {
    let limit = filter.limit;
    filter.limit = limit.saturating_add(1);
    let mut records = activity.find(filter).await.map_err(unavailable)?;
    let has_more = records.len() > limit as usize;
    records.truncate(limit as usize);
    let before = records.last().filter(|_| has_more).map(cursor);
    Ok((records, before))
}

/// Cursor of a record: its time and its ID.
pub(crate) fn cursor(record: &Record) -> String {
    format!("{}_{}", record.at, record.id)
}

fn unavailable(error: ActivityError) -> Refusal {
    match error {
        ActivityError::NoDatabase => Refusal::NoDatabase,
        error => error.into(),
    }
}

/// Returns records.
#[utoipa::path(
    get,
    path = "/gateway/api/activity",
    tag = "Administration",
    operation_id = "getActivity",
    summary = "List sign-ins, denials and administrative changes",
    description = "The gateway's own records, newest first; not SimpleChat's `activity_logs`. Records match all given parameters.",
    params(
        ("kind" = Option<EventKind>, Query, description = "Event kind"),
        ("person" = Option<String>, Query, description = "Part of an object ID, name or e-mail address, of the actor or the subject", max_length = 1024, example = "ada@"),
        ("client" = Option<String>, Query, description = "Client application ID", max_length = 256, pattern = "^[ -~]+$", example = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
        ("session" = Option<String>, Query, description = "Session handle", max_length = 16, pattern = "^[0-9a-f]{16}$", example = "5b477192a010a287"),
        ("since" = Option<String>, Query, description = "Earliest time (RFC 3339)", max_length = 40, format = DateTime, example = "2026-11-22T20:00:00Z"),
        ("until" = Option<String>, Query, description = "Latest time (RFC 3339)", max_length = 40, format = DateTime, example = "2026-11-23T20:00:00Z"),
        ("limit" = Option<i32>, Query, description = "Maximum number of records; default 100", minimum = 1, maximum = 1000, example = 100),
        ("before" = Option<String>, Query, description = "Cursor from an earlier response, for the next page", max_length = 64, pattern = "^[0-9]+_[0-9a-f-]{36}$", example = "1795384800123_019ab3f0-7c1e-7b6e-9a8d-0f2a4c6e8b10"),
    ),
    security(("administrator" = [])),
    responses(
        (status = 200, description = "Matching records", body = ActivityPage, headers(("Cache-Control"))),
        (status = 401, description = "No signed-in SimpleChat session", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not an administrator, a gateway-issued session, or a page of another origin", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "No database is configured", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Invalid kind, time, limit or cursor", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Session store or database unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(
    State(activity): State<Activity>,
    _: Admin,
    Query(query): Query<ActivityQuery>,
) -> Result<Json<ActivityPage>, Refusal> {
    let (records, before) = find(&activity, query.filter()?).await?;
    Ok(Json(ActivityPage { records, before }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<Filter, Refusal> {
        let uri = format!("/x?{query}").parse().unwrap();
        Query::<ActivityQuery>::try_from_uri(&uri).unwrap().filter()
    }

    #[test]
    fn times_are_accepted_as_rfc_3339_and_as_datetime_local() {
        for (text, millis) in [
            ("2026-11-22T22:00:00.123Z", 1_795_384_800_123),
            ("2026-11-22T23:00:00%2B01:00", 1_795_384_800_000),
            ("2026-11-22T22:00", 1_795_384_800_000),
            ("2026-11-22T22:00:00", 1_795_384_800_000),
        ] {
            assert_eq!(filter(&format!("since={text}")).unwrap().since, Some(millis), "{text}");
        }
        assert!(filter("until=yesterday").is_err());
    }

    #[test]
    fn invalid_parameters_are_refused_and_unknown_ones_ignored() {
        for query in ["kind=Login", "limit=0", "limit=1001", "before=1", "before=a_b"] {
            assert!(filter(query).is_err(), "{query}");
        }
        let cursor = "1795384800123_019ab3f0-7c1e-7b6e-9a8d-0f2a4c6e8b10";
        let filter = filter(&format!("kind=login&before={cursor}&other=1&person=+Ada+")).unwrap();
        assert_eq!(filter.before.map(|it| it.0), Some(1_795_384_800_123));
        assert_eq!((filter.kind, filter.person.as_deref()), (Some(EventKind::Login), Some("Ada")));
        assert_eq!(filter.limit, DEFAULT_LIMIT);
    }
}
