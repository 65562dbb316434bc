//! Redis as the store that Flask reads too, and for our notes.
//!
//! ```text
//! session:ID                        Flask's record         string, TTL
//! gateway:{notes}:session:22CHARS   note                   string, TTL: a while beyond its end
//! gateway:{notes}:subject:OID       a subject's sessions   sorted set by opening time
//! gateway:{notes}:expiries          all minted sessions    sorted set by expiry
//! gateway:{notes}:logins:OID        logins in a window     counter, TTL
//! gateway:{notes}:failures:ADDRESS  failures in a window   counter, TTL
//! gateway:{notes}:instances         instances              sorted set by when last seen
//! gateway:{notes}:waiting:decisions decisions that wait for the database  sorted set by time
//! gateway:{notes}:waiting:records   records that do                       sorted set by time
//! gateway:ended                     ended sessions         stream, read by every instance
//! ```
//!
//! Ours never begin with Flask's prefix: a cookie can name any key under that. In a cluster the notes
//! lie on one node, by their hash tag, so that one script reaches them.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use fred::{
    error::Error,
    interfaces::{
        ClientLike, EventInterface, KeysInterface, SortedSetsInterface, StreamsInterface,
    },
    prelude::Client,
    types::{
        ConnectHandle, Expiration, SetOptions, Value,
        config::{
            Config, ConnectionConfig, CredentialProvider, PerformanceConfig, ReconnectPolicy,
            Server, TlsConfig, UnresponsiveConfig,
        },
        streams::XReadResponse,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::broadcast::{self, error::TryRecvError},
    task::JoinHandle,
};
use tower_sessions_core::session::Id;
use uuid::Uuid;

use super::{
    Added, Cursor, Quota, Revoked, SessionBackend, SessionMeta, Unexpired, Waiting,
    redis_credentials::{Credentials, Source},
    redis_fault::{Auth, Endpoint, RedisFault},
    redis_script::Script,
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
    tls,
};

/// For one command, the wait for a connection included.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);
/// A connection whose server has said nothing for so long is dropped. Shorter than a command may take:
/// one that timed out is no longer looked at.
const UNRESPONSIVE: Duration = Duration::from_secs(1);
/// Between attempts to connect, in milliseconds.
const RECONNECT_DELAY: u32 = 200;
/// Commands that may wait for a connection; more are refused at once.
const LONGEST_QUEUE: usize = 4096;
/// Entries read in one command.
const BATCH: u16 = 500;

/// Of any session, in seconds (`GATEWAY_SESSION_MAX_AGE` goes no higher).
const LONGEST_LIFE: i64 = 31 * 86_400;

/// So long a note outlives its session, in seconds.
const META_OUTLIVES: i64 = RETENTION + 60;

const EXPIRIES: &str = "gateway:{notes}:expiries";
const INSTANCES: &str = "gateway:{notes}:instances";
const ENDED: &str = "gateway:ended";
/// Before a stream's first entry.
const BEGINNING: &str = "0-0";

/// A connection that mends itself, and is made anew when it does not.
pub(crate) struct Redis {
    live: ArcSwap<RedisConnection>,
    settings: ConnectionSettings,
    key_prefix: String,
    add_meta: Script,
    count_failure: Script,
    /// How far the stream has been trimmed.
    trimmed: Mutex<String>,
    endpoint: Endpoint,
    /// Why the last connection could not be made, or ended.
    why_away: ArcSwapOption<RedisFault>,
}

/// What a client is made of.
struct ConnectionSettings {
    config: Config,
    performance: PerformanceConfig,
    connection: ConnectionConfig,
    /// Where they do not stand in `config`.
    credentials: Option<Arc<Credentials>>,
}

/// One client with its connection.
struct RedisConnection {
    client: Client,
    connecting: ConnectHandle,
    following: Option<JoinHandle<()>>,
    reconnects: Mutex<broadcast::Receiver<Server>>,
    errors: Mutex<broadcast::Receiver<(Error, Option<Server>)>>,
}

