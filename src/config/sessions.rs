//! Settings of the session store, the login limits and the session cookie.

use std::{
    path::{Component, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};

use super::{
    Reader,
    reader::{at_least_one, duration, or_off, word},
    redis_auth::{self, RedisAuth},
};

/// Session store and login limits.
#[derive(Debug, Clone)]
pub(crate) struct SessionsConfig {
    pub(crate) store: StoreConfig,
    pub(crate) key_prefix: String,
    pub(crate) per_subject: usize,
    /// Logins per subject; `None` for no limit.
    pub(crate) login_limit: Option<Limit>,
    /// Failed logins per address; `None` for no limit.
    pub(crate) failure_limit: Option<Limit>,
}

impl SessionsConfig {
    /// True if the limits differ.
    pub(crate) fn limits_differ(&self, other: &Self) -> bool {
        let of = |config: &Self| (config.per_subject, config.login_limit, config.failure_limit);
        of(self) != of(other)
    }
}

/// Maximum number of events within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) max: u32,
    pub(crate) per: Duration,
}

/// Session store of upstream.
#[derive(Debug, Clone)]
pub(crate) enum StoreConfig {
    /// Redis.
    Redis { url: SecretString, auth: RedisAuth, ca_file: Option<PathBuf> },
    /// Files of cachelib.
    Files {
        /// `SESSION_FILE_DIR`, upstream's folder.
        directory: PathBuf,
        /// `GATEWAY_STATE_DIR`, the gateway's folder.
        state: PathBuf,
    },
}

impl StoreConfig {
    /// Database number of the Redis URL.
    pub(crate) fn database(&self) -> Option<u8> {
        let Self::Redis { url, .. } = self else { return None };
        let config = fred::types::config::Config::from_url(url.expose_secret()).ok()?;
        Some(config.database.unwrap_or_default())
    }
}

/// The session cookie, set by login and read by upstream.
#[derive(Debug, Clone)]
pub(crate) struct CookieConfig {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: &'static str,
    /// `None`: `Secure` is set for callers that use https.
    pub(crate) secure: Option<bool>,
}

pub(super) fn sessions(reader: &mut Reader) -> SessionsConfig {
    let redis_is_named = reader.given("REDIS_URL").is_some();
    let use_redis = match reader.given("SESSION_TYPE") {
        None => redis_is_named,
        Some(_) => reader
            .read("SESSION_TYPE", word(&[("redis", true), ("filesystem", false)]))
            .unwrap_or_default(),
    };
    let store = if use_redis {
        let url = reader.require("REDIS_URL", redis_url).unwrap_or_default();
        let auth = redis_auth::read(reader, &url);
        StoreConfig::Redis { url, auth, ca_file: reader.given("REDIS_CA_FILE").map(PathBuf::from) }
    } else {
        files(reader)
    };
    let key_prefix = key_prefix(reader);
    SessionsConfig {
        store,
        key_prefix,
        per_subject: reader.read("GATEWAY_SESSIONS_PER_SUBJECT", at_least_one).unwrap_or(1),
        login_limit: reader.require("GATEWAY_LOGIN_LIMIT", or_off(limit)).flatten(),
        failure_limit: reader.require("GATEWAY_LOGIN_FAILURE_LIMIT", or_off(limit)).flatten(),
    }
}

/// Parses `600/1m`.
fn limit(text: &str) -> Result<Limit, String> {
    let wrong = || "expected a limit such as 600/1m, or off".to_owned();
    let (max, per) = text.split_once('/').ok_or_else(wrong)?;
    let max = max.trim().parse().ok().filter(|max| *max > 0).ok_or_else(wrong)?;
    let per = duration(per.trim())?;
    let is_sound = per >= Duration::from_secs(1) && per <= Duration::from_hours(24);
    if is_sound { Ok(Limit { max, per }) } else { Err("expected a period of 1s to 24h".to_owned()) }
}

