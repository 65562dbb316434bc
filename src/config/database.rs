//! Settings of the database and the activity log.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{
    Reader,
    reader::{duration, size, word},
};

/// Location and migration of the database.
#[derive(Debug)]
pub(crate) struct DatabaseConfig {
    pub(crate) target: DatabaseTarget,
    /// True if the process that opens the database also migrates it.
    pub(crate) migrates: bool,
}

/// Location of the database.
#[derive(Clone)]
pub(crate) enum DatabaseTarget {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL server: connection options, password included.
    Postgres(Box<PgConnectOptions>),
}

impl fmt::Debug for DatabaseTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => f.debug_tuple("Sqlite").field(path).finish(),
            Self::Postgres(_) => f.write_str("Postgres(..)"),
        }
    }
}

/// Operations that are refused while the database is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActivityRequired {
    /// Administrators' decisions that grant more access.
    Decisions,
    /// Those and logins.
    All,
    /// None.
    None,
}

/// Settings of the activity log.
#[derive(Debug)]
pub(crate) struct ActivityConfig {
    /// `None`: activity is reported in the log and in telemetry only.
    pub(crate) database: Option<DatabaseConfig>,
    /// Age at which records are removed.
    pub(crate) retention: Duration,
    /// Size in bytes above which the oldest records are removed.
    pub(crate) max_size: u64,
    pub(crate) required: ActivityRequired,
}

pub(super) fn activity(reader: &mut Reader) -> ActivityConfig {
    let target = reader.read("DATABASE_URL", target);
    if let Some(DatabaseTarget::Postgres(options)) = &target
        && is_unverified(options)
    {
        reader.warn(
            "DATABASE_URL",
            "the server's certificate is not verified: add ?sslmode=verify-full, and &sslrootcert=FILE for a private CA",
        );
    }
    let migrates = reader.read("GATEWAY_MIGRATE", word(&[("auto", true), ("off", false)]));
    let required = word(&[
        ("decisions", ActivityRequired::Decisions),
        ("all", ActivityRequired::All),
        ("none", ActivityRequired::None),
    ]);
    let database = |target| {
        let is_embedded = matches!(target, DatabaseTarget::Sqlite(_));
        DatabaseConfig { target, migrates: is_embedded || migrates.unwrap_or_default() }
    };
    ActivityConfig {
        database: target.map(database),
        retention: reader.require("GATEWAY_ACTIVITY_RETENTION", retention).unwrap_or_default(),
        max_size: reader.require("GATEWAY_ACTIVITY_MAX_SIZE", max_size).unwrap_or_default(),
        required: reader
            .require("GATEWAY_ACTIVITY_REQUIRED", required)
            .unwrap_or(ActivityRequired::Decisions),
    }
}

/// True if the server is remote and its certificate is not verified, so that it could be impersonated.
fn is_unverified(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let is_local = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let is_verified = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    !is_local && !is_verified
}

/// At least one day: the database refuses to delete younger records.
fn retention(text: &str) -> Result<Duration, String> {
    let retention = duration(text)?;
    let is_sound = retention >= Duration::from_hours(24);
    if is_sound { Ok(retention) } else { Err("expected at least 1d".to_owned()) }
}

/// At least 256 KiB: an empty database has 80 KiB.
fn max_size(text: &str) -> Result<u64, String> {
    let size = size(text)?;
    if size >= 256 << 10 { Ok(size as u64) } else { Err("expected at least 256KiB".to_owned()) }
}

fn target(text: &str) -> Result<DatabaseTarget, String> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        // Other programs write sqlite:///path.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.ends_with('/') || path.contains('?') {
            return Err("expected sqlite:/absolute/path".to_owned());
        }
        return Ok(DatabaseTarget::Sqlite(PathBuf::from(path)));
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let options = PgConnectOptions::from_str(text)
            .map_err(|_| "expected postgres://user:password@host/database".to_owned())?;
        let options = options.application_name("simplechat-gateway").disable_statement_logging();
        return Ok(DatabaseTarget::Postgres(Box::new(options)));
    }
    Err("expected sqlite:/absolute/path or postgres://…".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_a_server() {
        for (text, path) in [("sqlite:/a/b.db", "/a/b.db"), ("sqlite:///a/b.db", "/a/b.db")] {
            let Ok(DatabaseTarget::Sqlite(found)) = target(text) else { panic!("{text}") };
            assert_eq!(found, PathBuf::from(path));
        }
        assert!(matches!(target("postgres://u:p@h/d"), Ok(DatabaseTarget::Postgres(_))));
        let odd = [
            "sqlite:b.db",
            "sqlite:/a/",
            "sqlite::memory:",
            "mysql://h/d",
            "postgres:/h",
            "hunter2",
        ];
        for odd in odd {
            let problem = target(odd).err().unwrap_or_else(|| panic!("{odd}"));
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn a_remote_server_without_certificate_verification_is_reported() {
        for (url, unverified) in [
            ("postgres://u:p@127.0.0.1/d", false),
            ("postgres://u:p@localhost/d", false),
            ("postgres:///d?host=/run/postgresql", false),
            ("postgres://u:p@db.example/d", true),
            ("postgres://u:p@db.example/d?sslmode=require", true),
            ("postgres://u:p@db.example/d?sslmode=verify-full", false),
        ] {
            let Ok(DatabaseTarget::Postgres(options)) = target(url) else { panic!("{url}") };
            assert_eq!(is_unverified(&options), unverified, "{url}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let target = target("postgres://u:hunter2@h/d").unwrap();
        assert_eq!(format!("{target:?}"), "Postgres(..)");
    }
}