impl RedisConnection {
    /// Begins to connect, and goes on trying.
    fn begin(settings: &ConnectionSettings) -> Self {
        let ConnectionSettings { config, performance, connection, credentials } = settings;
        let forever = ReconnectPolicy::new_constant(0, RECONNECT_DELAY);
        let client = Client::new(
            config.clone(),
            Some(performance.clone()),
            Some(connection.clone()),
            Some(forever),
        );
        let reconnects = Mutex::new(client.reconnect_rx());
        let errors = Mutex::new(client.error_rx());
        let following = credentials.clone().map(|them| tokio::spawn(them.follow(client.clone())));
        let connecting = client.connect();
        Self { client, connecting, following, reconnects, errors }
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.connecting.abort();
        if let Some(following) = &self.following {
            following.abort();
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis(..)")
    }
}

impl Redis {
    /// Begins to connect; waits for nothing.
    pub(crate) fn connect(
        url: &SecretString,
        auth: &RedisAuth,
        ca_file: Option<&Path>,
        key_prefix: String,
    ) -> Result<Self, SessionsError> {
        let mut config = Config::from_url(url.expose_secret()).map_err(|error| {
            let endpoint = Endpoint {
                address: "REDIS_URL".to_owned(),
                has_tls: false,
                auth: Auth::from(auth),
            };
            SessionsError::Redis(RedisFault::new(&error, None, &endpoint))
        })?;
        config.fail_fast = false;
        let hosts = config.server.hosts();
        let endpoint = Endpoint {
            address: hosts.iter().map(Server::to_string).collect::<Vec<_>>().join(", "),
            has_tls: config.tls.is_some(),
            auth: Auth::from(auth),
        };
        let credentials = match auth {
            RedisAuth::Key(None) => None,
            RedisAuth::Key(Some(password)) => {
                config.password = Some(password.expose_secret().to_owned());
                None
            }
            RedisAuth::ManagedIdentity { identity, scope } => {
                Some((identity, Source::Identity { scope: scope.clone() }))
            }
            RedisAuth::KeyVault { identity, secret } => {
                let user = config.username.take();
                Some((identity, Source::Vault { secret: secret.clone(), user }))
            }
        };
        let credentials = credentials
            .map(|(identity, source)| Credentials::run(identity.clone(), source).map(Arc::new))
            .transpose()
            .map_err(SessionsError::Azure)?;
        config.credential_provider =
            credentials.clone().map(|credentials| credentials as Arc<dyn CredentialProvider>);
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
                max_timeout: Some(UNRESPONSIVE),
                interval: UNRESPONSIVE / 4,
            },
            reconnect_on_auth_error: true,
            ..ConnectionConfig::default()
        };
        let settings = ConnectionSettings { config, performance, connection, credentials };
        Ok(Self {
            live: ArcSwap::from_pointee(RedisConnection::begin(&settings)),
            settings,
            endpoint,
            key_prefix,
            add_meta: Script::new(include_str!("add_meta.lua")),
            count_failure: Script::new(include_str!("count_failure.lua")),
            trimmed: Mutex::new(BEGINNING.to_owned()),
            why_away: ArcSwapOption::empty(),
        })
    }

    fn client(&self) -> Client {
        self.live.load().client.clone()
    }

    fn flask_key(&self, id: &SessionId) -> String {
        format!("{}{id}", self.key_prefix)
    }

    /// Whether a connection was made since this was last asked: perhaps to another server.
    fn was_reconnected(&self) -> bool {
        last(&self.live.load().reconnects).is_some()
    }

    fn find_outage_cause(&self) {
        if let Some((why, server)) = last(&self.live.load().errors) {
            tracing::debug!(error = %why, "Redis");
            let fault = RedisFault::new(&why, server.as_ref(), &self.endpoint);
            self.why_away.store(Some(Arc::new(fault)));
        }
    }

    /// What a command's failure means. While there is no connection, commands only tell that they waited;
    /// the reason is why there is none.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    fn failed(&self, error: Error) -> SessionsError {
        self.find_outage_cause();
        match self.why_away.load_full() {
            Some(why) if !self.live.load().client.is_connected() => {
                SessionsError::RedisUnavailable((*why).clone())
            }
            _ => SessionsError::Redis(RedisFault::new(&error, None, &self.endpoint)),
        }
    }

    /// Takes what no longer matters out of the stream: a batch each time, round and round.
    async fn trim(&self, forget_before: i64) -> Result<(), SessionsError> {
        let at = {
            let mut trimmed = self.trimmed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *trimmed, BEGINNING.to_owned())
        };
        let batch = self.ended_batch(&at).await?;
        if let Some((last, _)) = batch.last().filter(|_| batch.len() == usize::from(BATCH)) {
            last.clone_into(&mut self.trimmed.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let is_over = |id: &Option<SessionId>| id.is_none_or(|id| id.expires_at() < forget_before);
        let over: Vec<String> =
            batch.into_iter().filter(|(_, id)| is_over(id)).map(|(at, _)| at).collect();
        if over.is_empty() {
            return Ok(());
        }
        self.client().xdel::<(), _, _>(ENDED, over).await.map_err(|error| self.failed(error))
    }

    /// Reads one batch of the stream after an entry.
    async fn ended_batch(
        &self,
        after: &str,
    ) -> Result<Vec<(String, Option<SessionId>)>, SessionsError> {
        type Read = XReadResponse<String, String, String, String>;
        let answer: Value = self
            .client()
            .xread(Some(u64::from(BATCH)), None, ENDED, after)
            .await
            .map_err(|error| self.failed(error))?;
        // Nothing since is no map at all.
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

/// The last of what was told since this was last asked. Only the oldest get lost, so there is always a last.
fn last<T: Clone>(events: &Mutex<broadcast::Receiver<T>>) -> Option<T> {
    let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = None;
    loop {
        match events.try_recv() {
            Ok(one) => last = Some(one),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return last,
        }
    }
}

/// Unix time as a sorted set's score: whole numbers up to 52 bits are exact.
#[expect(clippy::cast_precision_loss, reason = "as just said")]
fn score(time: i64) -> f64 {
    time as f64
}

fn meta_key(id: Id) -> String {
    format!("gateway:{{notes}}:session:{id}")
}

fn failures_key(from: Network) -> String {
    format!("gateway:{{notes}}:failures:{from}")
}

/// A limit's window, in whole seconds.
fn seconds(limit: Limit) -> i64 {
    i64::try_from(limit.per.as_secs().max(1)).unwrap_or(i64::MAX)
}

fn waiting_key(of: Waiting) -> String {
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
        let key = format!("{}{id}", self.key_prefix);
        let bytes: Option<Vec<u8>> =
            self.client().get(key).await.map_err(|error| self.failed(error))?;
        Ok(bytes.map(|bytes| FlaskRecord::from_redis(&bytes)).transpose()?)
    }

    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        self.client().exists(self.flask_key(id)).await.map_err(|error| self.failed(error))
    }

    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        // One key a command: in a cluster they lie on different nodes.
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
            // Neither is looked at where there is no limit.
            quota.failures.map_or_else(|| EXPIRIES.to_owned(), |(_, from)| failures_key(from)),
        ];
        // The sweep tells whose session has expired.
        let life = (meta.expires_at - now).max(1) + META_OUTLIVES;
        let id = meta.session_id().to_string();
        let max = |limit: Option<Limit>| Value::from(limit.map_or(0, |limit| i64::from(limit.max)));
        let args: [Value; 9] = [
            text.into(),
            life.into(),
            id.into(),
            meta.opened_at.into(),
            LONGEST_LIFE.into(),
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

    /// By rank, as Redis before 6.2 can: the last ones end last.
    async fn unexpired(
        &self,
        now: i64,
        skip: usize,
        max: usize,
    ) -> Result<Unexpired, SessionsError> {
        let rank = |from_the_end: usize| -i64::try_from(from_the_end).unwrap_or(i64::MAX);
        let members: Vec<String> = self
            .client()
            .zrange(EXPIRIES, rank(skip + max), rank(skip + 1), None, false, None, false)
            .await
            .map_err(|error| self.failed(error))?;
        let mut ids: Vec<_> =
            members.iter().rev().filter_map(|member| SessionId::parse(member)).collect();
        let has_over = ids.last().is_some_and(|id| id.expires_at() <= now);
        ids.retain(|id| id.expires_at() > now);
        Ok(Unexpired { ids, is_last: has_over || members.len() < max })
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
            .xadd::<String, _, _, _, _>(ENDED, false, None, "*", ("id", id.to_string()))
            .await
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    async fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError> {
        let since = since.filter(|_| !self.was_reconnected());
        let mut at = since.map_or_else(|| BEGINNING.to_owned(), |cursor| cursor.0.clone());
        let mut ids = Vec::new();
        loop {
            let batch = self.ended_batch(&at).await?;
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
        // It was written a moment ago: it is among the last.
        let last: Vec<Entry> = client
            .xrevrange_values(ENDED, "+", "-", Some(u64::from(BATCH)))
            .await
            .map_err(|error| self.failed(error))?;
        let of_it = |(_, fields): &Entry| fields.get("id") == Some(&text);
        let entries: Vec<String> = last.into_iter().filter(of_it).map(|(at, _)| at).collect();
        if entries.is_empty() {
            return Ok(());
        }
        client.xdel::<(), _, _>(ENDED, entries).await.map_err(|error| self.failed(error))
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
        // What another version wrote otherwise is passed over.
        Ok(members.iter().filter_map(|member| serde_json::from_str(member).ok()).collect())
    }

    async fn add_waiting(&self, of: Waiting, text: &str, now: i64) -> Result<(), SessionsError> {
        self.client()
            .zadd::<(), _, _>(waiting_key(of), None, None, false, false, (score(now), text))
            .await
            .map_err(|error| self.failed(error))
    }

    async fn waiting(&self, of: Waiting, max: usize) -> Result<Vec<String>, SessionsError> {
        let last = i64::try_from(max).unwrap_or(i64::MAX) - 1;
        self.client()
            .zrange(waiting_key(of), 0, last, None, false, None, false)
            .await
            .map_err(|error| self.failed(error))
    }

    async fn remove_waiting(&self, of: Waiting, text: &str) -> Result<(), SessionsError> {
        self.client()
            .zrem::<(), _, _>(waiting_key(of), text)
            .await
            .map_err(|error| self.failed(error))
    }

    fn reconnect(&self) {
        self.find_outage_cause();
        self.live.store(Arc::new(RedisConnection::begin(&self.settings)));
    }

    fn trouble(&self) -> Option<String> {
        let why = self.settings.credentials.as_ref()?.trouble()?;
        Some(format!("credentials for Redis could not be renewed: {why}"))
    }

    async fn ping(&self) -> Result<(), SessionsError> {
        self.client().ping::<String>(None).await.map(drop).map_err(|error| self.failed(error))
    }
}
