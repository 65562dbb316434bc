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

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::authz::client_info::Origin;

    const GUID: &str = "11111111-2222-3333-4444-555555555555";

    fn read(more: &[(&str, &str)]) -> Result<Config, String> {
        let least = [("TENANT_ID", GUID), ("CLIENT_ID", GUID)];
        let pairs = least.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Config::read(pairs, None).map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_defaults_serve_with_two_ids() {
        let config = read(&[]).unwrap();
        assert_eq!(config.external_access, ExternalAccessMode::Off);
        assert_eq!(
            config.entra.metadata_v2.as_str(),
            format!(
                "https://login.microsoftonline.com/{GUID}/v2.0/.well-known/openid-configuration"
            )
        );
        assert_eq!(config.resource.scopes, [format!("api://{GUID}/.default")]);
        let StoreConfig::Files { directory, state } = config.sessions.store else { panic!() };
        assert_eq!(directory, Path::new("/app/flask_session"));
        assert_eq!(state, Path::new("/app/flask_session.gateway"));
    }

    #[test]
    fn all_problems_are_told_together() {
        let problems = Config::read(
            [("GATEWAY_LISTEM", "1"), ("GATEWAY_DRAIN_DELAY", "soon"), ("SESSION_KEY_PREFIX", "")]
                .map(|(n, v)| (n.to_owned(), v.to_owned())),
            None,
        )
        .unwrap_err()
        .to_string();
        for expected in [
            "TENANT_ID: is required",
            "CLIENT_ID: is required",
            "GATEWAY_LISTEM: there is no such setting; did you mean GATEWAY_LISTEN?",
            "GATEWAY_DRAIN_DELAY: \"soon\" is not a duration",
            "SESSION_KEY_PREFIX: is empty",
        ] {
            assert!(problems.contains(expected), "{expected} in {problems}");
        }
    }

    #[test]
    fn each_wrong_value_is_refused() {
        for (name, value) in [
            ("TENANT_ID", "contoso.com"),
            ("AZURE_ENVIRONMENT", "mars"),
            ("AZURE_ENVIRONMENT", "custom"),
            ("GATEWAY_EXTERNAL_ACCESS", "on"),
            ("GATEWAY_EXTERNAL_ACCESS", "yes please"),
            ("GATEWAY_EXTERNAL_ACCESS", "managed"),
            ("DATABASE_URL", "sqlite:relative.db"),
            ("DATABASE_URL", "mysql://u:p@h/d"),
            ("GATEWAY_ACTIVITY_RETENTION", "23h"),
            ("GATEWAY_ACTIVITY_MAX_SIZE", "255KiB"),
            ("GATEWAY_ACTIVITY_REQUIRED", "some"),
            ("GATEWAY_MIGRATE", "maybe"),
            ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:8080"),
            ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:5000/path"),
            ("GATEWAY_UPSTREAM_URL", "ftp://127.0.0.1"),
            ("GATEWAY_TRUSTED_PROXIES", "0.0.0.0/0"),
            ("GATEWAY_TRUSTED_PROXIES", "::/0"),
            ("GATEWAY_TRUSTED_PROXIES", "anyone"),
            ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,everyone"),
            ("GATEWAY_UNKNOWN_SETTINGS", "maybe"),
            (
                "REDIS_URL",
                "cache.redis.cache.windows.net:6380,password=x=,ssl=True,abortConnect=False",
            ),
            ("GATEWAY_PUBLIC_URLS", "https://chat.example/path"),
            ("GATEWAY_SCOPES", "a\"b"),
            ("GATEWAY_SCOPES", " , "),
            ("GATEWAY_SESSIONS_PER_SUBJECT", "0"),
            ("GATEWAY_SESSION_MAX_AGE", "32d"),
            ("GATEWAY_TRUSTED_PROXIES", "0.0.0.0/1,128.0.0.0/1"),
            ("GATEWAY_ALLOWED_CLIENTS", "\u{fffd}"),
            ("GATEWAY_EXPOSURE_ACCEPTED_BY", "\u{fffd}"),
            ("GATEWAY_OPS_LISTEN", "0.0.0.0:8080"),
            ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:9464"),
            ("GATEWAY_TIMEOUT_RESPONSE", "0s"),
            ("GATEWAY_WORKERS", "99999"),
            ("GATEWAY_MEMORY_LIMIT", "256M"),
            ("GATEWAY_MEMORY_LIMIT", "31MiB"),
            ("GATEWAY_LOGIN_LIMIT", "600"),
            ("GATEWAY_LOGIN_LIMIT", "0/1m"),
            ("GATEWAY_LOGIN_FAILURE_LIMIT", "60/0s"),
            ("GATEWAY_SESSION_BINDING", "sometimes"),
            ("GATEWAY_FRONT_DOOR_ID", "contoso.azurefd.net"),
            ("RUST_LOG", "[[["),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
            ("APPLICATIONINSIGHTS_CONNECTION_STRING", "hunter2"),
            ("SESSION_KEY_PREFIX", "gateway:session:"),
            ("SESSION_KEY_PREFIX", "gate"),
            ("GATEWAY_STATE_DIR", "/app/other/../flask_session/x"),
            ("GATEWAY_STATE_DIR", "/app"),
            ("SESSION_TYPE", "memcached"),
            ("SESSION_TYPE", "redis"),
            ("SESSION_USE_SIGNER", "true"),
            ("SESSION_COOKIE_NAME", "a b"),
            ("REDIS_URL", "http://redis"),
            ("REDIS_URL", "redis://redis:port/0"),
            ("REDIS_PASSWORD_FILE", "/does/not/exist"),
            ("GATEWAY_STATE_DIR", "/app/flask_session/inside"),
            ("GATEWAY_FRONT_DOOR_ID_FILE", "/dev/null"),
        ] {
            let problems = read(&[(name, value)]).expect_err(&format!("{name}={value}"));
            assert!(problems.contains('_'), "{problems}");
        }
    }

    /// SimpleChat since 0.261.010 has port 10000 for Azure Managed Redis.
    #[test]
    fn a_bare_redis_host_has_the_port_of_its_azure_service_over_tls() {
        for (given, expected) in [
            ("cache.redis.cache.windows.net", "cache.redis.cache.windows.net:6380"),
            ("cache.redis.cache.usgovcloudapi.net", "cache.redis.cache.usgovcloudapi.net:6380"),
            ("c.westeurope.redis.azure.net", "c.westeurope.redis.azure.net:10000"),
            ("C.WestEurope.Redis.Azure.NET", "C.WestEurope.Redis.Azure.NET:10000"),
            (
                "c.eastus.redisenterprise.cache.azure.net",
                "c.eastus.redisenterprise.cache.azure.net:10000",
            ),
            ("c.westeurope.redis.azure.net:6380", "c.westeurope.redis.azure.net:6380"),
            ("redis.azure.net", "redis.azure.net:6380"),
            ("c.redis.azure.net.example", "c.redis.azure.net.example:6380"),
            ("notredis.azure.net", "notredis.azure.net:6380"),
            // As it comes out of a file or a portal.
            (" c.westeurope.redis.azure.net \r\n", "c.westeurope.redis.azure.net:10000"),
        ] {
            let config = read(&[("REDIS_URL", given)]).unwrap();
            let StoreConfig::Redis { url, .. } = config.sessions.store else { panic!() };
            assert_eq!(url.expose_secret(), format!("rediss://{expected}/0"), "{given:?}");
        }
    }

    /// Azure's portal hands out connection strings of StackExchange.Redis.
    #[test]
    fn a_connection_string_of_redis_is_refused_with_what_to_set_instead() {
        let given = "c.redis.cache.windows.net:6380,password=hunter2=,ssl=True,abortConnect=False";
        let problems = read(&[("REDIS_URL", given)]).unwrap_err();
        assert!(problems.contains("the host name alone"), "{problems}");
        assert!(problems.contains("in REDIS_PASSWORD") && !problems.contains("hunter2"));
    }

    /// Whoever writes `on` in capitals writes `Off` as well.
    #[test]
    fn words_are_read_in_any_case_and_with_blanks_around_them() {
        use crate::authz::{client_info::TrustedProxies, policy::RoleCeiling};
        for spelling in ["Off", " OFF ", "off\n"] {
            let off = read(&[
                ("GATEWAY_OPS_LISTEN", spelling),
                ("GATEWAY_CANARY_INTERVAL", spelling),
                ("GATEWAY_LOGIN_LIMIT", spelling),
                ("GATEWAY_LOGIN_FAILURE_LIMIT", spelling),
                ("GATEWAY_BIND_SUBJECT", spelling),
                ("GATEWAY_MIGRATE", spelling),
            ])
            .unwrap();
            assert!(off.ops_listen.is_none() && off.canary_interval.is_none());
            assert!(off.sessions.login_limit.is_none() && off.sessions.failure_limit.is_none());
            assert!(!off.policy.bind_subject);
        }
        for (spelling, is_expected) in [
            (" Private,", TrustedProxies::Private),
            ("NONE", TrustedProxies::None),
            (
                "Everyone",
                TrustedProxies::Networks(vec![
                    "0.0.0.0/0".parse().unwrap(),
                    "::/0".parse().unwrap(),
                ]),
            ),
        ] {
            let config = read(&[("GATEWAY_TRUSTED_PROXIES", spelling)]).unwrap();
            assert_eq!(config.edge.trusted, is_expected, "{spelling:?}");
        }
        let config = read(&[
            ("GATEWAY_LOGIN_SCOPES", "None "),
            ("GATEWAY_SESSION_ROLES", " *,"),
            ("GATEWAY_UNKNOWN_SETTINGS", " Warn"),
            ("GATEWAY_LISTEM", "1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/Protobuf"),
            ("OTEL_TRACES_EXPORTER", "OTLP"),
            ("OTEL_LOGS_EXPORTER", "None"),
        ])
        .unwrap();
        assert!(config.policy.login_scopes.is_empty());
        assert!(matches!(config.policy.session_roles, RoleCeiling::All));
        let otlp = config.telemetry.otlp.unwrap();
        assert!(otlp.traces.is_some() && otlp.logs.is_none());
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    }

    /// PowerShell writes UTF-8 with a byte order mark.
    #[test]
    fn a_byte_order_mark_in_a_file_is_no_part_of_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let text = path.display().to_string();
        let password = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let config = read(&[("REDIS_URL", "redis://h/0"), ("REDIS_PASSWORD_FILE", &text)])?;
            let StoreConfig::Redis { auth: RedisAuth::Key(Some(key)), .. } = config.sessions.store
            else {
                panic!()
            };
            Ok::<_, String>(key.expose_secret().to_owned())
        };
        assert_eq!(password("\u{feff}hunter2\r\n".as_bytes()).unwrap(), "hunter2");
        assert_eq!(password("hunter2 \u{feff}".as_bytes()).unwrap(), "hunter2 \u{feff}");
        assert!(password("\u{feff}\n".as_bytes()).unwrap_err().contains("is empty"));
        let utf16: Vec<u8> = "\u{feff}hunter2".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let problem = password(&utf16).unwrap_err();
        assert!(problem.contains("UTF-16") && problem.contains("utf8"), "{problem}");
        assert!(password(b"hunter\xff").unwrap_err().contains("is not UTF-8"));

        std::fs::write(&path, format!("\u{feff}TENANT_ID = \"{GUID}\"\nCLIENT_ID = \"{GUID}\"\n"))
            .unwrap();
        assert!(Config::read(Vec::new(), Some(&path)).is_ok());
    }

    #[test]
    fn a_platforms_own_agent_keeps_nobody_from_serving() {
        let injected = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://agent:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ];
        let config = read(&injected).unwrap();
        assert!(config.telemetry.otlp.is_none());
        assert!(config.warnings[0].starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: "));
        assert!(read(&injected[..1]).unwrap().telemetry.otlp.is_some());
        let strange = [injected[0], ("OTEL_TRACES_EXPORTER", "console")];
        let config = read(&strange).unwrap();
        assert!(config.warnings[0].starts_with("OTEL_TRACES_EXPORTER: "));
        let otlp = config.telemetry.otlp.unwrap();
        assert!(otlp.traces.is_none() && otlp.logs.is_some());
        assert!(read(&[("OTEL_TRACES_EXPORTER", "console")]).unwrap().warnings.is_empty());
    }

    #[test]
    fn platform_names_join_a_list_that_was_begun() {
        let platform = [
            ("WEBSITE_HOSTNAME", "chat.azurewebsites.net"),
            ("CONTAINER_APP_NAME", "chat"),
            ("CONTAINER_APP_ENV_DNS_SUFFIX", "blue.region.azurecontainerapps.io"),
        ];
        assert!(read(&platform).unwrap().edge.public_urls.is_empty());
        let mut begun = vec![("GATEWAY_PUBLIC_URLS", "https://chat.example")];
        begun.extend(platform);
        let urls: Vec<_> =
            read(&begun).unwrap().edge.public_urls.iter().map(Origin::to_string).collect();
        assert_eq!(
            urls,
            [
                "https://chat.example",
                "https://chat.azurewebsites.net",
                "https://chat.blue.region.azurecontainerapps.io"
            ]
        );
    }

    #[test]
    fn a_removed_setting_is_refused_with_what_to_do_instead() {
        for (name, value, instead) in [
            ("GATEWAY_FORWARDED_HEADER", "x-forwarded", "only X-Forwarded-For, -Proto and -Host"),
            ("GATEWAY_FORWARDED_HEADER", "forwarded", "only X-Forwarded-For, -Proto and -Host"),
            ("GATEWAY_TRUST_EVERYONE", "yes", "set GATEWAY_TRUSTED_PROXIES=everyone"),
            ("GATEWAY_TRUST_EVERYONE", "no", "unset it"),
        ] {
            for more in [&[][..], &[("GATEWAY_UNKNOWN_SETTINGS", "warn")]] {
                let problems = read(&[&[(name, value)], more].concat()).unwrap_err();
                assert!(problems.contains(&format!("{name}: was removed: ")), "{problems}");
                assert!(problems.contains(instead), "{problems}");
                assert!(problems.starts_with("1 problem "), "{problems}");
            }
            assert!(read(&[(name, "")]).is_ok(), "an empty value counts as unset");
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("gateway.toml");
            let ids = format!("TENANT_ID = \"{GUID}\"\nCLIENT_ID = \"{GUID}\"\n");
            std::fs::write(&path, format!("{ids}{name} = \"{value}\"\n")).unwrap();
            let problems = Config::read(Vec::new(), Some(&path)).unwrap_err().to_string();
            assert!(problems.contains(instead), "{problems}");
        }
    }

    #[test]
    fn every_address_is_trusted_by_the_word_everyone_only() {
        for networks in ["0.0.0.0/0", "::/0", "10.0.0.0/8,::/0", "0.0.0.0/1,128.0.0.0/1"] {
            let problems = read(&[("GATEWAY_TRUSTED_PROXIES", networks)]).unwrap_err();
            assert!(problems.contains("GATEWAY_TRUSTED_PROXIES=everyone"), "{problems}");
        }
        assert!(read(&[("GATEWAY_TRUSTED_PROXIES", "everyone")]).is_ok());
    }

    #[test]
    fn secrets_are_masked_in_the_table() {
        let pairs = [("REDIS_URL", "redis://:hunter2@cache:6379")];
        let table = Config::table(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())), None);
        let (table, checked) = table.unwrap();
        assert!(table.contains("REDIS_URL=********"));
        assert!(!table.contains("hunter2"));
        assert!(checked.unwrap_err().to_string().contains("TENANT_ID: is required"));
        for (name, value) in [
            ("GATEWAY_UPSTREAM_URL", "http://u:hunter2@h:5"),
            ("GATEWAY_PUBLIC_URLS", "https://u:hunter2@chat.example"),
            ("GATEWAY_PUBLIC_URLS", "https://chat.example,https://u:hunter2@chat.example"),
            ("GATEWAY_ALLOWED_ORIGINS", "https://u:hunter2@chat.example"),
        ] {
            let told = read(&[(name, value)]).unwrap_err();
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
