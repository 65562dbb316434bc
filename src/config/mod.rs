//! The settings, read once. Nothing else of ours reads the environment; what libraries read of it stands in
//! `docs/operating.md`.

mod callers;
mod container;
mod database;
mod entra;
#[cfg(fuzzing)]
#[path = "../../tests/fuzz/of_config.rs"]
pub(crate) mod fuzzing;
mod platform;
mod reader;
mod redis_auth;
mod removed;
mod sessions;
mod settings;
mod table;
mod telemetry;
#[cfg(test)]
mod tests;
mod upstream;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

pub use self::reader::Problems;
pub(crate) use self::reader::duration;
use self::reader::{Given, Reader, at_least_one, or_off, read_file, size, span, time_out};
pub(crate) use self::{
    callers::{ExternalAccessMode, ResourceConfig, RootMetadata},
    database::{ActivityConfig, ActivityRequired, DatabaseConfig, DatabaseTarget},
    entra::{Cloud, EntraConfig},
    platform::Platform,
    redis_auth::{AzureIdentity, RedisAuth, VaultSecret},
    sessions::{CookieConfig, Limit, SerializationFormat, SessionsConfig, StoreConfig},
    settings::Setting,
    telemetry::{OtlpConfig, Queue, Sampler, TelemetryConfig},
    upstream::{UpstreamConfig, UpstreamTarget},
};
use crate::authz::{client_info::EdgePolicy, policy::Policy};

/// Everything an operator decided.
#[derive(Debug)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) ops_listen: Option<SocketAddr>,
    pub(crate) workers: usize,
    /// Bytes that the process may use; `None`: no limit is known.
    pub(crate) memory_limit: Option<usize>,
    pub(crate) external_access: ExternalAccessMode,
    pub(crate) entra: EntraConfig,
    pub(crate) edge: EdgePolicy,
    pub(crate) policy: Policy,
    pub(crate) resource: ResourceConfig,
    pub(crate) sessions: SessionsConfig,
    pub(crate) cookie: CookieConfig,
    pub(crate) upstream: UpstreamConfig,
    pub(crate) timeout_head: Duration,
    pub(crate) timeout_idle: Duration,
    pub(crate) timeout_send: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) log_filter: String,
    pub(crate) telemetry: TelemetryConfig,
    pub(crate) activity: ActivityConfig,
    pub(crate) platform: Platform,
    /// How often upstream is tried; `None`: never.
    pub(crate) canary_interval: Option<Duration>,
    pub(crate) warnings: Vec<String>,
    given: Given,
    /// Whether a file holds any of them.
    has_file: bool,
}

