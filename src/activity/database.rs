//! The database: SQLite, or PostgreSQL for several instances. One set of statements for both.
//!
//! All of its work is done by the runtime that opened it, whichever thread asks: connections must not
//! end with a thread that serves. Who searches does not hold up who writes or reads the switch.

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

/// Connections, or handles on the file: for what is quick.
const QUICK: u32 = 4;
/// For what takes long.
const SLOW: u32 = 2;

/// The database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database(Arc<Inner>);

struct Inner {
    quick: Pool,
    slow: Pool,
    home: Handle,
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
    /// Waits for nothing. The runtime it is called in does its work.
    pub(super) fn new(config: &DatabaseConfig) -> Self {
        let target = config.target.clone();
        Self(Arc::new(Inner {
            quick: connect::pool(&target, QUICK, QUERY_TIMEOUT),
            slow: connect::pool(&target, SLOW, LONG_QUERY_TIMEOUT),
            home: Handle::current(),
            target,
            migrates: config.migrates,
            is_ready: Mutex::default(),
        }))
    }

    /// Makes SQLite's file where there is none.
    pub(super) fn make_file(&self) {
        if let DatabaseTarget::Sqlite(path) = &self.0.target {
            connect::make_file(path);
        }
    }

    /// Does a piece of work, once the database is up to date.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T> + Send + 'static,
    ) -> Result<T, ActivityError> {
        self.run_for(QUERY_TIMEOUT, work).await
    }

    /// The same for work that takes longer the more there is of it.
    pub(super) async fn run_for<T: Send + 'static>(
        &self,
        query_timeout: Duration,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T> + Send + 'static,
    ) -> Result<T, ActivityError> {
        self.run_on(&self.0.quick, query_timeout, work).await
    }

    /// The same for work that reads or removes a lot; nobody waits for it to end.
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
        self.at_home(async move {
            database.make_ready().await?;
            pool.work(query_timeout, work).await
        })
        .await
    }

    /// Brings it up to date, whatever the setting.
    pub(super) async fn migrate(&self) -> Result<(), ActivityError> {
        let database = self.clone();
        self.at_home(async move { in_time(LONG_QUERY_TIMEOUT, database.migrate_now()).await }).await
    }

    async fn at_home<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ActivityError>> + Send + 'static,
    ) -> Result<T, ActivityError> {
        let done: Result<_, JoinError> = self.0.home.spawn(work).await;
        match done.unwrap_or(Err(ActivityError::Interrupted)) {
            Ok(done) => Ok(done),
            Err(error) => Err(self.in_plain_words(error).await),
        }
    }

    /// What a failure means: a file that cannot be used is no neighbour that is away, and a pool that got no
    /// connection does not say why.
    async fn in_plain_words(&self, error: ActivityError) -> ActivityError {
        let of_file = |path: &PathBuf, error| {
            if !path.exists() && path.parent().is_some_and(connect::is_writable) {
                ActivityError::Missing(path.clone())
            } else {
                match sqlite_code(&error) {
                    // No permission, read-only, cannot be opened, no database.
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
            ) => of_file(path, error),
            (ActivityError::Database(sqlx::Error::PoolTimedOut), DatabaseTarget::Postgres(_)) => {
                self.why_away().await
            }
            (error, _) => by_server(error),
        }
    }

    async fn why_away(&self) -> ActivityError {
        let Some(options) = connect::postgres(&self.0.target) else {
            return ActivityError::NoConnection;
        };
        let at = format!("{}:{}", options.get_host(), options.get_port());
        let trying = async move { in_time(QUERY_TIMEOUT, options.connect()).await };
        match self.0.home.spawn(trying).await {
            Ok(Ok(connection)) => {
                drop(connection);
                ActivityError::NoConnection
            }
            Ok(Err(ActivityError::TimedOut)) | Err(_) => ActivityError::Away(at, None),
            Ok(Err(error)) => ActivityError::Away(at, Some(Box::new(by_server(error)))),
        }
    }

    /// Brings it up to date if that is to be done, once.
    async fn make_ready(&self) -> Result<(), ActivityError> {
        let waiting = async { Ok::<_, ActivityError>(self.0.is_ready.lock().await) };
        let mut is_ready = in_time(QUERY_TIMEOUT, waiting).await?;
        if !*is_ready {
            let is_up_to_date =
                self.0.quick.work(QUERY_TIMEOUT, |held| Box::pin(versions(held))).await?;
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

    /// One does it at a time: on PostgreSQL the library takes an advisory lock, on a file it takes none.
    async fn migrate_now(&self) -> Result<(), ActivityError> {
        match (&self.0.quick, connect::postgres(&self.0.target)) {
            (Pool::Postgres(_), Some(options)) => {
                let mut connection: PgConnection = options.connect().await?;
                POSTGRES.run_direct(None, &mut connection, false).await?;
                connection.close().await?;
            }
            (Pool::Sqlite(pool), _) => {
                // Closed afterwards, whatever happened on it.
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

/// The migrations that were made; `None`: none ever. Whoever serves may lack the right to create tables: it
/// is asked first.
async fn versions(held: &mut PooledConnection) -> Result<Option<Vec<i64>>, sqlx::Error> {
    const TABLE: &str = "_sqlx_migrations";
    const VERSIONS: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    let is_there = match held {
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
    with_connection!(held, connection => sqlx::query_scalar(VERSIONS).fetch_all(&mut **connection).await.map(Some))
}

/// Whether all migrations that we know were made, and no others.
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

/// `SQLite`'s primary result code (<https://sqlite.org/rescode.html>): the lower eight bits of extended ones.
fn sqlite_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?.parse::<u32>().ok()?;
    Some(code & 0xff)
}

/// PostgreSQL's own message with advice. The library's text ends with a line number of PostgreSQL's C source.
fn by_server(error: ActivityError) -> ActivityError {
    let of_server = match &error {
        ActivityError::Database(error) | ActivityError::Migration(MigrateError::Execute(error)) => {
            error.as_database_error()
        }
        _ => None,
    };
    let Some(of_server) = of_server.and_then(|it| it.try_downcast_ref::<PgDatabaseError>()) else {
        return error;
    };
    let advice = match of_server.code() {
        "25006" => "; is the disk full, or is this a replica?",
        "53100" => "; the server's disk is full",
        _ => "",
    };
    let (message, code) = (of_server.message().to_owned(), of_server.code().to_owned());
    ActivityError::Server { message, code, advice }
}
