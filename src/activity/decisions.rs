//! Decisions: the switch, and who is kept out. What is decided and the record of it are written in one
//! transaction: no record, no change.

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

/// The administrator's switch as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessState {
    /// Names the database, so that instances see whether they share it.
    pub(crate) database: String,
    pub(crate) enabled: bool,
    /// Since when, in Unix milliseconds; `None`: nobody has ever decided.
    pub(crate) since: Option<i64>,
    /// Who decided it.
    pub(crate) by: Actor,
}

/// Whom a block keeps out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Blocked {
    /// A user or a service principal, by Entra's object id.
    Subject(String),
    /// A client app, by its id.
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

/// Somebody who is kept out for a while.
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
    /// For how long, like `24h`. A year at most: what lasts longer belongs into Entra.
    pub(crate) fn span(text: &str) -> Result<Duration, String> {
        let span = duration(text)?;
        let is_sound = span >= Duration::from_secs(1) && span <= Duration::from_hours(365 * 24);
        if is_sound { Ok(span) } else { Err("does not lie between 1s and 365d".to_owned()) }
    }
}

/// A decision that disables external access, blocks a caller or ends sessions, with its records. It takes effect
/// whether or not the database can be written, and is recorded once, however often that is tried.
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
    /// Sessions, which have ended already.
    Sessions,
}

impl Restriction {
    /// External access is disabled.
    pub(crate) fn access(author: &Author) -> Self {
        let record = Record::new(EventKind::ExternalAccessDisabled).by(author);
        Self { restricts: Restricts::Access, records: vec![record] }
    }

    /// A caller is blocked until then (Unix milliseconds), in place of what was decided about that caller before.
    pub(crate) fn caller(blocked: Blocked, until: i64, author: &Author) -> Self {
        let text = format!("until {}", clock::rfc3339(until));
        let kinds = [EventKind::SubjectBlocked, EventKind::ClientBlocked];
        let record = blocked.record(kinds, author, Some(text));
        Self { restricts: Restricts::Caller { blocked, until }, records: vec![record] }
    }

    /// Sessions that have ended, by their records.
    pub(crate) fn of_sessions(records: Vec<Record>) -> Self {
        Self { restricts: Restricts::Sessions, records }
    }

    /// Names the decision: the first record's id.
    pub(crate) fn id(&self) -> &str {
        self.records.first().map_or("", |record| &record.id)
    }

    /// Since when external access is disabled by this, and by whom.
    pub(crate) fn disabled(&self) -> Option<(i64, &Actor)> {
        let record = self.records.first()?;
        (self.restricts == Restricts::Access).then_some((record.at, &record.actor))
    }

    /// The block that this is.
    pub(crate) fn block(&self) -> Option<Block> {
        let (Restricts::Caller { blocked, until }, Some(record)) =
            (&self.restricts, self.records.first())
        else {
            return None;
        };
        let (blocked, by) = (blocked.clone(), record.actor.clone());
        Some(Block { blocked, since: record.at, until: *until, by })
    }

    /// Into the log.
    pub(crate) fn emit(&self) {
        self.records.iter().for_each(Record::emit);
    }

