//! The settings, read once. Nothing else reads the environment.

mod reader;
mod settings;
mod table;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use uuid::Uuid;

pub use self::reader::Problems;
use self::reader::{Reader, duration, flag, read_file, word};
use crate::access::{
    origin::{Authority, ForwardedFamily, Origin, Surroundings, TrustedProxies},
    policy::{Policy, RoleCeiling},
    token::Expected,
};

/// Everything an operator decided.
#[derive(Debug)]
pub struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) ops_listen: Option<SocketAddr>,
    pub(crate) workers: usize,
    pub(crate) external_access: ExternalAccess,
    pub(crate) entra: EntraConfig,
    pub(crate) surroundings: Surroundings,
    pub(crate) policy: Policy,
    pub(crate) resource: ResourceConfig,
    pub(crate) sessions: SessionsConfig,
    pub(crate) cookie: CookieConfig,
    pub(crate) upstream: UpstreamConfig,
    pub(crate) timeout_head: Duration,
    pub(crate) timeout_idle: Duration,
    pub(crate) drain_delay: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) log_filter: String,
    pub(crate) warnings: Vec<String>,
}

/// Whether an administrator opted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExternalAccess {
    /// No: metadata and login are 404.
    Off,
    /// Yes.
    On {
        /// Who accepted that tenant and app ids become public.
        accepted_by: String,
    },
}

/// Where keys and issuers come from.
#[derive(Debug, Clone)]
pub(crate) struct EntraConfig {
    pub(crate) expected: Expected,
    /// The tenant's v2 OpenID Connect metadata.
    pub(crate) metadata_v2: Url,
    /// The tenant's v1 OpenID Connect metadata.
    pub(crate) metadata_v1: Url,
    /// What counts as the v1 issuer where the v1 metadata does not exist; `None`: it must exist.
    pub(crate) issuer_v1_fallback: Option<String>,
    /// `authorization_servers` of our own metadata.
    pub(crate) authority: String,
}

/// What our metadata and challenges tell clients.
#[derive(Debug, Clone)]
pub(crate) struct ResourceConfig {
    pub(crate) scopes: Vec<String>,
    /// Scopes that would cure a login, fully qualified.
    pub(crate) login_scopes: Vec<String>,
    pub(crate) allowed_origins: Vec<String>,
}

/// Where upstream keeps its sessions, and in which form.
#[derive(Debug, Clone)]
pub(crate) struct SessionsConfig {
    pub(crate) store: StoreConfig,
    pub(crate) key_prefix: String,
    pub(crate) format: SerializationFormat,
    pub(crate) per_subject: usize,
}

/// Which store.
#[derive(Debug, Clone)]
pub(crate) enum StoreConfig {
    /// Redis.
    Redis { url: SecretString, password: Option<SecretString>, ca_file: Option<PathBuf> },
    /// cachelib's files.
    Files {
        /// Upstream's own.
        directory: PathBuf,
        /// Ours.
        state: PathBuf,
    },
}

/// `SESSION_SERIALIZATION_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SerializationFormat {
    /// MessagePack.
    Msgpack,
    /// JSON.
    Json,
}

/// The cookie that login sets, and that upstream reads.
#[derive(Debug, Clone)]
pub(crate) struct CookieConfig {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: &'static str,
    /// `None`: when the caller came over https.
    pub(crate) secure: Option<bool>,
    /// Set when upstream signs ids (itsdangerous).
    pub(crate) signing_key: Option<SecretString>,
}

/// How upstream is reached.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamConfig {
    pub(crate) target: UpstreamTarget,
    /// `Host` sent; `None`: the caller's.
    pub(crate) host: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

