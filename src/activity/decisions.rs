//! Decisions about external access, blocks and sessions. The change and its record are written in one transaction:
//! no record, no change.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Connection, Encode, FromRow, Type, query::Query};

use super::{
    ActivityError,
    database::Database,
    log::{clipped, insertion},
    pool::with_connection,
    record::{Actor, Author, EventKind, Record},
};
use crate::{clock, config::duration};

/// State of external access in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessState {
    /// Id of the database, by which instances detect whether they share it.
    pub(crate) database: String,
    pub(crate) enabled: bool,
    /// Time of the last change, in Unix milliseconds; `None`: never changed.
    pub(crate) since: Option<i64>,
    /// Administrator who made the last change.
    pub(crate) by: Actor,
}

/// Blocked caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Blocked {
    /// User or service principal, by Entra's object id.
    Subject(String),
    /// Client app, by its application id.
    Client(String),
}

impl Blocked {
    /// `subject` or `client`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Subject(_) => "subject",
            Self::Client(_) => "client",
        }
    }

    /// The id.
    pub(crate) fn who(&self) -> &str {
        match self {
            Self::Subject(who) | Self::Client(who) => who,
        }
    }

    fn record(&self, kinds: [EventKind; 2], author: &Author, text: Option<String>) -> Record {
        let (subject, client) = match self {
            Self::Subject(oid) => (Some(oid.clone()), None),
            Self::Client(id) => (None, Some(id.clone())),
        };
        let kind = if client.is_none() { kinds[0] } else { kinds[1] };
        Record { client, subject, text, ..Record::new(kind).by(author) }
    }
}

/// Temporary block of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) blocked: Blocked,
    /// Unix milliseconds.
    pub(crate) since: i64,
    /// Unix milliseconds.
    pub(crate) until: i64,
    pub(crate) by: Actor,
}

impl Block {
    /// Parses the duration of a block, such as `24h`. At most a year: a longer block belongs into Entra.
    pub(crate) fn span(text: &str) -> Result<Duration, String> {
        let span = duration(text)?;
        let is_valid = span >= Duration::from_secs(1) && span <= Duration::from_hours(365 * 24);
        if is_valid { Ok(span) } else { Err("must be between 1s and 365d".to_owned()) }
    }
}

/// Decision that disables external access, blocks a caller or ends sessions, with its records. It takes effect even
/// if the database cannot be written, and is recorded once, however often recording is retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Restriction {
    restricts: Restricts,
    /// At least one.
    records: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Restricts {
    Access,
    /// `until` in Unix milliseconds.
    Caller {
        blocked: Blocked,
        until: i64,
    },
    /// Sessions that have ended already.
    Sessions,
}

impl Restriction {
    /// Disables external access.
    pub(crate) fn access(author: &Author) -> Self {
        let record = Record::new(EventKind::ExternalAccessDisabled).by(author);
        Self { restricts: Restricts::Access, records: vec![record] }
    }

    /// Blocks a caller until a time (Unix milliseconds). Replaces an earlier block of that caller.
    pub(crate) fn caller(blocked: Blocked, until: i64, author: &Author) -> Self {
        let text = format!("until {}", clock::rfc3339(until));
        let kinds = [EventKind::SubjectBlocked, EventKind::ClientBlocked];
        let record = blocked.record(kinds, author, Some(text));
        Self { restricts: Restricts::Caller { blocked, until }, records: vec![record] }
    }

    /// Restriction for sessions that have ended, from their records.
    pub(crate) fn of_sessions(records: Vec<Record>) -> Self {
        Self { restricts: Restricts::Sessions, records }
    }

    /// Id of the decision: that of its first record.
    pub(crate) fn id(&self) -> &str {
        self.records.first().map_or("", |record| &record.id)
    }

    /// Time (Unix milliseconds) and author, if this disables external access.
    pub(crate) fn disabled(&self) -> Option<(i64, &Actor)> {
        let record = self.records.first()?;
        (self.restricts == Restricts::Access).then_some((record.at, &record.actor))
    }

    /// The block, if this is one.
    pub(crate) fn block(&self) -> Option<Block> {
        let (Restricts::Caller { blocked, until }, Some(record)) =
            (&self.restricts, self.records.first())
        else {
            return None;
        };
        let (blocked, by) = (blocked.clone(), record.actor.clone());
        Some(Block { blocked, since: record.at, until: *until, by })
    }

    /// Emits the records to the log.
    pub(crate) fn emit(&self) {
        self.records.iter().for_each(Record::emit);
    }

