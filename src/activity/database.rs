//! The database: SQLite, or PostgreSQL for several instances, with one set of statements for both.
//!
//! Every operation runs on the runtime that opened the database, whichever thread calls it: a connection must not
//! end with the worker thread that used it. Searches have a pool of their own, so that they do not delay writes or
//! reads of the state of external access.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::PgDatabaseError,
};
use tokio::{runtime::Handle, sync::Mutex, task::JoinError};

use super::{
    ActivityError, connect,
    pool::{
        BoxFuture, LONG_QUERY_TIMEOUT, Pool, PooledConnection, QUERY_TIMEOUT, in_time,
        with_connection,
    },
};
use crate::config::{DatabaseConfig, DatabaseTarget};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Connections (SQLite: file handles) for short operations.
const QUICK: u32 = 4;
/// Connections for long operations.
const SLOW: u32 = 2;

/// The database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database(Arc<Inner>);

struct Inner {
    quick: Pool,
    slow: Pool,
    runtime: Handle,
    target: DatabaseTarget,
    migrates: bool,
    is_ready: Mutex<bool>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database(..)")
    }
}

impl Database {
    /// Opens the pools without connecting. The calling runtime runs all operations.
    pub(super) fn new(config: &DatabaseConfig) -> Self {
        let target = config.target.clone();
        Self(Arc::new(Inner {
            quick: connect::pool(&target, QUICK, QUERY_TIMEOUT),
            slow: connect::pool(&target, SLOW, LONG_QUERY_TIMEOUT),
            runtime: Handle::current(),
            target,
            migrates: config.migrates,
            is_ready: Mutex::default(),
        }))
    }

    /// Creates SQLite's file if it is missing.
    pub(super) fn make_file(&self) {
        if let DatabaseTarget::Sqlite(path) = &self.0.target {
            connect::make_file(path);
        }
    }

    /// Runs an operation once the schema is up to date.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T> + Send + 'static,
    ) -> Result<T, ActivityError> {
        self.run_for(QUERY_TIMEOUT, work).await
    }

    /// [`Self::run`] with a timeout of its own.
    pub(super) async fn run_for<T: Send + 'static>(
        &self,
        query_timeout: Duration,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T> + Send + 'static,
    ) -> Result<T, ActivityError> {
        self.run_on(&self.0.quick, query_timeout, work).await
    }

    /// [`Self::run`] on the pool for long operations, which read or remove many rows.
    pub(super) async fn run_slowly<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T> + Send + 'static,
    ) -> Result<T, ActivityError> {
        self.run_on(&self.0.slow, LONG_QUERY_TIMEOUT, work).await
    }

    async fn run_on<T: Send + 'static>(
        &self,
        pool: &Pool,
        query_timeout: Duration,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T> + Send + 'static,
    ) -> Result<T, ActivityError> {
        let (database, pool) = (self.clone(), pool.clone());
        self.on_runtime(async move {
            database.make_ready().await?;
            pool.work(query_timeout, work).await
        })
        .await
    }

    /// Migrates the schema, whatever `GATEWAY_MIGRATE` is.
    pub(super) async fn migrate(&self) -> Result<(), ActivityError> {
        let database = self.clone();
        self.on_runtime(async move { in_time(LONG_QUERY_TIMEOUT, database.migrate_now()).await })
            .await
    }

    async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ActivityError>> + Send + 'static,
    ) -> Result<T, ActivityError> {
        let done: Result<_, JoinError> = self.0.runtime.spawn(work).await;
        match done.unwrap_or(Err(ActivityError::Interrupted)) {
            Ok(done) => Ok(done),
            Err(error) => Err(self.diagnose(error).await),
        }
    }

    /// Replaces library errors by errors that name the cause: an unusable file, or the reason why the pool got no
    /// connection.
    async fn diagnose(&self, error: ActivityError) -> ActivityError {
        let file_error = |path: &PathBuf, error| {
            if !path.exists() && path.parent().is_some_and(connect::is_writable) {
                ActivityError::Missing(path.clone())
            } else {
                match sqlite_code(&error) {
                    // PERM, READONLY, CANTOPEN, NOTADB.
                    Some(3 | 8 | 14 | 26) => ActivityError::Unusable(path.clone(), error),
                    Some(13) => ActivityError::DiskFull(path.clone(), error),
                    Some(10) => ActivityError::Disk(path.clone(), error),
                    _ => ActivityError::Database(error),
                }
            }
        };
        match (error, &self.0.target) {
            (
                ActivityError::Database(error)
                | ActivityError::Migration(MigrateError::Execute(error)),
                DatabaseTarget::Sqlite(path),
            ) => file_error(path, error),
            (ActivityError::Database(sqlx::Error::PoolTimedOut), DatabaseTarget::Postgres(_)) => {
                self.diagnose_connection().await
            }
            (error, _) => with_advice(error),
        }
    }

    async fn diagnose_connection(&self) -> ActivityError {
        let Some(options) = connect::postgres(&self.0.target) else {
            return ActivityError::NoConnection;
        };
        let at = format!("{}:{}", options.get_host(), options.get_port());
        let trying = async move { in_time(QUERY_TIMEOUT, options.connect()).await };
        match self.0.runtime.spawn(trying).await {
            Ok(Ok(connection)) => {
                drop(connection);
                ActivityError::NoConnection
            }
            Ok(Err(ActivityError::TimedOut)) | Err(_) => ActivityError::Unavailable(at, None),
            Ok(Err(error)) => ActivityError::Unavailable(at, Some(Box::new(with_advice(error)))),
        }
    }

    /// Checks the schema once, and migrates it if that is configured.
    async fn make_ready(&self) -> Result<(), ActivityError> {
        let waiting = async { Ok::<_, ActivityError>(self.0.is_ready.lock().await) };
        let mut is_ready = in_time(QUERY_TIMEOUT, waiting).await?;
        if !*is_ready {
            let is_up_to_date =
                self.0.quick.work(QUERY_TIMEOUT, |pooled| Box::pin(versions(pooled))).await?;
            let is_up_to_date = check_schema_version(&self.0.quick, is_up_to_date.as_deref())?;
            if !is_up_to_date && !self.0.migrates {
                return Err(ActivityError::NotMigrated);
            }
            if !is_up_to_date {
                in_time(LONG_QUERY_TIMEOUT, self.migrate_now()).await?;
            }
            *is_ready = true;
        }
        Ok(())
    }

    /// Migrates under a lock: on PostgreSQL sqlx takes an advisory lock, on SQLite it takes none.
    async fn migrate_now(&self) -> Result<(), ActivityError> {
        match (&self.0.quick, connect::postgres(&self.0.target)) {
            (Pool::Postgres(_), Some(options)) => {
                let mut connection: PgConnection = options.connect().await?;
                POSTGRES.run_direct(None, &mut connection, false).await?;
                connection.close().await?;
            }
            (Pool::Sqlite(pool), _) => {
                // Detached: closed afterwards, even after an error.
                let mut connection = pool.acquire().await?.detach();
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                SQLITE.run_direct(None, &mut *transaction, false).await?;
                transaction.commit().await?;
            }
            (Pool::Postgres(_), None) => {}
        }
        Ok(())
    }
}

