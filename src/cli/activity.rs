//! `activity`: the administrator's log.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use clap::Args;
use uuid::Uuid;

use super::{exit::Failure, no_database, print, report::block_on};
use crate::{
    activity::{Activity, EventKind, Filter, Record},
    clock,
    config::{Config, duration},
};

/// Records read at a time.
const PAGE: u32 = 1000;

/// Which records, and how they are printed.
#[derive(Debug, Args)]
pub struct ActivityCommand {
    /// How far back, like 24h or 30d.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    since: Duration,
    /// A line of JSON each.
    #[arg(long)]
    json: bool,
    /// Of this kind alone, like `login_denied`.
    #[arg(long, value_parser = kind)]
    kind: Option<EventKind>,
    /// Of this person alone: part of an object id, a name or an e-mail address.
    #[arg(long)]
    person: Option<String>,
    /// Of this client app alone.
    #[arg(long, value_name = "APPID")]
    client: Option<Uuid>,
    /// Of this session alone, by its handle.
    #[arg(long, value_name = "HANDLE")]
    session: Option<String>,
}

fn kind(text: &str) -> Result<EventKind, String> {
    EventKind::of(text).ok_or_else(|| {
        let names: Vec<_> = EventKind::ALL.into_iter().map(EventKind::name).collect();
        format!("is none of {}", names.join(", "))
    })
}

/// Prints records, newest first.
///
/// # Errors
/// When there is no database, or it cannot be reached.
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
            // A name is whatever somebody called themselves: no line of its own, no colours.
            // Writing to a String cannot fail.
            let _ = write!(line, "  {name}={}", value.escape_debug());
        }
    }
    line
}
