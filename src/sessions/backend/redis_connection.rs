//! Connection to Redis: reconnects by itself, and is replaced when it does not recover.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use fred::{
    error::Error,
    interfaces::{ClientLike, EventInterface},
    prelude::Client,
    types::{
        ConnectHandle,
        config::{
            Config, ConnectionConfig, CredentialProvider, PerformanceConfig, ReconnectPolicy,
            Server, TlsConfig, UnresponsiveConfig,
        },
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::broadcast::{self, error::TryRecvError},
    task::JoinHandle,
};

use super::{
    redis_credentials::{Credentials, Source},
    redis_fault::{Auth, RedisEndpoint, RedisFault},
};
use crate::{config::RedisAuth, sessions::SessionsError, tls};

/// Time-out of one command, including its wait for a connection.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(1500);
/// Silence of the server after which a connection is dropped. Shorter than [`COMMAND_TIMEOUT`]: a command that
/// timed out does not count as waiting for an answer.
const UNRESPONSIVE: Duration = Duration::from_secs(1);
/// Delay between attempts to connect, in milliseconds.
const RECONNECT_DELAY: u32 = 200;
/// Commands that may wait for a connection; further ones fail at once.
const MAX_QUEUE: usize = 4096;

pub(super) struct RedisConnection {
    client: ArcSwap<ConnectingClient>,
    settings: ConnectionSettings,
    endpoint: RedisEndpoint,
    /// Reason why the last attempt to connect failed, or the connection ended.
    outage_cause: ArcSwapOption<RedisFault>,
}

/// Parameters of a client.
struct ConnectionSettings {
    config: Config,
    performance: PerformanceConfig,
    connection: ConnectionConfig,
    /// Credentials that are not part of `config`.
    credentials: Option<Arc<Credentials>>,
}

/// A client and its tasks.
struct ConnectingClient {
    client: Client,
    connecting: ConnectHandle,
    renewing: Option<JoinHandle<()>>,
    reconnects: Mutex<broadcast::Receiver<Server>>,
    errors: Mutex<broadcast::Receiver<(Error, Option<Server>)>>,
}

impl ConnectingClient {
    /// Starts to connect, and retries without end.
    fn new(settings: &ConnectionSettings) -> Self {
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
        let renewing = credentials
            .clone()
            .map(|credentials| tokio::spawn(credentials.authenticate_loop(client.clone())));
        let connecting = client.connect();
        Self { client, connecting, renewing, reconnects, errors }
    }
}

impl Drop for ConnectingClient {
    fn drop(&mut self) {
        self.connecting.abort();
        if let Some(renewing) = &self.renewing {
            renewing.abort();
        }
    }
}

impl RedisConnection {
    /// Starts to connect; does not wait for the connection.
    pub(super) fn start(
        url: &SecretString,
        auth: &RedisAuth,
        ca_file: Option<&Path>,
    ) -> Result<Self, SessionsError> {
        let mut config = Config::from_url(url.expose_secret()).map_err(|error| {
            let endpoint = RedisEndpoint {
                address: "REDIS_URL".to_owned(),
                has_tls: false,
                auth: Auth::from(auth),
            };
            SessionsError::Redis(RedisFault::new(&error, None, &endpoint))
        })?;
        config.fail_fast = false;
        let hosts = config.server.hosts();
        let endpoint = RedisEndpoint {
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
            .map(|(identity, source)| Credentials::start(identity.clone(), source).map(Arc::new))
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
            max_command_buffer_len: MAX_QUEUE,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(UNRESPONSIVE),
                interval: UNRESPONSIVE / 4,
            },
            reconnect_on_auth_error: true,
            ..ConnectionConfig::default()
        };
        let settings = ConnectionSettings { config, performance, connection, credentials };
        Ok(Self {
            client: ArcSwap::from_pointee(ConnectingClient::new(&settings)),
            settings,
            endpoint,
            outage_cause: ArcSwapOption::empty(),
        })
    }

    pub(super) fn client(&self) -> Client {
        self.client.load().client.clone()
    }

    /// Drops the client and starts another.
    pub(super) fn replace(&self) {
        self.record_outage_cause();
        self.client.store(Arc::new(ConnectingClient::new(&self.settings)));
    }

    /// True if a connection was made since the last call: perhaps to another server.
    pub(super) fn was_reconnected(&self) -> bool {
        last(&self.client.load().reconnects).is_some()
    }

    /// Reason why the credentials could not be renewed.
    pub(super) fn warning(&self) -> Option<String> {
        let why = self.settings.credentials.as_ref()?.warning()?;
        Some(format!("credentials for Redis could not be renewed: {why}"))
    }

    fn record_outage_cause(&self) {
        if let Some((error, server)) = last(&self.client.load().errors) {
            tracing::debug!(error = %error, "Redis connection failed");
            let fault = RedisFault::new(&error, server.as_ref(), &self.endpoint);
            self.outage_cause.store(Some(Arc::new(fault)));
        }
    }

    /// Failure of a command. Without a connection a command fails with a time-out alone; the cause is then that
    /// of the outage.
    #[expect(clippy::needless_pass_by_value, reason = "for map_err")]
    pub(super) fn failed(&self, error: Error) -> SessionsError {
        self.record_outage_cause();
        match self.outage_cause.load_full() {
            Some(cause) if !self.client.load().client.is_connected() => {
                SessionsError::RedisUnavailable((*cause).clone())
            }
            _ => SessionsError::Redis(RedisFault::new(&error, None, &self.endpoint)),
        }
    }
}

/// Latest event since the last call. The channel drops the oldest events only, so the latest is never lost.
fn last<T: Clone>(events: &Mutex<broadcast::Receiver<T>>) -> Option<T> {
    let mut events = events.lock().unwrap_or_else(PoisonError::into_inner);
    let mut last = None;
    loop {
        match events.try_recv() {
            Ok(event) => last = Some(event),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => return last,
        }
    }
}