    /// As JSON, for [`Self::from_text`].
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// `None`: not what [`Self::to_text`] writes; in particular, records of other kinds than the restriction's own.
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

/// How the switch stands, and who is kept out at that time (Unix milliseconds).
pub(super) async fn read(
    database: &Database,
    now: i64,
) -> Result<(AccessState, Vec<Block>), ActivityError> {
    const ACCESS: &str =
        "SELECT database, enabled, since, actor_oid, actor_name, actor_email FROM access";
    const BLOCKS: &str = "SELECT kind, who, since, until, actor_oid, actor_name, actor_email FROM blocks WHERE until > $1 ORDER BY since DESC";
    let (access, blocks): (AccessRow, Vec<BlockRow>) = database
        .run(move |held| Box::pin(async move {
            with_connection!(held, connection => {
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

/// Enables external access. `None`: it was enabled already, and nothing was written.
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

/// Writes a restriction with its records, unless they are there already. False: it changed
/// nothing. One that was in force before it is recorded (`was_in_force`) is recorded even so: else it would count
/// again when another instance records it after access was enabled.
pub(super) async fn restrict(
    database: &Database,
    restriction: Restriction,
    was_in_force: bool,
) -> Result<bool, ActivityError> {
    const BLOCK: &str = "INSERT INTO blocks (kind, who, since, until, actor_oid, actor_name, actor_email) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (kind, who) DO UPDATE SET since = excluded.since, until = excluded.until, actor_oid = excluded.actor_oid, actor_name = excluded.actor_name, actor_email = excluded.actor_email WHERE blocks.since <= excluded.since";
    let Restriction { restricts, records } = restriction;
    let Some(first) = records.first() else { return Ok(false) };
    let (at, actor) = (first.at, actor_values(first.actor.clone()).to_vec());
    // Blocking again is a decision even where a later block is in force.
    let (change, must_change) = match &restricts {
        Restricts::Access => {
            let values = vec![Value::Flag(false), Value::Number(at)];
            (Some((TURN, [values, actor].concat())), !was_in_force)
        }
        Restricts::Caller { blocked, until } => {
            let values = vec![Value::Number(at), Value::Number(*until)];
            (Some((BLOCK, [of_whom(blocked), values, actor].concat())), false)
        }
        Restricts::Sessions => (None, false),
    };
    write(database, change, records, must_change).await
}

/// Lets somebody in again. `None`: nobody kept them out, and nothing was written.
pub(super) async fn unblock(
    database: &Database,
    blocked: Blocked,
    author: Author,
) -> Result<Option<Vec<Record>>, ActivityError> {
    const UNBLOCK: &str = "DELETE FROM blocks WHERE kind = $1 AND who = $2 AND until > $3";
    let record =
        blocked.record([EventKind::SubjectUnblocked, EventKind::ClientUnblocked], &author, None);
    let mut values = of_whom(&blocked);
    values.push(Value::Number(clock::millis()));
    decide(database, (UNBLOCK, values), vec![record]).await
}

/// A value of a statement.
#[derive(Clone)]
enum Value {
    Text(Option<String>),
    Number(i64),
    Flag(bool),
}

fn actor_values(Actor { oid, name, email }: Actor) -> [Value; 3] {
    [Value::Text(oid), Value::Text(name), Value::Text(email)]
}

fn of_whom(blocked: &Blocked) -> Vec<Value> {
    [blocked.kind(), blocked.who()].map(|text| Value::Text(Some(text.to_owned()))).into()
}

/// A statement with its values.
fn bound<DB: sqlx::Database>(
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

/// A statement that changes the state, with its values.
type Change = (&'static str, Vec<Value>);

/// Changes what a statement changes, if that is something, and writes the records of it. `None`: it was nothing,
/// and nothing was written.
async fn decide(
    database: &Database,
    change: Change,
    records: Vec<Record>,
) -> Result<Option<Vec<Record>>, ActivityError> {
    let is_written = write(database, Some(change), records.clone(), true).await?;
    Ok(is_written.then_some(records))
}

/// Writes records and makes the change that they are of, in one transaction. False: nothing was written, because the
/// records are there already or, where the change must have an effect, because it has none.
async fn write(
    database: &Database,
    change: Option<Change>,
    records: Vec<Record>,
    must_change: bool,
) -> Result<bool, ActivityError> {
    database
        .run(move |held| {
            Box::pin(async move {
                let begin = held.begin();
                with_connection!(held, connection => {
                    let mut transaction = connection.begin_with(begin).await?;
                    // First, so that of two that write the same one finds it written.
                    let added = insertion(&records).build().execute(&mut *transaction).await?;
                    if added.rows_affected() == 0 {
                        return Ok(false);
                    }
                    if let Some((statement, values)) = change {
                        let query = bound(sqlx::query(statement), values);
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

/// Blocks whose time is over go; the log remembers them.
pub(super) async fn prune(database: &Database, now: i64) -> Result<(), ActivityError> {
    const OVER: &str = "DELETE FROM blocks WHERE until <= $1";
    database
        .run(move |held| Box::pin(async move {
            with_connection!(held, connection => sqlx::query(OVER).bind(now).execute(&mut **connection).await.map(drop))
        }))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_whose_records_are_of_another_kind_is_no_restriction() {
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
