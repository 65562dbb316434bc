//! Redis as the store that Flask reads too, and for our notes.
//!
//! ```text
//! session:ID                Flask's record             string, TTL
//! gateway:session:22CHARS   note                       string, TTL
//! gateway:subject:OID       a subject's sessions       sorted set by opening time
//! gateway:expiries          all minted sessions        sorted set by expiry
//! gateway:ended             ended sessions             stream, read by every instance
//! ```
//!
//! Ours never begin with Flask's prefix: a cookie can name any key under that.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use fred::{
    interfaces::{
        ClientLike, EventInterface, KeysInterface, SortedSetsInterface, StreamsInterface,
    },
    prelude::Client,
    types::{
        Expiration, SetOptions, Value,
        config::{
            Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, TlsConfig,
            UnresponsiveConfig,
        },
        streams::XReadResponse,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::broadcast;
use tower_sessions::session::Id;
use uuid::Uuid;

use super::{
    SessionsError,
    flask_format::{self, FlaskSession},
    shelf::{Bookmark, Ended, Note, Shelf},
};
use crate::{access::session::SessionId, config::SerializationFormat, tls};

/// For one command, the wait for a connection included.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);
/// Between attempts to connect, in milliseconds.
const RECONNECT_DELAY: u32 = 200;
/// Commands that may wait for a connection; more are refused at once.
const LONGEST_QUEUE: usize = 4096;
/// Ended sessions read, or records removed, in one command.
const BATCH: u16 = 500;

const EXPIRIES: &str = "gateway:expiries";
const ENDED: &str = "gateway:ended";

/// A connection that mends itself.
pub(super) struct Redis {
    client: Client,
    key_prefix: String,
    format: SerializationFormat,
    reconnects: Mutex<broadcast::Receiver<Server>>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis(..)")
    }
}

impl Redis {
    /// Begins to connect, and goes on trying; waits for nothing.
    pub(super) fn connect(
        url: &SecretString,
        password: Option<&SecretString>,
        ca_file: Option<&Path>,
        key_prefix: String,
        format: SerializationFormat,
    ) -> Result<Self, SessionsError> {
        let mut config = Config::from_url(url.expose_secret()).map_err(SessionsError::redis)?;
        config.fail_fast = false;
        if let Some(password) = password {
            config.password = Some(password.expose_secret().to_owned());
        }
        if config.tls.is_some() {
            let client = tls::client(ca_file).map_err(SessionsError::Tls)?;
            config.tls = Some(TlsConfig::from(client));
        }
        // fred's defaults never time out and queue without bounds.
        let performance = PerformanceConfig {
            default_command_timeout: COMMAND_TIMEOUT,
            ..PerformanceConfig::default()
        };
        let connection = ConnectionConfig {
            connection_timeout: COMMAND_TIMEOUT,
            internal_command_timeout: COMMAND_TIMEOUT,
            max_command_attempts: 3,
            max_command_buffer_len: LONGEST_QUEUE,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(2 * COMMAND_TIMEOUT),
                interval: COMMAND_TIMEOUT / 3,
            },
            reconnect_on_auth_error: true,
            ..ConnectionConfig::default()
        };
        let forever = ReconnectPolicy::new_constant(0, RECONNECT_DELAY);
        let client = Client::new(config, Some(performance), Some(connection), Some(forever));
        let reconnects = Mutex::new(client.reconnect_rx());
        client.connect();
        Ok(Self { client, key_prefix, format, reconnects })
    }

    fn flask_key(&self, id: &SessionId) -> String {
        format!("{}{id}", self.key_prefix)
    }

    /// Whether a connection was made since this was last asked: perhaps to another server.
    fn was_reconnected(&self) -> bool {
        let mut reconnects = self.reconnects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut was = false;
        while !matches!(
            reconnects.try_recv(),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed)
        ) {
            was = true;
        }
        was
    }

    /// Reads one batch of the stream after an entry.
    async fn ended_batch(
        &self,
        after: &str,
    ) -> Result<Vec<(String, Option<SessionId>)>, SessionsError> {
        type Read = XReadResponse<String, String, String, String>;
        let answer: Value = self
            .client
            .xread(Some(u64::from(BATCH)), None, ENDED, after)
            .await
            .map_err(SessionsError::redis)?;
        // Nothing since is no map at all.
        let read: Read = match answer {
            Value::Null => Read::new(),
            entries => entries.into_xread_response().map_err(SessionsError::redis)?,
        };
        let entries = read.into_values().flatten();
        Ok(entries
            .map(|(at, fields)| (at, fields.get("id").and_then(|id| SessionId::parse(id))))
            .collect())
    }
}