/// Where upstream listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpstreamTarget {
    /// Host and port, plain or over TLS.
    Tcp { host: String, port: u16, tls: bool },
    /// A Unix socket.
    Unix(PathBuf),
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
        let mut reader = open(environment, file)?;
        let config = assemble(&mut reader);
        let warnings = reader.finish()?;
        Ok(Self { warnings, ..config })
    }

    /// Every setting with its effective value, secrets masked; for a terminal.
    ///
    /// # Errors
    /// When the TOML file cannot be read.
    pub fn table(
        environment: impl IntoIterator<Item = (String, String)>,
        file: Option<&Path>,
    ) -> Result<String, Problems> {
        Ok(table::plain(&open(environment, file)?))
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
    let policy = policy(reader);
    let entra = entra(reader);
    Config {
        listen,
        ops_listen: reader
            .read("GATEWAY_OPS_LISTEN", |text| match text {
                "off" => Ok(None),
                address => socket_address(address).map(Some),
            })
            .flatten(),
        workers: match reader.given("GATEWAY_WORKERS") {
            Some(_) => reader.read("GATEWAY_WORKERS", at_least_one).unwrap_or(1),
            None => thread::available_parallelism().map_or(1, usize::from),
        },
        external_access: external_access(reader),
        surroundings: surroundings(reader),
        resource: resource(reader, &entra, &policy),
        sessions: sessions(reader),
        cookie: cookie(reader),
        upstream: upstream(reader, listen),
        timeout_head: span(reader, "GATEWAY_TIMEOUT_HEAD"),
        timeout_idle: span(reader, "GATEWAY_TIMEOUT_IDLE"),
        drain_delay: span(reader, "GATEWAY_DRAIN_DELAY"),
        drain_timeout: span(reader, "GATEWAY_DRAIN_TIMEOUT"),
        log_filter: reader.text("RUST_LOG").unwrap_or_default(),
        warnings: Vec::new(),
        policy,
        entra,
    }
}

fn span(reader: &mut Reader, name: &str) -> Duration {
    reader.require(name, duration).unwrap_or_default()
}

fn external_access(reader: &mut Reader) -> ExternalAccess {
    let on = reader.require("GATEWAY_EXTERNAL_ACCESS", word(&[("off", false), ("on", true)]));
    if on != Some(true) {
        return ExternalAccess::Off;
    }
    let accepted_by = reader.text("GATEWAY_EXPOSURE_ACCEPTED_BY").unwrap_or_default();
    if accepted_by.is_empty() {
        reader.problem(
            "GATEWAY_EXPOSURE_ACCEPTED_BY",
            "is required with GATEWAY_EXTERNAL_ACCESS=on: metadata makes tenant and app ids public, and somebody must have accepted that",
        );
    }
    ExternalAccess::On { accepted_by }
}

fn entra(reader: &mut Reader) -> EntraConfig {
    let guid = |text: &str| Uuid::try_parse(text).map_err(|_| "is not a GUID".to_owned());
    let tenant = reader.require("TENANT_ID", guid).unwrap_or_default();
    let client_id = reader.require("CLIENT_ID", guid).unwrap_or_default();
    let audiences = reader
        .list("GATEWAY_AUDIENCES", |text| Ok(text.replace("$CLIENT_ID", &client_id.to_string())));
    let expected = Expected { tenant, client_id, audiences };

    let clouds = [
        ("public", Some("https://login.microsoftonline.com")),
        ("usgovernment", Some("https://login.microsoftonline.us")),
        ("china", Some("https://login.partner.microsoftonline.cn")),
        ("custom", None),
    ];
    let cloud = reader.require("AZURE_ENVIRONMENT", word(&clouds)).flatten();
    let document = |authority: &str| {
        Url::parse(&format!("{authority}/.well-known/openid-configuration"))
            .map_err(|_| "is not a URL".to_owned())
    };
    if let Some(host) = cloud {
        let authority = format!("{host}/{tenant}/v2.0");
        let of = |authority: &str| document(authority).unwrap_or_else(|_| placeholder_url());
        return EntraConfig {
            metadata_v2: of(&authority),
            metadata_v1: of(&format!("{host}/{tenant}")),
            issuer_v1_fallback: None,
            authority,
            expected,
        };
    }

    let is_custom = reader
        .text("AZURE_ENVIRONMENT")
        .is_some_and(|environment| environment.eq_ignore_ascii_case("custom"));
    if is_custom {
        for name in ["CUSTOM_IDENTITY_URL_VALUE", "CUSTOM_OIDC_METADATA_URL_VALUE"] {
            if reader.given(name).is_none() {
                reader.problem(name, "is required with AZURE_ENVIRONMENT=custom");
            }
        }
    }
    let metadata_v2 = reader.read("CUSTOM_OIDC_METADATA_URL_VALUE", identity_url);
    let metadata_v2 = metadata_v2.unwrap_or_else(placeholder_url);
    let identity = reader.read("CUSTOM_IDENTITY_URL_VALUE", identity_url);
    let identity =
        identity.map_or_else(String::new, |url| url.as_str().trim_end_matches('/').to_owned());
    let mut metadata_v1 = metadata_v2.clone();
    metadata_v1.set_path(&metadata_v2.path().replace("/v2.0/", "/"));
    EntraConfig {
        issuer_v1_fallback: Some(format!("https://sts.windows.net/{tenant}/")),
        authority: format!("{identity}/{tenant}/v2.0"),
        metadata_v2,
        metadata_v1,
        expected,
    }
}