/// Refuses prefixes that overlap the gateway's keys: a cookie can name any key under the prefix.
fn key_prefix(reader: &mut Reader) -> String {
    const OURS: &str = "gateway:";
    let prefix = reader.text("SESSION_KEY_PREFIX").unwrap_or_default();
    if reader.is_set_empty("SESSION_KEY_PREFIX") {
        reader.problem(
            "SESSION_KEY_PREFIX",
            "is empty: then a cookie could name any key in the store; unset it for session:",
        );
    } else if OURS.starts_with(&prefix) || prefix.starts_with(OURS) {
        reader.problem(
            "SESSION_KEY_PREFIX",
            "overlaps gateway:, the prefix of the gateway's own keys: a cookie could name those",
        );
    }
    prefix
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
        let is_plain = path.components().all(|part| !matches!(part, Component::ParentDir));
        if !path.is_absolute() || !is_plain {
            reader.problem(name, "must be an absolute path without ..");
        }
    }
    if state.starts_with(&directory) || directory.starts_with(&state) {
        reader.problem(
            "GATEWAY_STATE_DIR",
            "must be separate from SESSION_FILE_DIR, where upstream deletes files: neither may contain the other",
        );
    }
    StoreConfig::Files { directory, state }
}

/// Host name suffixes of Azure Managed Redis and of the Enterprise tiers, which use port 10000. The same list as in
/// SimpleChat since 0.261.010.
const MANAGED_REDIS: [&str; 2] = [".redis.azure.net", ".redisenterprise.cache.azure.net"];

/// Default TLS port of a host name.
fn redis_port(host: &str) -> u16 {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if MANAGED_REDIS.iter().any(|suffix| host.ends_with(suffix)) { 10_000 } else { 6380 }
}

/// Parses a URL, or a bare host name as SimpleChat stores it: Azure's Redis over TLS.
fn redis_url(text: &str) -> Result<SecretString, String> {
    if text.contains(',') && text.contains('=') && !text.contains("://") {
        return Err(
            "expected a URL or a host name, not a connection string of StackExchange.Redis; set the host name alone (the part before \
             the port), and the part after password= in REDIS_PASSWORD"
                .to_owned(),
        );
    }
    let url = match (text.contains("://"), text.contains(':')) {
        (true, _) => text.to_owned(),
        (false, true) => format!("rediss://{text}/0"),
        (false, false) => format!("rediss://{text}:{}/0", redis_port(text)),
    };
    let scheme = url.split("://").next().unwrap_or_default();
    let base = scheme.trim_end_matches("-cluster").trim_end_matches("-sentinel");
    let is_redis = matches!(base, "redis" | "rediss" | "valkey" | "valkeys");
    // The client library's error is not shown: it may contain the password.
    if is_redis && fred::types::config::Config::from_url(&url).is_ok() {
        Ok(SecretString::from(url))
    } else {
        Err("expected a Redis URL or a host name".to_owned())
    }
}

pub(super) fn cookie(reader: &mut Reader) -> CookieConfig {
    let name = reader.read("SESSION_COOKIE_NAME", |text| {
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if text.bytes().all(is_token) {
            Ok(text.to_owned())
        } else {
            Err("expected a cookie name".to_owned())
        }
    });
    let attribute = |text: &str| {
        let is_plain = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b';' && b != b',');
        if is_plain { Ok(text.to_owned()) } else { Err("expected a cookie attribute".to_owned()) }
    };
    let same_site = [("Lax", "Lax"), ("Strict", "Strict"), ("None", "None")];
    let secure = [("auto", None), ("true", Some(true)), ("false", Some(false))];
    if reader.given("SECRET_KEY").is_some() {
        reader.warn(
            "SECRET_KEY",
            "is not used; remove it from the gateway's environment (SimpleChat's Bicep puts the client secret there)",
        );
    }
    CookieConfig {
        name: name.unwrap_or_default(),
        path: reader.read("SESSION_COOKIE_PATH", attribute).unwrap_or_default(),
        domain: reader.read("SESSION_COOKIE_DOMAIN", attribute),
        same_site: reader.read("SESSION_COOKIE_SAMESITE", word(&same_site)).unwrap_or("Lax"),
        secure: reader.read("SESSION_COOKIE_SECURE", word(&secure)).flatten(),
    }
}