impl Config {
    /// Reads the environment, and the TOML file it or `file` names.
    ///
    /// # Errors
    /// All problems together, each naming its setting.
    pub fn read(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<Self, Problems> {
        Self::of(open(environment, file)?)
    }

    fn of(mut reader: Reader) -> Result<Self, Problems> {
        let config = assemble(&mut reader);
        let (given, has_file) = (reader.to_given(), reader.has_file());
        Ok(Self { warnings: reader.finish()?, given, has_file, ..config })
    }

    /// `later` as far as it can count without a new start, and the settings that differ.
    ///
    /// # Errors
    /// When what can change does not go with what cannot.
    pub(crate) fn renewed(&self, later: &Self) -> Result<(Self, Vec<&'static Setting>), Problems> {
        // A file that is being written: every guard in it would be off.
        if self.has_file && !later.has_file {
            return Err(Problems::one("the configuration file holds no setting any more"));
        }
        let differences = self.given.differences(&later.given);
        let mut given = later.given.clone();
        for setting in differences.iter().filter(|setting| !setting.live) {
            given.take_over(setting, &self.given);
        }
        let renewed = Self::of(Reader::again(given))?;
        Ok((Self { has_file: later.has_file, ..renewed }, differences))
    }

    /// Every setting with its effective value, secrets masked, for a terminal; and what is wrong with
    /// them.
    ///
    /// # Errors
    /// When the TOML file cannot be read.
    pub fn table(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<(String, Result<(), Problems>), Problems> {
        let mut reader = open(environment, file)?;
        let config = assemble(&mut reader);
        let config = (!reader.has_problems()).then_some(&config);
        Ok((table::plain(&reader, config), reader.finish().map(drop)))
    }

    /// Every setting as a Markdown table, without values; for the README.
    #[must_use]
    pub fn markdown_table() -> String {
        table::markdown()
    }
}

fn open(
    environment: impl IntoIterator<Item = (String, String)>,
    file: Option<&Path>,
) -> Result<Reader, Problems> {
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let named =
        environment.get("GATEWAY_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let file = match file.map(Path::to_owned).or(named) {
        Some(path) => read_file(&path)?,
        None => BTreeMap::new(),
    };
    Ok(Reader::new(environment, file))
}

/// Reads every setting. Where one is wrong the reader notes it and a placeholder stands in: the
/// result is only handed out when there was nothing to note.
fn assemble(reader: &mut Reader) -> Config {
    let listen = reader.require("GATEWAY_LISTEN", socket_address);
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let ops_listen = reader.read("GATEWAY_OPS_LISTEN", or_off(socket_address));
    let ops_listen = ops_listen.flatten();
    let mut own = vec![("GATEWAY_LISTEN", listen)];
    own.extend(ops_listen.map(|address| ("GATEWAY_OPS_LISTEN", address)));
    if ops_listen == Some(listen) && listen.port() != 0 {
        reader.problem("GATEWAY_OPS_LISTEN", "is the same as GATEWAY_LISTEN");
    }
    let policy = callers::policy(reader);
    let entra = entra::read(reader);
    Config {
        listen,
        ops_listen,
        workers: match reader.given("GATEWAY_WORKERS") {
            Some(_) => reader.read("GATEWAY_WORKERS", workers).unwrap_or(1),
            None => thread::available_parallelism().map_or(1, usize::from),
        },
        memory_limit: match reader.given("GATEWAY_MEMORY_LIMIT") {
            Some(_) => reader.read("GATEWAY_MEMORY_LIMIT", memory_limit),
            None => container::memory_limit(),
        },
        external_access: callers::external_access(reader),
        edge: callers::edge(reader),
        resource: callers::resource(reader, &entra, &policy),
        sessions: sessions::sessions(reader),
        cookie: sessions::cookie(reader),
        upstream: upstream::read(reader, &own),
        timeout_head: time_out(reader, "GATEWAY_TIMEOUT_HEAD"),
        timeout_idle: time_out(reader, "GATEWAY_TIMEOUT_IDLE"),
        timeout_send: time_out(reader, "GATEWAY_TIMEOUT_SEND"),
        drain_delay: span(reader, "GATEWAY_DRAIN_DELAY"),
        drain_timeout: span(reader, "GATEWAY_DRAIN_TIMEOUT"),
        log_filter: reader.read("RUST_LOG", log_filter).unwrap_or_default(),
        telemetry: telemetry::read(reader),
        activity: database::activity(reader),
        platform: platform::read(reader),
        canary_interval: reader
            .require("GATEWAY_CANARY_INTERVAL", or_off(canary_interval))
            .flatten(),
        warnings: Vec::new(),
        given: Given::default(),
        has_file: false,
        policy,
        entra,
    }
}

/// More threads than any machine has cores are a slip.
fn workers(text: &str) -> Result<usize, String> {
    let workers = at_least_one(text)?;
    if workers <= 1024 { Ok(workers) } else { Err("is more than 1024".to_owned()) }
}

/// With less it could not serve.
fn memory_limit(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    if bytes >= 32 << 20 { Ok(bytes) } else { Err("is less than 32MiB".to_owned()) }
}

/// More often would be a load on upstream.
fn canary_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval >= Duration::from_secs(1) {
        Ok(interval)
    } else {
        Err("is shorter than 1s".to_owned())
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("is not a filter: {error}")),
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not address:port, like 0.0.0.0:8080 or [::]:8080".to_owned())
}