fn placeholder_url() -> Url {
    #[expect(clippy::expect_used, reason = "a constant")]
    Url::parse("https://invalid.invalid/").expect("a URL")
}

/// `https://`, or `http://` on loopback.
fn identity_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "is not a URL".to_owned())?;
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        "http" => Err("is http://, which counts on loopback only".to_owned()),
        _ => Err("is neither https:// nor http://".to_owned()),
    }
}

fn policy(reader: &mut Reader) -> Policy {
    let login_scopes = match reader.text("GATEWAY_LOGIN_SCOPES").as_deref() {
        Some("none") => Vec::new(),
        _ => reader.list("GATEWAY_LOGIN_SCOPES", scope),
    };
    let session_roles = match reader.text("GATEWAY_SESSION_ROLES").as_deref() {
        Some("*") => RoleCeiling::All,
        _ => RoleCeiling::Only(reader.list("GATEWAY_SESSION_ROLES", |role| Ok(role.to_owned()))),
    };
    let session_max_age = span(reader, "GATEWAY_SESSION_MAX_AGE");
    if session_max_age.is_zero() || session_max_age > Duration::from_hours(744) {
        reader.problem("GATEWAY_SESSION_MAX_AGE", "must lie between 1s and 31d");
    }
    Policy {
        allowed_clients: reader.list("GATEWAY_ALLOWED_CLIENTS", |text| {
            Uuid::try_parse(text).map_err(|_| "is not a GUID".to_owned())
        }),
        login_scopes,
        login_app_only: reader.read("GATEWAY_LOGIN_APP_ONLY", flag).unwrap_or_default(),
        session_roles,
        session_max_age,
    }
}

/// `scope-token` of RFC 6749 §3.3.
fn scope(text: &str) -> Result<String, String> {
    let is_token = text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if is_token { Ok(text.to_owned()) } else { Err("is not a scope".to_owned()) }
}

fn resource(reader: &mut Reader, entra: &EntraConfig, policy: &Policy) -> ResourceConfig {
    let client_id = entra.expected.client_id.to_string();
    ResourceConfig {
        scopes: reader
            .list("GATEWAY_SCOPES", |text| scope(&text.replace("$CLIENT_ID", &client_id))),
        login_scopes: policy
            .login_scopes
            .iter()
            .map(|scope| format!("api://{client_id}/{scope}"))
            .collect(),
        allowed_origins: reader
            .list("GATEWAY_ALLOWED_ORIGINS", origin)
            .iter()
            .map(Origin::to_string)
            .collect(),
    }
}

fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text).ok_or_else(|| "is not an origin like https://chat.example".to_owned())
}

