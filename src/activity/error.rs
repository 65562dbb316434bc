//! Failures of the activity log.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

/// Failures of the database. None of them means "not found".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivityError {
    #[error("DATABASE_URL is not set")]
    NoDatabase,
    #[error("database error")]
    Database(#[from] sqlx::Error),
    /// SQLite's file cannot be opened or written.
    #[error("database file {} cannot be used: the gateway's user needs write access to the file and its folder (DATABASE_URL)", .0.display())]
    Unusable(PathBuf, #[source] sqlx::Error),
    #[error(
        "database file {} does not exist: start the gateway or run `migrate` to create it, or correct DATABASE_URL", .0.display()
    )]
    Missing(PathBuf),
    #[error("the database migration failed")]
    Migration(#[source] MigrateError),
    #[error(
        "the database schema is not up to date: run `simplechat-gateway migrate`, or set GATEWAY_MIGRATE=auto"
    )]
    NotMigrated,
    #[error(
        "a later version of the gateway migrated the database: use that version, or restore a backup"
    )]
    TooNew,
    #[error("database file {}: the disk is full (DATABASE_URL)", .0.display())]
    DiskFull(PathBuf, #[source] sqlx::Error),
    #[error("database file {}: reading or writing the disk failed (DATABASE_URL)", .0.display())]
    Disk(PathBuf, #[source] sqlx::Error),
    /// Error reported by PostgreSQL.
    #[error("PostgreSQL: {message} ({code}){advice}")]
    Server {
        /// PostgreSQL's message.
        message: String,
        /// SQLSTATE: five characters.
        code: String,
        /// Empty, or advice that begins with a semicolon.
        advice: &'static str,
    },
    #[error("PostgreSQL at {0} cannot be reached (DATABASE_URL)")]
    Unavailable(String, #[source] Option<Box<ActivityError>>),
    #[error("no database connection became available in time")]
    NoConnection,
    #[error("the database did not respond in time: the operation may or may not have been applied")]
    TimedOut,
    #[error("the activity log is over capacity")]
    QueueFull,
    #[error("the operation was interrupted")]
    Interrupted,
}

impl From<MigrateError> for ActivityError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(_) => Self::TooNew,
            error => Self::Migration(error),
        }
    }
}

impl ActivityError {
    /// True if the database may not be the gateway's, or has another version's schema.
    pub(crate) fn is_misconfiguration(&self) -> bool {
        matches!(self, Self::NoDatabase | Self::NotMigrated | Self::TooNew | Self::Missing(_))
    }

    /// True if a retry cannot succeed: the settings, or the state of the database, are wrong.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::NoDatabase
            | Self::NotMigrated
            | Self::TooNew
            | Self::Unusable(..)
            | Self::Missing(_) => true,
            Self::Migration(error) => !matches!(error, MigrateError::Execute(_)),
            Self::Database(_)
            | Self::DiskFull(..)
            | Self::Disk(..)
            | Self::Server { .. }
            | Self::Unavailable(..)
            | Self::NoConnection
            | Self::TimedOut
            | Self::QueueFull
            | Self::Interrupted => false,
        }
    }
}
