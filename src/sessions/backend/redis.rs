//! Redis as session backend: Flask's records, and the gateway's own data.
//!
//! ```text
//! session:ID                        Flask's record              string, TTL
//! gateway:{notes}:session:22CHARS   metadata of a session       string, TTL beyond its expiry
//! gateway:{notes}:subject:OID       sessions of a subject       sorted set by opening time
//! gateway:{notes}:expiries          all minted sessions         sorted set by expiry
//! gateway:{notes}:logins:OID        logins in a window          counter, TTL
//! gateway:{notes}:failures:ADDRESS  failures in a window        counter, TTL
//! gateway:{notes}:instances         instances                   sorted set by heartbeat
//! gateway:{notes}:waiting:decisions decisions that wait for the database  sorted set by time
//! gateway:{notes}:waiting:records   records that wait for the database    sorted set by time
//! gateway:ended                     revoked sessions            stream, read by every instance
//! ```
//!
//! The gateway's keys never begin with Flask's prefix: a cookie can name any key under that. In a cluster the
//! hash tag `{notes}` puts them on one node, so that one script reaches them.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use fred::{
    error::Error,
    interfaces::{ClientLike, KeysInterface, SortedSetsInterface, StreamsInterface},
    prelude::Client,
    types::{Expiration, SetOptions, Value, streams::XReadResponse},
};
use secrecy::SecretString;
use tower_sessions_core::session::Id;
use uuid::Uuid;

use super::{
    Added, Cursor, Outbox, Quota, Revoked, SessionBackend, SessionMeta, Unexpired,
    redis_connection::RedisConnection, redis_script::Script,
};
use crate::{
    authz::session::SessionId,
    config::{Limit, RedisAuth},
    flask::{
        FormatError,
        session_codec::{self, SessionMembers},
        session_record::FlaskRecord,
    },
    sessions::{RETENTION, SessionsError, limits::Network},
};

/// Entries read in one command.
const BATCH: u16 = 500;
/// Longest life of a session, in seconds (maximum of `GATEWAY_SESSION_MAX_AGE`).
const MAX_LIFE: i64 = 31 * 86_400;
/// Seconds that metadata outlives its session.
const META_RETENTION: i64 = RETENTION + 60;

const EXPIRIES: &str = "gateway:{notes}:expiries";
const INSTANCES: &str = "gateway:{notes}:instances";
const REVOKED: &str = "gateway:ended";
/// Position before a stream's first entry.
const BEGINNING: &str = "0-0";

/// Redis as session backend.
pub(crate) struct Redis {
    connection: RedisConnection,
    key_prefix: String,
    add_meta: Script,
    count_failure: Script,
    /// Position up to which the stream of revocations is trimmed.
    trimmed: Mutex<String>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis(..)")
    }
}

impl Redis {
    /// Starts to connect; does not wait for the connection.
    pub(crate) fn connect(
        url: &SecretString,
        auth: &RedisAuth,
        ca_file: Option<&Path>,
        key_prefix: String,
    ) -> Result<Self, SessionsError> {
        Ok(Self {
            connection: RedisConnection::start(url, auth, ca_file)?,
            key_prefix,
            add_meta: Script::new(include_str!("add_meta.lua")),
            count_failure: Script::new(include_str!("count_failure.lua")),
            trimmed: Mutex::new(BEGINNING.to_owned()),
        })
    }

    fn client(&self) -> Client {
        self.connection.client()
    }

    fn failed(&self, error: Error) -> SessionsError {
        self.connection.failed(error)
    }

    /// Key of Flask's record, by its whole id, minted or Flask's own.
    fn flask_key(&self, id: impl fmt::Display) -> String {
        format!("{}{id}", self.key_prefix)
    }