fn surroundings(reader: &mut Reader) -> Surroundings {
    let mut public_urls = reader.list("GATEWAY_PUBLIC_URLS", origin);
    if !public_urls.is_empty() {
        let app_service = reader.given("WEBSITE_HOSTNAME");
        let container_app = reader
            .given("CONTAINER_APP_NAME")
            .zip(reader.given("CONTAINER_APP_ENV_DNS_SUFFIX"))
            .map(|(name, suffix)| format!("{name}.{suffix}"));
        for host in [app_service, container_app].into_iter().flatten() {
            match Origin::parse(&format!("https://{host}")) {
                Some(origin) if public_urls.contains(&origin) => {}
                Some(origin) => public_urls.push(origin),
                None => reader.warn("GATEWAY_PUBLIC_URLS", "the platform's host name is malformed"),
            }
        }
    }

    let trust_everyone = reader.read("GATEWAY_TRUST_EVERYONE", flag).unwrap_or_default();
    let trusted = match reader.text("GATEWAY_TRUSTED_PROXIES").as_deref() {
        Some("private") => TrustedProxies::Private,
        Some("none") => TrustedProxies::None,
        _ => TrustedProxies::Networks(reader.list("GATEWAY_TRUSTED_PROXIES", |text| {
            let network: IpNet = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| "is neither private, none nor a CIDR".to_owned())?;
            if network.prefix_len() == 0 && !trust_everyone {
                return Err("trusts everyone, which needs GATEWAY_TRUST_EVERYONE=yes".to_owned());
            }
            Ok(network)
        })),
    };
    let families =
        [("x-forwarded", ForwardedFamily::XForwarded), ("forwarded", ForwardedFamily::Forwarded)];
    let family = reader.read("GATEWAY_FORWARDED_HEADER", word(&families));
    Surroundings { public_urls, trusted, family: family.unwrap_or(ForwardedFamily::XForwarded) }
}

fn sessions(reader: &mut Reader) -> SessionsConfig {
    let redis_is_named = reader.given("REDIS_URL").is_some();
    let use_redis = match reader.given("SESSION_TYPE") {
        None => redis_is_named,
        Some(_) => reader
            .read("SESSION_TYPE", word(&[("redis", true), ("filesystem", false)]))
            .unwrap_or_default(),
    };
    let store = if use_redis {
        let url = reader.require("REDIS_URL", redis_url).unwrap_or_default();
        StoreConfig::Redis {
            url,
            password: reader.given("REDIS_PASSWORD").map(SecretString::from),
            ca_file: reader.given("REDIS_CA_FILE").map(PathBuf::from),
        }
    } else {
        files(reader)
    };
    if reader.is_set_empty("SESSION_KEY_PREFIX") {
        reader.problem(
            "SESSION_KEY_PREFIX",
            "is empty: then a cookie could name any key in the store; unset it for session:",
        );
    }
    let formats = [("msgpack", SerializationFormat::Msgpack), ("json", SerializationFormat::Json)];
    let format = reader.read("SESSION_SERIALIZATION_FORMAT", word(&formats));
    SessionsConfig {
        store,
        key_prefix: reader.text("SESSION_KEY_PREFIX").unwrap_or_default(),
        format: format.unwrap_or(SerializationFormat::Msgpack),
        per_subject: reader.read("GATEWAY_SESSIONS_PER_SUBJECT", at_least_one).unwrap_or(1),
    }
}

fn files(reader: &mut Reader) -> StoreConfig {
    let directory = PathBuf::from(reader.text("SESSION_FILE_DIR").unwrap_or_default());
    let state = if let Some(state) = reader.given("GATEWAY_STATE_DIR") {
        PathBuf::from(state)
    } else {
        let mut beside = directory.as_os_str().to_owned();
        beside.push(".gateway");
        PathBuf::from(beside)
    };
    for (name, path) in [("SESSION_FILE_DIR", &directory), ("GATEWAY_STATE_DIR", &state)] {
        if !path.is_absolute() {
            reader.problem(name, "is not an absolute path");
        }
    }
    if state.starts_with(&directory) {
        reader.problem(
            "GATEWAY_STATE_DIR",
            "lies inside SESSION_FILE_DIR, where upstream deletes files",
        );
    }
    StoreConfig::Files { directory, state }
}