fn note_key(id: Id) -> String {
    format!("gateway:session:{id}")
}

fn subject_key(subject: Uuid) -> String {
    format!("gateway:subject:{subject}")
}

#[async_trait]
impl Shelf for Redis {
    async fn put(
        &self,
        id: &SessionId,
        session: &FlaskSession,
        is_new: bool,
        now: i64,
    ) -> Result<bool, SessionsError> {
        let bytes = flask_format::to_redis(session, self.format)?;
        let options = if is_new { SetOptions::NX } else { SetOptions::XX };
        let expire = Expiration::EX((id.expires_at() - now).max(1));
        let answer: Option<String> = self
            .client
            .set(self.flask_key(id), bytes.as_slice(), Some(expire), Some(options), false)
            .await
            .map_err(SessionsError::redis)?;
        Ok(answer.is_some())
    }

    async fn get(&self, id: &SessionId) -> Result<Option<FlaskSession>, SessionsError> {
        let bytes: Option<Vec<u8>> =
            self.client.get(self.flask_key(id)).await.map_err(SessionsError::redis)?;
        bytes.map(|bytes| flask_format::from_redis(&bytes)).transpose()
    }

    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        self.client.exists(self.flask_key(id)).await.map_err(SessionsError::redis)
    }

    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        // One key a command: in a cluster they lie on different nodes.
        let pipeline = self.client.pipeline();
        for id in ids {
            pipeline.del::<(), _>(self.flask_key(id)).await.map_err(SessionsError::redis)?;
        }
        if ids.is_empty() {
            Ok(())
        } else {
            pipeline.all::<Vec<i64>>().await.map(drop).map_err(SessionsError::redis)
        }
    }

    async fn add_note(&self, note: &Note, now: i64) -> Result<bool, SessionsError> {
        let text = serde_json::to_string(note).map_err(|_| SessionsError::Encoding)?;
        let life = (note.expires_at - now).max(1);
        let answer: Option<String> = self
            .client
            .set(note_key(note.id), text, Some(Expiration::EX(life)), Some(SetOptions::NX), false)
            .await
            .map_err(SessionsError::redis)?;
        if answer.is_none() {
            return Ok(false);
        }
        let member = note.session_id().to_string();
        #[expect(clippy::cast_precision_loss, reason = "Unix seconds fit into 52 bits")]
        let (opened, expires) = (note.opened_at as f64, note.expires_at as f64);
        let (by_subject, of_subject) = (subject_key(note.subject), self.client.pipeline());
        of_subject
            .zadd::<(), _, _>(&by_subject, None, None, false, false, (opened, member.clone()))
            .await
            .map_err(SessionsError::redis)?;
        // Sessions of a subject may end later than this one; none does after the longest life.
        of_subject
            .expire::<(), _>(&by_subject, 31 * 86_400, None)
            .await
            .map_err(SessionsError::redis)?;
        of_subject
            .zadd::<(), _, _>(EXPIRIES, None, None, false, false, (expires, member))
            .await
            .map_err(SessionsError::redis)?;
        of_subject.all::<Vec<i64>>().await.map_err(SessionsError::redis)?;
        Ok(true)
    }

    async fn note(&self, id: Id) -> Result<Option<Note>, SessionsError> {
        let text: Option<String> =
            self.client.get(note_key(id)).await.map_err(SessionsError::redis)?;
        text.map(|text| serde_json::from_str(&text).map_err(|_| SessionsError::Decoding))
            .transpose()
    }

    async fn notes_of(&self, subject: Uuid) -> Result<Vec<Note>, SessionsError> {
        let key = subject_key(subject);
        let members: Vec<String> = self
            .client
            .zrange(&key, 0, -1, None, false, None, false)
            .await
            .map_err(SessionsError::redis)?;
        let mut notes = Vec::new();
        for member in members {
            let note = match SessionId::parse(&member) {
                Some(id) => self.note(id.id()).await?,
                None => None,
            };
            match note {
                Some(note) => notes.push(note),
                // Its note expired with it.
                None => self
                    .client
                    .zrem::<(), _, _>(&key, member)
                    .await
                    .map_err(SessionsError::redis)?,
            }
        }
        Ok(notes)
    }

    async fn remove_note(&self, note: &Note) -> Result<(), SessionsError> {
        let member = note.session_id().to_string();
        self.client
            .zrem::<(), _, _>(subject_key(note.subject), member)
            .await
            .map_err(SessionsError::redis)?;
        self.client.del::<(), _>(note_key(note.id)).await.map_err(SessionsError::redis)
    }

    async fn mark_ended(&self, id: &SessionId) -> Result<(), SessionsError> {
        self.client
            .xadd::<String, _, _, _, _>(ENDED, false, None, "*", ("id", id.to_string()))
            .await
            .map(drop)
            .map_err(SessionsError::redis)
    }

    async fn ended(&self, since: Option<&Bookmark>) -> Result<Ended, SessionsError> {
        let since = since.filter(|_| !self.was_reconnected());
        let mut at = since.map_or_else(|| "0-0".to_owned(), |bookmark| bookmark.0.clone());
        let mut ids = Vec::new();
        loop {
            let batch = self.ended_batch(&at).await?;
            if let Some((last, _)) = batch.last() {
                at.clone_from(last);
            }
            let is_last = batch.len() < usize::from(BATCH);
            ids.extend(batch.into_iter().filter_map(|(_, id)| id));
            if is_last {
                return Ok(Ended { ids, is_whole: since.is_none(), bookmark: Some(Bookmark(at)) });
            }
        }
    }

    async fn sweep(&self, now: i64, long_ago: i64) -> Result<(), SessionsError> {
        let mut offset = 0;
        loop {
            let limit = Some((offset, i64::from(BATCH)));
            let members: Vec<String> = self
                .client
                .zrangebyscore(EXPIRIES, "-inf", now.to_string(), false, limit)
                .await
                .map_err(SessionsError::redis)?;
            let ids: Vec<SessionId> =
                members.iter().filter_map(|member| SessionId::parse(member)).collect();
            self.remove(&ids).await?;
            if members.len() < usize::from(BATCH) {
                break;
            }
            offset += i64::from(BATCH);
        }
        self.client
            .zremrangebyscore::<(), _, _, _>(EXPIRIES, "-inf", long_ago.to_string())
            .await
            .map_err(SessionsError::redis)?;

        // Entries stand in the order of ending; stop at the first that still matters.
        let batch = self.ended_batch("0-0").await?;
        let over: Vec<String> = batch
            .into_iter()
            .take_while(|(_, id)| id.is_none_or(|id| id.expires_at() < long_ago))
            .map(|(at, _)| at)
            .collect();
        if !over.is_empty() {
            self.client.xdel::<(), _, _>(ENDED, over).await.map_err(SessionsError::redis)?;
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), SessionsError> {
        self.client.ping::<String>(None).await.map(drop).map_err(SessionsError::redis)
    }
}

impl SessionsError {
    fn redis(error: fred::error::Error) -> Self {
        Self::Redis(Arc::new(error))
    }
}