    /// Removes expired entries from the stream: one batch per call, then from the beginning again.
    async fn trim(&self, forget_before: i64) -> Result<(), SessionsError> {
        let at = {
            let mut trimmed = self.trimmed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *trimmed, BEGINNING.to_owned())
        };
        let batch = self.revoked_batch(&at).await?;
        if let Some((last, _)) = batch.last().filter(|_| batch.len() == usize::from(BATCH)) {
            last.clone_into(&mut self.trimmed.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let is_over = |id: &Option<SessionId>| id.is_none_or(|id| id.expires_at() < forget_before);
        let over: Vec<String> =
            batch.into_iter().filter(|(_, id)| is_over(id)).map(|(at, _)| at).collect();
        if over.is_empty() {
            return Ok(());
        }
        self.client().xdel::<(), _, _>(REVOKED, over).await.map_err(|error| self.failed(error))
    }

    /// Reads one batch of the stream after a position.
    async fn revoked_batch(
        &self,
        after: &str,
    ) -> Result<Vec<(String, Option<SessionId>)>, SessionsError> {
        type Read = XReadResponse<String, String, String, String>;
        let answer: Value = self
            .client()
            .xread(Some(u64::from(BATCH)), None, REVOKED, after)
            .await
            .map_err(|error| self.failed(error))?;
        // Redis answers null when there are no entries.
        let read: Read = match answer {
            Value::Null => Read::new(),
            entries => entries.into_xread_response().map_err(|error| self.failed(error))?,
        };
        let entries = read.into_values().flatten();
        Ok(entries
            .map(|(at, fields)| (at, fields.get("id").and_then(|id| SessionId::parse(id))))
            .collect())
    }
}

/// Unix time as score of a sorted set.
#[expect(clippy::cast_precision_loss, reason = "whole numbers of up to 53 bits are exact")]
fn score(time: i64) -> f64 {
    time as f64
}

fn meta_key(id: Id) -> String {
    format!("gateway:{{notes}}:session:{id}")
}

fn failures_key(from: Network) -> String {
    format!("gateway:{{notes}}:failures:{from}")
}

/// Window of a limit, in whole seconds.
fn seconds(limit: Limit) -> i64 {
    i64::try_from(limit.per.as_secs().max(1)).unwrap_or(i64::MAX)
}

fn waiting_key(of: Outbox) -> String {
    format!("gateway:{{notes}}:waiting:{}", of.name())
}

fn subject_key(subject: Uuid) -> String {
    format!("gateway:{{notes}}:subject:{subject}")
}

#[async_trait]
impl SessionBackend for Redis {
    async fn create(
        &self,
        id: &SessionId,
        session: &SessionMembers<'_>,
        now: i64,
    ) -> Result<bool, SessionsError> {
        let bytes = session_codec::to_redis(session)?;
        let expire = Expiration::EX((id.expires_at() - now).max(1));
        let answer: Option<String> = self
            .client()
            .set(self.flask_key(id), bytes.as_slice(), Some(expire), Some(SetOptions::NX), false)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(answer.is_some())
    }