/// SimpleChat stores a bare host name: Azure Cache for Redis over TLS.
fn redis_url(text: &str) -> Result<SecretString, String> {
    let url = match (text.contains("://"), text.contains(':')) {
        (true, _) => text.to_owned(),
        (false, true) => format!("rediss://{text}/0"),
        (false, false) => format!("rediss://{text}:6380/0"),
    };
    let schemes = ["redis", "rediss", "valkey", "valkeys"];
    let scheme = url.split("://").next().unwrap_or_default();
    let base = scheme.trim_end_matches("-cluster").trim_end_matches("-sentinel");
    if !schemes.contains(&base) || Url::parse(&url).is_err() {
        return Err("is not a Redis URL".to_owned());
    }
    Ok(SecretString::from(url))
}

fn cookie(reader: &mut Reader) -> CookieConfig {
    let name = reader.read("SESSION_COOKIE_NAME", |text| {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if text.bytes().all(is_token) {
            Ok(text.to_owned())
        } else {
            Err("is not a cookie name".to_owned())
        }
    });
    let attribute = |text: &str| {
        let is_plain = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b';' && b != b',');
        if is_plain { Ok(text.to_owned()) } else { Err("is not a cookie attribute".to_owned()) }
    };
    let same_site = [("Lax", "Lax"), ("Strict", "Strict"), ("None", "None")];
    let secure = [("auto", None), ("true", Some(true)), ("false", Some(false))];
    let use_signer = reader.read("SESSION_USE_SIGNER", flag).unwrap_or_default();
    let secret_key = reader.given("SECRET_KEY").map(SecretString::from);
    let signing_key = match (use_signer, secret_key) {
        (true, None) => {
            reader.problem("SECRET_KEY", "is required with SESSION_USE_SIGNER=true");
            None
        }
        (true, key) => key,
        (false, Some(key)) => {
            if !key.expose_secret().is_empty() {
                reader.warn(
                    "SECRET_KEY",
                    "is not used without SESSION_USE_SIGNER; remove it here (SimpleChat's Bicep puts the client secret there)",
                );
            }
            None
        }
        (false, None) => None,
    };
    CookieConfig {
        name: name.unwrap_or_default(),
        path: reader.read("SESSION_COOKIE_PATH", attribute).unwrap_or_default(),
        domain: reader.read("SESSION_COOKIE_DOMAIN", attribute),
        same_site: reader.read("SESSION_COOKIE_SAMESITE", word(&same_site)).unwrap_or("Lax"),
        secure: reader.read("SESSION_COOKIE_SECURE", word(&secure)).flatten(),
        signing_key,
    }
}

fn upstream(reader: &mut Reader, listen: SocketAddr) -> UpstreamConfig {
    let target = reader.require("GATEWAY_UPSTREAM_URL", upstream_target);
    let target = target.unwrap_or_else(|| UpstreamTarget::Unix(PathBuf::new()));
    if let UpstreamTarget::Tcp { host, port, .. } = &target {
        let is_local = host == "localhost"
            || host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified() || ip == listen.ip());
        let hears_local = listen.ip().is_unspecified() || listen.ip().is_loopback();
        let is_same = host.parse::<IpAddr>() == Ok(listen.ip());
        if *port == listen.port() && (is_same || is_local && hears_local) {
            reader.problem(
                "GATEWAY_UPSTREAM_URL",
                "names the gateway's own listener (GATEWAY_LISTEN)",
            );
        }
    }
    let host = reader.read("GATEWAY_UPSTREAM_HOST", |text| {
        Authority::parse(text).map(|a| a.to_string()).ok_or_else(|| "is not host[:port]".to_owned())
    });
    UpstreamConfig {
        target,
        host,
        connect_timeout: span(reader, "GATEWAY_TIMEOUT_CONNECT"),
        response_timeout: span(reader, "GATEWAY_TIMEOUT_RESPONSE"),
    }
}