    /// JSON for [`Self::from_text`].
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses the output of [`Self::to_text`]. `None`: any other text, including one whose records are of another kind
    /// than the restriction.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let restriction: Self = serde_json::from_str(text).ok()?;
        restriction.is_consistent().then_some(restriction)
    }

    fn is_consistent(&self) -> bool {
        let (kind, is_one) = match &self.restricts {
            Restricts::Access => (EventKind::ExternalAccessDisabled, true),
            Restricts::Caller { blocked: Blocked::Subject(_), .. } => {
                (EventKind::SubjectBlocked, true)
            }
            Restricts::Caller { blocked: Blocked::Client(_), .. } => {
                (EventKind::ClientBlocked, true)
            }
            Restricts::Sessions => (EventKind::SessionEndedByAdmin, false),
        };
        let is_of_kind = |record: &Record| record.kind == kind;
        !self.records.is_empty()
            && (self.records.len() == 1 || !is_one)
            && self.records.iter().all(is_of_kind)
    }
}

#[derive(FromRow)]
struct AccessRow {
    database: String,
    enabled: bool,
    since: Option<i64>,
    actor_oid: Option<String>,
    actor_name: Option<String>,
    actor_email: Option<String>,
}

#[derive(FromRow)]
struct BlockRow {
    kind: String,
    who: String,
    since: i64,
    until: i64,
    actor_oid: Option<String>,
    actor_name: Option<String>,
    actor_email: Option<String>,
}

impl From<BlockRow> for Block {
    fn from(row: BlockRow) -> Self {
        let blocked =
            if row.kind == "client" { Blocked::Client(row.who) } else { Blocked::Subject(row.who) };
        let by = Actor { oid: row.actor_oid, name: row.actor_name, email: row.actor_email };
        Self { blocked, since: row.since, until: row.until, by }
    }
}

/// Reads the state of external access, and the blocks in force at a time (Unix milliseconds).
pub(super) async fn read(
    database: &Database,
    now: i64,
) -> Result<(AccessState, Vec<Block>), ActivityError> {
    const ACCESS: &str =
        "SELECT database, enabled, since, actor_oid, actor_name, actor_email FROM access";
    const BLOCKS: &str = "SELECT kind, who, since, until, actor_oid, actor_name, actor_email FROM blocks WHERE until > $1 ORDER BY since DESC";
    let (access, blocks): (AccessRow, Vec<BlockRow>) = database
        .run(move |pooled| Box::pin(async move {
            with_connection!(pooled, connection => {
                let access = sqlx::query_as(ACCESS).fetch_one(&mut **connection).await?;
                Ok((access, sqlx::query_as(BLOCKS).bind(now).fetch_all(&mut **connection).await?))
            })
        }))
        .await?;
    let by = Actor { oid: access.actor_oid, name: access.actor_name, email: access.actor_email };
    let AccessRow { database, enabled, since, .. } = access;
    Ok((
        AccessState { database, enabled, since, by },
        blocks.into_iter().map(Block::from).collect(),
    ))
}

const TURN: &str = "UPDATE access SET enabled = $1, since = $2, actor_oid = $3, actor_name = $4, actor_email = $5 WHERE enabled <> $1";

/// Enables external access. `None`: it was enabled already, and nothing is written.
pub(super) async fn enable(
    database: &Database,
    accepted: String,
    author: Author,
) -> Result<Option<Vec<Record>>, ActivityError> {
    let accepted =
        Record { text: Some(accepted), ..Record::new(EventKind::ExposureAccepted).by(&author) };
    let records = vec![accepted, Record::new(EventKind::ExternalAccessEnabled).by(&author)];
    let mut values = vec![Value::Flag(true), Value::Number(clock::millis())];
    values.extend(actor_values(author.actor));
    decide(database, (TURN, values), records).await
}

/// Writes a restriction with its records, unless they are there already. False: nothing changed. A restriction that
/// was in force before this (`was_in_force`) is recorded even if it changes nothing; otherwise it would apply again
/// when another instance records it after external access was enabled.
pub(super) async fn restrict(
    database: &Database,
    restriction: Restriction,
    was_in_force: bool,
) -> Result<bool, ActivityError> {
    const BLOCK: &str = "INSERT INTO blocks (kind, who, since, until, actor_oid, actor_name, actor_email) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kind, who) DO UPDATE SET since = excluded.since, until = excluded.until, actor_oid = excluded.actor_oid, actor_name = excluded.actor_name, actor_email = excluded.actor_email WHERE blocks.since <= excluded.since";
    let Restriction { restricts, records } = restriction;
    let Some(first) = records.first() else { return Ok(false) };
    let (at, actor) = (first.at, actor_values(first.actor.clone()).to_vec());
    // A repeated block is a decision even if a later block is in force.
    let (change, must_change) = match &restricts {
        Restricts::Access => {
            let values = vec![Value::Flag(false), Value::Number(at)];
            (Some((TURN, [values, actor].concat())), !was_in_force)
        }
        Restricts::Caller { blocked, until } => {
            let values = vec![Value::Number(at), Value::Number(*until)];
            (Some((BLOCK, [caller_values(blocked), values, actor].concat())), false)
        }
        Restricts::Sessions => (None, false),
    };
    write(database, change, records, must_change).await
}

