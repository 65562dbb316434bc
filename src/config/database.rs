//! The database of the activity log and the administrator's switch.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{
    Reader,
    reader::{duration, size, word},
};

/// Where it is and how it is kept.
#[derive(Debug)]
pub(crate) struct DatabaseConfig {
    pub(crate) target: DatabaseTarget,
    /// Whether it is brought up to date by whoever opens it.
    pub(crate) migrates: bool,
}

/// Which database.
#[derive(Clone)]
pub(crate) enum DatabaseTarget {
    /// A file.
    Sqlite(PathBuf),
    /// PostgreSQL: how to connect, the password among it.
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

/// What is refused while the database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ActivityRequired {
    /// Administrators' decisions.
    Decisions,
    /// Logins as well.
    All,
    /// Nothing.
    None,
}

/// What is kept of who came in.
#[derive(Debug)]
pub(crate) struct ActivityConfig {
    /// `None`: it is told in the log and by telemetry alone.
    pub(crate) database: Option<DatabaseConfig>,
    /// How long records are kept.
    pub(crate) retention: Duration,
    /// Size in bytes beyond which the oldest records are removed.
    pub(crate) max_size: u64,
    pub(crate) required: ActivityRequired,
}

pub(super) fn activity(reader: &mut Reader) -> ActivityConfig {
    let target = reader.read("DATABASE_URL", target);
    if let Some(DatabaseTarget::Postgres(options)) = &target
        && is_met_unchecked(options)
    {
        reader.warn(
            "DATABASE_URL",
            "the server's certificate is not checked: add ?sslmode=verify-full, and &sslrootcert=FILE for a private authority",
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

/// Whether anybody on the way could answer in the server's place.
fn is_met_unchecked(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let is_checked = matches!(options.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    !is_here && !is_checked
}

/// The database itself keeps records for a day.
fn retention(text: &str) -> Result<Duration, String> {
    let retention = duration(text)?;
    let is_sound = retention >= Duration::from_hours(24);
    if is_sound { Ok(retention) } else { Err("is shorter than 1d".to_owned()) }
}

/// An empty database has 80 KiB.
fn max_size(text: &str) -> Result<u64, String> {
    let size = size(text)?;
    if size >= 256 << 10 { Ok(size as u64) } else { Err("is smaller than 256KiB".to_owned()) }
}

fn target(text: &str) -> Result<DatabaseTarget, String> {
    if let Some(path) = text.strip_prefix("sqlite:") {
        // sqlite:///path is what others write.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') || path.ends_with('/') || path.contains('?') {
            return Err("is not sqlite:/absolute/path".to_owned());
        }
        return Ok(DatabaseTarget::Sqlite(PathBuf::from(path)));
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let options = PgConnectOptions::from_str(text)
            .map_err(|_| "is not postgres://user:password@host/database".to_owned())?;
        let options = options.application_name("simplechat-gateway").disable_statement_logging();
        return Ok(DatabaseTarget::Postgres(Box::new(options)));
    }
    Err("is neither sqlite:/absolute/path nor postgres://…".to_owned())
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
    fn a_server_elsewhere_is_to_be_checked() {
        for (url, unchecked) in [
            ("postgres://u:p@127.0.0.1/d", false),
            ("postgres://u:p@localhost/d", false),
            ("postgres:///d?host=/run/postgresql", false),
            ("postgres://u:p@db.example/d", true),
            ("postgres://u:p@db.example/d?sslmode=require", true),
            ("postgres://u:p@db.example/d?sslmode=verify-full", false),
        ] {
            let Ok(DatabaseTarget::Postgres(options)) = target(url) else { panic!("{url}") };
            assert_eq!(is_met_unchecked(&options), unchecked, "{url}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let target = target("postgres://u:hunter2@h/d").unwrap();
        assert_eq!(format!("{target:?}"), "Postgres(..)");
    }
}
