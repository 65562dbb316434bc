//! `activity`: the activity log.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use clap::Args;
use uuid::Uuid;

use super::{exit::Failure, no_database, print, report::block_on};
use crate::{
    activity::{Activity, EventKind, Filter, Record},
    clock,
    config::{Config, duration},
};

/// Records read per query.
const PAGE: u32 = 1000;

/// Options of `activity`.
#[derive(Debug, Args)]
pub struct ActivityCommand {
    /// Age of the oldest record, such as 24h or 30d.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    since: Duration,
    /// Output JSON Lines.
    #[arg(long)]
    json: bool,
    /// Only records of this kind, such as `login_denied`.
    #[arg(long, value_parser = kind)]
    kind: Option<EventKind>,
    /// Only records of this person: part of an object ID, a name or an e-mail address.
    #[arg(long)]
    person: Option<String>,
    /// Only records of this client app: its application (client) ID.
    #[arg(long, value_name = "APPID")]
    client: Option<Uuid>,
    /// Only records of this session: its handle.
    #[arg(long, value_name = "HANDLE")]
    session: Option<String>,
}

fn kind(text: &str) -> Result<EventKind, String> {
    EventKind::of(text).ok_or_else(|| {
        let names: Vec<_> = EventKind::ALL.into_iter().map(EventKind::name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

/// Prints records, newest first.
///
/// # Errors
/// When no database is set, or it cannot be reached.
pub fn activity(config: &Config, command: ActivityCommand) -> Result<(), Failure> {
    if config.activity.database.is_none() {
        return Err(no_database());
    }
    block_on(async {
        let activity = Activity::open_existing(&config.activity);
        let back = i64::try_from(command.since.as_millis()).unwrap_or(i64::MAX);
        let mut filter = Filter {
            kind: command.kind,
            person: command.person,
            client: command.client.map(|id| id.to_string()),
            session: command.session,
            since: Some(clock::millis().saturating_sub(back)),
            limit: PAGE,
            ..Filter::default()
        };
        loop {
            let found = activity.find(filter.clone()).await?;
            for record in &found {
                print(&if command.json { as_json(record)? } else { as_text(record) });
            }
            match found.last() {
                Some(last) if found.len() == PAGE as usize => {
                    filter.before = Some((last.at, last.id.clone()));
                }
                _ => return Ok(()),
            }
        }
    })?
}

fn as_json(record: &Record) -> Result<String, Failure> {
    serde_json::to_string(record).map_err(|error| Failure::Internal(error.to_string()))
}

fn as_text(record: &Record) -> String {
    let Record { actor, subject, client, address, session, text, .. } = record;
    let mut line = format!("{}  {:34}", clock::rfc3339(record.at), record.summary());
    let reason = record.reason_in_words().map(Cow::into_owned);
    let who = actor.email.as_ref().or(actor.name.as_ref()).or(actor.oid.as_ref());
    for (name, value) in [
        ("by", who),
        ("subject", subject.as_ref()),
        ("client", client.as_ref()),
        ("from", address.as_ref()),
        ("session", session.as_ref()),
        ("reason", reason.as_ref()),
        ("text", text.as_ref()),
    ] {
        if let Some(value) = value {
            // Users choose their names: escape line breaks and terminal control characters.
            // Writing to a String cannot fail.
            let _ = write!(line, "  {name}={}", value.escape_debug());
        }
    }
    line
}