/// Unblocks a caller. `None`: the caller was not blocked, and nothing is written.
pub(super) async fn unblock(
    database: &Database,
    blocked: Blocked,
    author: Author,
) -> Result<Option<Vec<Record>>, ActivityError> {
    const UNBLOCK: &str = "DELETE FROM blocks WHERE kind = $1 AND who = $2 AND until > $3";
    let record =
        blocked.record([EventKind::SubjectUnblocked, EventKind::ClientUnblocked], &author, None);
    let mut values = caller_values(&blocked);
    values.push(Value::Number(clock::millis()));
    decide(database, (UNBLOCK, values), vec![record]).await
}

/// Bound value of a statement.
#[derive(Clone)]
enum Value {
    Text(Option<String>),
    Number(i64),
    Flag(bool),
}

fn actor_values(Actor { oid, name, email }: Actor) -> [Value; 3] {
    [Value::Text(oid), Value::Text(name), Value::Text(email)]
}

fn caller_values(blocked: &Blocked) -> Vec<Value> {
    [blocked.kind(), blocked.who()].map(|text| Value::Text(Some(text.to_owned()))).into()
}

/// Binds values to a statement.
fn bind_values<DB: sqlx::Database>(
    statement: Query<'_, DB, DB::Arguments>,
    values: Vec<Value>,
) -> Query<'_, DB, DB::Arguments>
where
    for<'a> Option<String>: Encode<'a, DB> + Type<DB>,
    for<'a> i64: Encode<'a, DB> + Type<DB>,
    for<'a> bool: Encode<'a, DB> + Type<DB>,
{
    values.into_iter().fold(statement, |query, value| match value {
        Value::Text(text) => query.bind(clipped(text.as_deref())),
        Value::Number(number) => query.bind(number),
        Value::Flag(flag) => query.bind(flag),
    })
}

/// Statement that changes the state, with its values.
type Change = (&'static str, Vec<Value>);

/// Applies a change and writes its records. `None`: the change has no effect, and nothing is written.
async fn decide(
    database: &Database,
    change: Change,
    records: Vec<Record>,
) -> Result<Option<Vec<Record>>, ActivityError> {
    let is_written = write(database, Some(change), records.clone(), true).await?;
    Ok(is_written.then_some(records))
}

/// Applies a change and writes its records in one transaction. False: nothing is written, because the records are
/// there already or because the change has no effect although it must have one (`must_change`).
async fn write(
    database: &Database,
    change: Option<Change>,
    records: Vec<Record>,
    must_change: bool,
) -> Result<bool, ActivityError> {
    database
        .run(move |pooled| {
            Box::pin(async move {
                let begin = pooled.begin();
                with_connection!(pooled, connection => {
                    let mut transaction = connection.begin_with(begin).await?;
                    // Before the change, so that only one of two concurrent writers of the same decision applies it.
                    let added = insertion(&records).build().execute(&mut *transaction).await?;
                    if added.rows_affected() == 0 {
                        return Ok(false);
                    }
                    if let Some((statement, values)) = change {
                        let query = bind_values(sqlx::query(statement), values);
                        let changed = query.execute(&mut *transaction).await?.rows_affected();
                        if changed == 0 && must_change {
                            return Ok(false);
                        }
                    }
                    transaction.commit().await?;
                    Ok(true)
                })
            })
        })
        .await
}

/// Removes expired blocks. Their records stay in the log.
pub(super) async fn prune(database: &Database, now: i64) -> Result<(), ActivityError> {
    const OVER: &str = "DELETE FROM blocks WHERE until <= $1";
    database
        .run(move |pooled| Box::pin(async move {
            with_connection!(pooled, connection => sqlx::query(OVER).bind(now).execute(&mut **connection).await.map(drop))
        }))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restriction_with_records_of_another_kind_is_rejected() {
        let author = Author::default();
        let ended = || Record::new(EventKind::SessionEndedByAdmin).by(&author);
        let subject = || Blocked::Subject("s".to_owned());
        for restriction in [
            Restriction::access(&author),
            Restriction::caller(subject(), 1, &author),
            Restriction::caller(Blocked::Client("c".to_owned()), 1, &author),
            Restriction::of_sessions(vec![ended(), ended()]),
        ] {
            assert_eq!(Restriction::from_text(&restriction.to_text()), Some(restriction.clone()));
            for kind in
                EventKind::ALL.into_iter().filter(|kind| *kind != restriction.records[0].kind)
            {
                let mut forged = restriction.clone();
                forged.records.last_mut().unwrap().kind = kind;
                assert_eq!(Restriction::from_text(&forged.to_text()), None, "{forged:?}");
            }
            let empty = Restriction { records: Vec::new(), ..restriction };
            assert_eq!(Restriction::from_text(&empty.to_text()), None);
        }
        let disabled = Restriction::access(&author).records.remove(0);
        let twice =
            Restriction { restricts: Restricts::Access, records: vec![disabled.clone(), disabled] };
        assert_eq!(Restriction::from_text(&twice.to_text()), None);
    }
}
