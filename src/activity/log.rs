//! Statements that add, find and remove records.

use sqlx::{Connection, Encode, FromRow, QueryBuilder, Type};

use super::{
    ActivityError,
    database::Database,
    pool::{LONG_QUERY_TIMEOUT, QUERY_TIMEOUT, with_connection},
    record::{Actor, EventKind, Filter, Outcome, Record},
};

/// Skips records that exist: a write with an unknown result is repeated.
const UNLESS_PRESENT: &str = " ON CONFLICT (id) DO NOTHING";
const COLUMNS: &str = "id, at, kind, outcome, actor_oid, actor_name, actor_email, client, subject, session, address, request_id, reason, text";
/// Records in one statement. Each has 14 values; SQLite allows 32,766 in a statement.
pub(super) const GROUP: usize = 500;
/// Maximum length of a text, in characters; longer ones are truncated.
const MAX_TEXT: usize = 16_384;
/// Records removed by one statement, so that other writers wait for a short time only.
const BATCH: i64 = 5000;

/// Row of a record.
#[derive(FromRow)]
struct RecordRow {
    id: String,
    at: i64,
    kind: String,
    outcome: String,
    actor_oid: Option<String>,
    actor_name: Option<String>,
    actor_email: Option<String>,
    client: Option<String>,
    subject: Option<String>,
    session: Option<String>,
    address: Option<String>,
    request_id: Option<String>,
    reason: Option<String>,
    text: Option<String>,
}

impl RecordRow {
    /// `None`: a kind of a later version.
    fn record(self) -> Option<Record> {
        let Self { id, at, actor_oid: oid, actor_name: name, actor_email: email, .. } = self;
        let outcome = if self.outcome == "success" { Outcome::Success } else { Outcome::Failure };
        Some(Record {
            id,
            at,
            kind: EventKind::of(&self.kind)?,
            outcome,
            actor: Actor { oid, name, email },
            client: self.client,
            subject: self.subject,
            session: self.session,
            address: self.address,
            request_id: self.request_id,
            reason: self.reason,
            text: self.text,
        })
    }
}

/// Statement that adds records, for either database.
pub(super) fn insertion<DB: sqlx::Database>(records: &[Record]) -> QueryBuilder<DB>
where
    for<'a> String: Encode<'a, DB> + Type<DB>,
    for<'a> Option<String>: Encode<'a, DB> + Type<DB>,
    for<'a> i64: Encode<'a, DB> + Type<DB>,
    for<'a> &'a str: Encode<'a, DB> + Type<DB>,
{
    let mut insertion = QueryBuilder::new(format!("INSERT INTO activity ({COLUMNS}) "));
    insertion.push_values(records, |mut row, record| {
        row.push_bind(record.id.clone())
            .push_bind(record.at)
            .push_bind(record.kind.name())
            .push_bind(record.outcome.name())
            .push_bind(clipped(record.actor.oid.as_deref()))
            .push_bind(clipped(record.actor.name.as_deref()))
            .push_bind(clipped(record.actor.email.as_deref()))
            .push_bind(clipped(record.client.as_deref()))
            .push_bind(clipped(record.subject.as_deref()))
            .push_bind(clipped(record.session.as_deref()))
            .push_bind(clipped(record.address.as_deref()))
            .push_bind(clipped(record.request_id.as_deref()))
            .push_bind(clipped(record.reason.as_deref()))
            .push_bind(clipped(record.text.as_deref()));
    });
    insertion.push(UNLESS_PRESENT);
    insertion
}

/// Text that both databases accept, whatever a token contains: truncated, and without NUL, which PostgreSQL rejects.
/// A rejected record would block all records after it.
pub(super) fn clipped(text: Option<&str>) -> Option<String> {
    text.map(|text| {
        text.chars().take(MAX_TEXT).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
    })
}

/// Adds records in one transaction.
pub(super) async fn add(database: &Database, records: Vec<Record>) -> Result<(), ActivityError> {
    if records.is_empty() {
        return Ok(());
    }
    let query_timeout = if records.len() > GROUP { LONG_QUERY_TIMEOUT } else { QUERY_TIMEOUT };
    database
        .run_for(query_timeout, move |pooled| Box::pin(async move {
            let begin = pooled.begin();
            with_connection!(pooled, connection => {
                let mut transaction = connection.begin_with(begin).await?;
                for group in records.chunks(GROUP) {
                    insertion(group).build().persistent(false).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            })
        }))
        .await
}

/// Finds records, newest first.
pub(super) async fn find(
    database: &Database,
    filter: Filter,
) -> Result<Vec<Record>, ActivityError> {
    let rows: Vec<RecordRow> = database
        .run_slowly(move |pooled| Box::pin(async move {
            with_connection!(pooled, connection => {
                let mut query = QueryBuilder::new(format!("SELECT {COLUMNS} FROM activity WHERE 1 = 1"));
                if let Some(kind) = filter.kind {
                    query.push(" AND kind = ").push_bind(kind.name());
                }
                if let Some(person) = clipped(filter.person.as_deref()) {
                    // Part of the id, name or e-mail address, in any case.
                    let part = format!("%{}%", escaped(&person.to_lowercase()));
                    query.push(" AND (");
                    for (at, column) in ["subject", "actor_oid", "actor_name", "actor_email"].into_iter().enumerate() {
                        let or = if at == 0 { "" } else { " OR " };
                        query.push(format!("{or}lower({column}) LIKE ")).push_bind(part.clone()).push(" ESCAPE '!'");
                    }
                    query.push(")");
                }
                if let Some(client) = clipped(filter.client.as_deref()) {
                    query.push(" AND client = ").push_bind(client);
                }
                if let Some(session) = clipped(filter.session.as_deref()) {
                    query.push(" AND session = ").push_bind(session);
                }
                if let Some(since) = filter.since {
                    query.push(" AND at >= ").push_bind(since);
                }
                if let Some(until) = filter.until {
                    query.push(" AND at < ").push_bind(until);
                }
                if let Some((at, id)) = filter.before {
                    query.push(" AND (at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
                }
                query.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind(i64::from(filter.limit));
                query.build_query_as().fetch_all(&mut **connection).await
            })
        }))
        .await?;
    Ok(rows.into_iter().filter_map(RecordRow::record).collect())
}

/// Escapes a text for `LIKE … ESCAPE '!'`.
fn escaped(text: &str) -> String {
    let is_special = |letter| matches!(letter, '!' | '%' | '_');
    text.chars()
        .flat_map(|letter| is_special(letter).then_some('!').into_iter().chain([letter]))
        .collect()
}

/// Removes records older than a time (Unix milliseconds). Returns their number.
pub(super) async fn prune(database: &Database, before: i64) -> Result<u64, ActivityError> {
    const OLD: &str = "DELETE FROM activity WHERE id IN (SELECT id FROM activity WHERE at < $1 ORDER BY at LIMIT $2)";
    let mut removed = 0;
    loop {
        let batch = database
            .run_slowly(move |pooled| Box::pin(async move {
                with_connection!(pooled, connection => sqlx::query(OLD).bind(before).bind(BATCH).execute(&mut **connection).await.map(|done| done.rows_affected()))
            }))
            .await?;
        removed += batch;
        if batch < u64::try_from(BATCH).unwrap_or_default() {
            return Ok(removed);
        }
    }
}