/// Applied migrations; `None`: the table of migrations does not exist. Read before a migration, because the
/// gateway's database user may lack the right to create tables.
async fn versions(pooled: &mut PooledConnection) -> Result<Option<Vec<i64>>, sqlx::Error> {
    const TABLE: &str = "_sqlx_migrations";
    const VERSIONS: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    let is_there = match pooled {
        PooledConnection::Sqlite(connection) => {
            const THERE: &str = "SELECT count(*) FROM sqlite_master WHERE name = $1";
            let there: i64 =
                sqlx::query_scalar(THERE).bind(TABLE).fetch_one(&mut **connection).await?;
            there > 0
        }
        PooledConnection::Postgres(connection) => {
            const THERE: &str = "SELECT to_regclass($1) IS NOT NULL";
            sqlx::query_scalar(THERE).bind(TABLE).fetch_one(&mut **connection).await?
        }
    };
    if !is_there {
        return Ok(None);
    }
    with_connection!(pooled, connection => sqlx::query_scalar(VERSIONS).fetch_all(&mut **connection).await.map(Some))
}

/// True if all migrations of this version were applied.
///
/// # Errors
/// When others were applied: the database belongs to a later version.
fn check_schema_version(pool: &Pool, applied: Option<&[i64]>) -> Result<bool, ActivityError> {
    let known = match pool {
        Pool::Sqlite(_) => &SQLITE,
        Pool::Postgres(_) => &POSTGRES,
    };
    let applied = applied.unwrap_or_default();
    match applied.iter().find(|version| !known.version_exists(**version)) {
        Some(version) => Err(MigrateError::VersionMissing(*version).into()),
        None => Ok(known.iter().all(|migration| applied.contains(&migration.version))),
    }
}

/// `SQLite`'s primary result code (<https://sqlite.org/rescode.html>): the lower eight bits of an extended code.
fn sqlite_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?.parse::<u32>().ok()?;
    Some(code & 0xff)
}

/// Replaces sqlx's text, which ends with a line number of PostgreSQL's C source, by PostgreSQL's message and advice.
fn with_advice(error: ActivityError) -> ActivityError {
    let server_error = match &error {
        ActivityError::Database(error) | ActivityError::Migration(MigrateError::Execute(error)) => {
            error.as_database_error()
        }
        _ => None,
    };
    let Some(server_error) = server_error.and_then(|it| it.try_downcast_ref::<PgDatabaseError>())
    else {
        return error;
    };
    let advice = match server_error.code() {
        "25006" => "; is the disk full, or is this a replica?",
        "53100" => "; the server's disk is full",
        _ => "",
    };
    let (message, code) = (server_error.message().to_owned(), server_error.code().to_owned());
    ActivityError::Server { message, code, advice }
}