    async fn record(&self, id: &str) -> Result<Option<FlaskRecord>, SessionsError> {
        let bytes: Option<Vec<u8>> =
            self.client().get(self.flask_key(id)).await.map_err(|error| self.failed(error))?;
        Ok(bytes.map(|bytes| FlaskRecord::from_redis(&bytes)).transpose()?)
    }

    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        self.client().exists(self.flask_key(id)).await.map_err(|error| self.failed(error))
    }

    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        // One key per command: in a cluster the keys lie on different nodes.
        for id in ids {
            self.client()
                .del::<(), _>(self.flask_key(id))
                .await
                .map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn counts_logins(&self) -> bool {
        true
    }

    async fn add_meta(
        &self,
        meta: &SessionMeta,
        quota: &Quota,
        now: i64,
    ) -> Result<Added, SessionsError> {
        let text = serde_json::to_string(meta).map_err(|_| FormatError::Encoding)?;
        let keys = [
            meta_key(meta.id),
            subject_key(meta.subject),
            EXPIRIES.to_owned(),
            format!("gateway:{{notes}}:logins:{}", meta.subject),
            // Without a limit the script does not use the last key.
            quota.failures.map_or_else(|| EXPIRIES.to_owned(), |(_, from)| failures_key(from)),
        ];
        // The sweep reports the expiry with it.
        let life = (meta.expires_at - now).max(1) + META_RETENTION;
        let id = meta.session_id().to_string();
        let max = |limit: Option<Limit>| Value::from(limit.map_or(0, |limit| i64::from(limit.max)));
        let args: [Value; 9] = [
            text.into(),
            life.into(),
            id.into(),
            meta.opened_at.into(),
            MAX_LIFE.into(),
            meta.expires_at.into(),
            max(quota.logins),
            quota.logins.map_or(0, seconds).into(),
            max(quota.failures.map(|(limit, _)| limit)),
        ];
        let answer: Value = self
            .add_meta
            .run(&self.client(), &keys, &args)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(match answer {
            Value::Null => Added::Taken,
            Value::Array(wait) => Added::TooOften(Duration::from_secs(
                wait.first().and_then(Value::as_u64).unwrap_or(1),
            )),
            count => Added::New { subject_sessions: count.as_usize().unwrap_or(usize::MAX) },
        })
    }

    async fn count_failure(
        &self,
        from: Network,
        limit: Limit,
    ) -> Result<Option<Duration>, SessionsError> {
        let args = [i64::from(limit.max).into(), seconds(limit).into()];
        let wait: u64 = self
            .count_failure
            .run(&self.client(), &[failures_key(from)], &args)
            .await
            .map_err(|error| self.failed(error))?;
        Ok((wait > 0).then(|| Duration::from_secs(wait)))
    }

    async fn meta(&self, id: Id) -> Result<Option<SessionMeta>, SessionsError> {
        let text: Option<String> =
            self.client().get(meta_key(id)).await.map_err(|error| self.failed(error))?;
        let meta = text.map(|text| serde_json::from_str(&text)).transpose();
        Ok(meta.map_err(|_| FormatError::Decoding)?)
    }

    async fn sessions_of(&self, subject: Uuid, now: i64) -> Result<Vec<SessionId>, SessionsError> {
        let key = subject_key(subject);
        let members: Vec<String> = self
            .client()
            .zrange(&key, 0, -1, None, false, None, false)
            .await
            .map_err(|error| self.failed(error))?;
        let (live, over): (Vec<String>, Vec<String>) = members
            .into_iter()
            .partition(|member| SessionId::parse(member).is_some_and(|id| id.expires_at() > now));
        if !over.is_empty() {
            self.client().zrem::<(), _, _>(&key, over).await.map_err(|error| self.failed(error))?;
        }
        Ok(live.iter().filter_map(|member| SessionId::parse(member)).collect())
    }

    /// By rank from the end, which works in Redis before 6.2.
    async fn unexpired(
        &self,
        now: i64,
        skip: usize,
        max: usize,
    ) -> Result<Unexpired, SessionsError> {
        let rank = |from_end: usize| -i64::try_from(from_end).unwrap_or(i64::MAX);
        let members: Vec<String> = self
            .client()
            .zrange(EXPIRIES, rank(skip + max), rank(skip + 1), None, false, None, false)
            .await
            .map_err(|error| self.failed(error))?;
        let mut ids: Vec<_> =
            members.iter().rev().filter_map(|member| SessionId::parse(member)).collect();
        let has_expired = ids.last().is_some_and(|id| id.expires_at() <= now);
        ids.retain(|id| id.expires_at() > now);
        Ok(Unexpired { ids, is_last: has_expired || members.len() < max })
    }

    async fn remove_meta(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError> {
        let client = self.client();
        tokio::try_join!(
            client.zrem::<(), _, _>(subject_key(subject), id.to_string()),
            client.del::<(), _>(meta_key(id.id())),
        )
        .map(drop)
        .map_err(|error| self.failed(error))
    }

    async fn revoke(&self, id: &SessionId) -> Result<(), SessionsError> {
        self.client()
            .xadd::<String, _, _, _, _>(REVOKED, false, None, "*", ("id", id.to_string()))
            .await
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    async fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError> {
        let since = since.filter(|_| !self.connection.was_reconnected());
        let mut at = since.map_or_else(|| BEGINNING.to_owned(), |cursor| cursor.0.clone());
        let mut ids = Vec::new();
        loop {
            let batch = self.revoked_batch(&at).await?;
            if let Some((last, _)) = batch.last() {
                at.clone_from(last);
            }
            let is_last = batch.len() < usize::from(BATCH);
            ids.extend(batch.into_iter().filter_map(|(_, id)| id));
            if is_last {
                return Ok(Revoked { ids, is_whole: since.is_none(), cursor: Some(Cursor(at)) });
            }
        }
    }

    async fn erase(&self, id: &SessionId) -> Result<(), SessionsError> {
        type Entry = (String, HashMap<String, String>);
        let (client, text) = (self.client(), id.to_string());
        client.zrem::<(), _, _>(EXPIRIES, &text).await.map_err(|error| self.failed(error))?;
        // It was added a moment ago: it is among the last entries.
        let last: Vec<Entry> = client
            .xrevrange_values(REVOKED, "+", "-", Some(u64::from(BATCH)))
            .await
            .map_err(|error| self.failed(error))?;
        let names_it = |(_, fields): &Entry| fields.get("id") == Some(&text);
        let entries: Vec<String> = last.into_iter().filter(names_it).map(|(at, _)| at).collect();
        if entries.is_empty() {
            return Ok(());
        }
        client.xdel::<(), _, _>(REVOKED, entries).await.map_err(|error| self.failed(error))
    }

    async fn sweep(&self, now: i64, forget_before: i64) -> Result<Vec<SessionId>, SessionsError> {
        let mut over = Vec::new();
        let mut offset = 0;
        loop {
            let limit = Some((offset, i64::from(BATCH)));
            let members: Vec<String> = self
                .client()
                .zrangebyscore(EXPIRIES, f64::NEG_INFINITY, score(now), false, limit)
                .await
                .map_err(|error| self.failed(error))?;
            let ids: Vec<SessionId> =
                members.iter().filter_map(|member| SessionId::parse(member)).collect();
            self.remove(&ids).await?;
            over.extend(ids);
            if members.len() < usize::from(BATCH) {
                break;
            }
            offset += i64::from(BATCH);
        }
        self.client()
            .zremrangebyscore::<(), _, _, _>(EXPIRIES, f64::NEG_INFINITY, score(forget_before))
            .await
            .map_err(|error| self.failed(error))?;
        self.trim(forget_before).await?;
        Ok(over)
    }

    async fn count(&self, now: i64) -> Result<u64, SessionsError> {
        let counted = self.client().zcount(EXPIRIES, score(now), f64::INFINITY).await;
        counted.map_err(|error| self.failed(error))
    }

    async fn register(
        &self,
        instance: &str,
        database: &str,
        now: i64,
        since: i64,
    ) -> Result<Vec<(String, String)>, SessionsError> {
        let member =
            serde_json::to_string(&(instance, database)).map_err(|_| FormatError::Encoding)?;
        let client = self.client();
        let members = async {
            client
                .zadd::<(), _, _>(INSTANCES, None, None, false, false, (score(now), member))
                .await?;
            client
                .zremrangebyscore::<(), _, _, _>(INSTANCES, f64::NEG_INFINITY, score(since - 1))
                .await?;
            client.zrange::<Vec<String>, _, _, _>(INSTANCES, 0, -1, None, false, None, false).await
        };
        let members = members.await.map_err(|error| self.failed(error))?;
        // Entries of another version with another form are skipped.
        Ok(members.iter().filter_map(|member| serde_json::from_str(member).ok()).collect())
    }

    async fn add_waiting(&self, of: Outbox, text: &str, now: i64) -> Result<(), SessionsError> {
        self.client()
            .zadd::<(), _, _>(waiting_key(of), None, None, false, false, (score(now), text))
            .await
            .map_err(|error| self.failed(error))
    }

    async fn waiting(&self, of: Outbox, max: usize) -> Result<Vec<String>, SessionsError> {
        let last = i64::try_from(max).unwrap_or(i64::MAX) - 1;
        self.client()
            .zrange(waiting_key(of), 0, last, None, false, None, false)
            .await
            .map_err(|error| self.failed(error))
    }

    async fn remove_waiting(&self, of: Outbox, text: &str) -> Result<(), SessionsError> {
        self.client()
            .zrem::<(), _, _>(waiting_key(of), text)
            .await
            .map_err(|error| self.failed(error))
    }

    fn reconnect(&self) {
        self.connection.replace();
    }

    fn warning(&self) -> Option<String> {
        self.connection.warning()
    }

    async fn ping(&self) -> Result<(), SessionsError> {
        self.client().ping::<String>(None).await.map(drop).map_err(|error| self.failed(error))
    }
}
