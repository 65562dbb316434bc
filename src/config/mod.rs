//! Configuration: settings from the environment and a TOML file, read once into typed values. No other part
//! of the gateway reads the environment; `docs/reference/cli.md` lists the variables that libraries read.

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
use self::reader::{Given, Reader, at_least_one, delay, or_off, read_file, size, timeout};
pub(crate) use self::{
    callers::{ExternalAccessMode, ResourceConfig, RootMetadata},
    database::{ActivityConfig, ActivityRequired, DatabaseConfig, DatabaseTarget},
    entra::{Cloud, EntraConfig},
    platform::Platform,
    redis_auth::{AzureIdentity, RedisAuth, VaultSecret},
    sessions::{CookieConfig, Limit, SessionsConfig, StoreConfig},
    settings::Setting,
    telemetry::{OtlpConfig, Queue, Sampler, TelemetryConfig},
    upstream::{UpstreamConfig, UpstreamTarget},
};
use crate::authz::{client_info::EdgePolicy, policy::Policy};

/// Every setting as a typed value.
#[derive(Debug)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) ops_listen: Option<SocketAddr>,
    pub(crate) workers: usize,
    /// Memory limit of the process in bytes; `None`: unknown.
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
    /// Time between two canary runs; `None`: off.
    pub(crate) canary_interval: Option<Duration>,
    pub(crate) warnings: Vec<String>,
    given: Given,
    /// True if the TOML file holds any setting.
    has_file: bool,
}

impl Config {
    /// Reads the environment and the TOML file: `file`, or the one that `GATEWAY_CONFIG` names.
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

    /// `self` with the reloadable settings of `later`, and every setting that differs.
    ///
    /// # Errors
    /// When the new values conflict with those that need a restart.
    pub(crate) fn reloaded(&self, later: &Self) -> Result<(Self, Vec<&'static Setting>), Problems> {
        // An editor may have truncated the file: every guard in it would be disabled.
        if self.has_file && !later.has_file {
            return Err(Problems::one("the configuration file no longer holds any setting"));
        }
        let differences = self.given.differences(&later.given);
        let mut given = later.given.clone();
        for setting in differences.iter().filter(|setting| !setting.live) {
            given.take_over(setting, &self.given);
        }
        let reloaded = Self::of(Reader::from_given(given))?;
        Ok((Self { has_file: later.has_file, ..reloaded }, differences))
    }

    /// Table of every setting with its effective value, secrets masked, for a terminal; and the problems.
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

    /// Tables of every setting in Markdown, without values, for `docs/reference/settings.md`.
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

/// Reads every setting. An invalid one becomes a problem and a placeholder: callers use the result only if
/// there is no problem.
fn assemble(reader: &mut Reader) -> Config {
    let listen = reader.require("GATEWAY_LISTEN", socket_address);
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    let ops_listen = reader.read("GATEWAY_OPS_LISTEN", or_off(socket_address));
    let ops_listen = ops_listen.flatten();
    let mut own = vec![("GATEWAY_LISTEN", listen)];
    own.extend(ops_listen.map(|address| ("GATEWAY_OPS_LISTEN", address)));
    if ops_listen == Some(listen) && listen.port() != 0 {
        reader.problem("GATEWAY_OPS_LISTEN", "is the same address as GATEWAY_LISTEN");
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
        timeout_head: timeout(reader, "GATEWAY_TIMEOUT_HEAD"),
        timeout_idle: timeout(reader, "GATEWAY_TIMEOUT_IDLE"),
        timeout_send: timeout(reader, "GATEWAY_TIMEOUT_SEND"),
        drain_delay: delay(reader, "GATEWAY_DRAIN_DELAY"),
        drain_timeout: delay(reader, "GATEWAY_DRAIN_TIMEOUT"),
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

/// At most 1024: more threads than any machine has cores are a typing mistake.
fn workers(text: &str) -> Result<usize, String> {
    let workers = at_least_one(text)?;
    if workers <= 1024 { Ok(workers) } else { Err("expected at most 1024".to_owned()) }
}

/// At least 32 MiB: the gateway cannot serve with less.
fn memory_limit(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    if bytes >= 32 << 20 { Ok(bytes) } else { Err("expected at least 32MiB".to_owned()) }
}

/// At least 1 s: shorter intervals would load upstream.
fn canary_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval >= Duration::from_secs(1) {
        Ok(interval)
    } else {
        Err("expected at least 1s".to_owned())
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected a log filter: {error}")),
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected address:port, such as 0.0.0.0:8080 or [::]:8080".to_owned())
}