fn upstream_target(text: &str) -> Result<UpstreamTarget, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        return if path.is_absolute() {
            Ok(UpstreamTarget::Unix(path))
        } else {
            Err("names no absolute path".to_owned())
        };
    }
    let url = Url::parse(text).map_err(|_| "is not a URL".to_owned())?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err("is neither http://, https:// nor unix:".to_owned()),
    };
    let is_bare = matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match (url.host(), url.port_or_known_default()) {
        (Some(host), Some(port)) if is_bare => {
            let host = match host {
                url::Host::Domain(name) => name.to_owned(),
                url::Host::Ipv4(address) => address.to_string(),
                url::Host::Ipv6(address) => address.to_string(),
            };
            Ok(UpstreamTarget::Tcp { host, port, tls })
        }
        _ => Err("must be scheme, host and port alone".to_owned()),
    }
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not address:port, like 0.0.0.0:8080 or [::]:8080".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "is not a number of 1 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: &str = "11111111-2222-3333-4444-555555555555";

    fn read(more: &[(&str, &str)]) -> Result<Config, String> {
        let least = [("TENANT_ID", GUID), ("CLIENT_ID", GUID)];
        let pairs = least.iter().chain(more).map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Config::read(pairs, None).map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_defaults_serve_with_two_ids() {
        let config = read(&[]).unwrap();
        assert_eq!(config.external_access, ExternalAccess::Off);
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
            ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:8080"),
            ("GATEWAY_UPSTREAM_URL", "http://127.0.0.1:5000/path"),
            ("GATEWAY_UPSTREAM_URL", "ftp://127.0.0.1"),
            ("GATEWAY_TRUSTED_PROXIES", "0.0.0.0/0"),
            ("GATEWAY_TRUSTED_PROXIES", "everyone"),
            ("GATEWAY_PUBLIC_URLS", "https://chat.example/path"),
            ("GATEWAY_SCOPES", "a\"b"),
            ("GATEWAY_SESSIONS_PER_SUBJECT", "0"),
            ("GATEWAY_SESSION_MAX_AGE", "32d"),
            ("SESSION_TYPE", "memcached"),
            ("SESSION_TYPE", "redis"),
            ("SESSION_USE_SIGNER", "true"),
            ("SESSION_COOKIE_NAME", "a b"),
            ("REDIS_URL", "http://redis"),
            ("REDIS_PASSWORD_FILE", "/does/not/exist"),
            ("GATEWAY_STATE_DIR", "/app/flask_session/inside"),
        ] {
            let problems = read(&[(name, value)]).expect_err(&format!("{name}={value}"));
            assert!(problems.contains('_'), "{problems}");
        }
    }

    #[test]
    fn a_bare_redis_host_is_azure_cache_over_tls() {
        let config = read(&[("REDIS_URL", "cache.redis.cache.windows.net")]).unwrap();
        let StoreConfig::Redis { url, .. } = config.sessions.store else { panic!() };
        assert_eq!(url.expose_secret(), "rediss://cache.redis.cache.windows.net:6380/0");
    }

    #[test]
    fn platform_names_join_a_list_that_was_begun() {
        let platform = [
            ("WEBSITE_HOSTNAME", "chat.azurewebsites.net"),
            ("CONTAINER_APP_NAME", "chat"),
            ("CONTAINER_APP_ENV_DNS_SUFFIX", "blue.region.azurecontainerapps.io"),
        ];
        assert!(read(&platform).unwrap().surroundings.public_urls.is_empty());
        let mut begun = vec![("GATEWAY_PUBLIC_URLS", "https://chat.example")];
        begun.extend(platform);
        let urls: Vec<_> =
            read(&begun).unwrap().surroundings.public_urls.iter().map(Origin::to_string).collect();
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
    fn secrets_are_masked_in_the_table() {
        let pairs = [("REDIS_URL", "redis://:hunter2@cache:6379")];
        let table = Config::table(pairs.map(|(n, v)| (n.to_owned(), v.to_owned())), None).unwrap();
        assert!(table.contains("REDIS_URL=********"));
        assert!(!table.contains("hunter2"));
    }
}
