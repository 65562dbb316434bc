//! The database: SQLite, or PostgreSQL for several instances. One set of statements for both.
//!
//! All of its work is done by the runtime that opened it, whichever thread asks: connections must not
//! end with a thread that serves.

use std::{
    fmt,
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{FsWord, statfs};
use secrecy::ExposeSecret;
use sqlx::{
    ConnectOptions, PgPool, SqlitePool,
    migrate::{MigrateError, Migrator},
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{runtime::Handle, sync::Mutex, task::JoinError, time::timeout};

use super::ActivityError;
use crate::config::{DatabaseConfig, DatabaseTarget};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// For one piece of work, the wait for a connection included.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// For what reads a lot, and for migrating.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(30);
/// Connections to PostgreSQL, or handles on the file.
const CONNECTIONS: u32 = 4;

/// File systems whose memory is not shared between machines, by `f_type` (`statfs(2)`): where SQLite
/// can keep a write-ahead log. overlayfs, ext4, XFS, Btrfs, tmpfs, ZFS, F2FS.
const LOCAL: [u64; 7] =
    [0x794c_7630, 0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0xf2f5_2010];

/// Connections to one kind or the other.
#[derive(Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    /// Begins a transaction that will write.
    pub(super) fn begin(&self) -> &'static str {
        match self {
            // Else two that have read wait for one another.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        }
    }
}

/// The same work on either kind of pool.
macro_rules! on {
    ($pool:expr, $name:ident => $work:expr) => {
        match $pool {
            $crate::activity::database::Pool::Sqlite($name) => $work,
            $crate::activity::database::Pool::Postgres($name) => $work,
        }
    };
}
pub(super) use on;

/// The database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Database {
    pool: Pool,
    home: Handle,
    /// SQLite's.
    file: Option<PathBuf>,
    migrates: bool,
    is_ready: Arc<Mutex<bool>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Database(..)")
    }
}

impl Database {
    /// Waits for nothing. The runtime it is called in does its work.
    pub(super) fn new(config: &DatabaseConfig) -> Self {
        let pool = match &config.target {
            DatabaseTarget::Sqlite(path) => Pool::Sqlite(
                SqlitePoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .connect_lazy_with(sqlite(path)),
            ),
            DatabaseTarget::Postgres(options) => Pool::Postgres(
                PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(PATIENCE)
                    .connect_lazy_with(options.expose_secret().0.clone()),
            ),
        };
        let file = match &config.target {
            DatabaseTarget::Sqlite(path) => Some(path.clone()),
            DatabaseTarget::Postgres(_) => None,
        };
        let (home, migrates) = (Handle::current(), config.migrates);
        Self { pool, home, file, migrates, is_ready: Arc::default() }
    }

    /// Does a piece of work, once the database is up to date.
    pub(super) async fn run<T, F>(
        &self,
        work: impl FnOnce(Pool) -> F + Send + 'static,
    ) -> Result<T, ActivityError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        self.run_for(PATIENCE, work).await
    }

    /// The same for work that may take longer.
    pub(super) async fn run_for<T, F>(
        &self,
        patience: Duration,
        work: impl FnOnce(Pool) -> F + Send + 'static,
    ) -> Result<T, ActivityError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let database = self.clone();
        let done = self.home.spawn(async move {
            database.make_ready().await?;
            in_time(patience, work(database.pool.clone())).await
        });
        self.told(done.await)
    }

    /// Brings it up to date if that is to be done, once.
    async fn make_ready(&self) -> Result<(), ActivityError> {
        let mut is_ready = self.is_ready.lock().await;
        if !*is_ready {
            let is_up_to_date = in_time(PATIENCE, self.is_up_to_date()).await?;
            if !is_up_to_date && !self.migrates {
                return Err(ActivityError::NotMigrated);
            }
            if !is_up_to_date {
                in_time(LONG_PATIENCE, self.migrate_now()).await?;
            }
            *is_ready = true;
        }
        Ok(())
    }

    /// Brings it up to date, whatever the setting.
    pub(super) async fn migrate(&self) -> Result<(), ActivityError> {
        let database = self.clone();
        let done =
            self.home.spawn(async move { in_time(LONG_PATIENCE, database.migrate_now()).await });
        self.told(done.await)
    }

    /// What a failure means: a file that cannot be used is no neighbour that is away.
    fn told<T>(
        &self,
        done: Result<Result<T, ActivityError>, JoinError>,
    ) -> Result<T, ActivityError> {
        match (done.unwrap_or(Err(ActivityError::Interrupted)), &self.file) {
            (Err(ActivityError::Database(error)), Some(path)) if is_of_the_file(&error) => {
                Err(ActivityError::Unusable(path.clone(), error))
            }
            (Err(ActivityError::Migration(MigrateError::Execute(error))), Some(path))
                if is_of_the_file(&error) =>
            {
                Err(ActivityError::Unusable(path.clone(), error))
            }
            (done, _) => done,
        }
    }

    /// One does it at a time: on PostgreSQL the library takes an advisory lock, on a file it takes none.
    async fn migrate_now(&self) -> Result<(), ActivityError> {
        match &self.pool {
            Pool::Sqlite(pool) => {
                let mut transaction = pool.begin_with(self.pool.begin()).await?;
                SQLITE.run_direct(None, &mut *transaction, false).await?;
                transaction.commit().await?;
            }
            Pool::Postgres(pool) => POSTGRES.run(pool).await?,
        }
        Ok(())
    }

    /// Whoever serves may lack the right to create tables: it is asked first.
    async fn is_up_to_date(&self) -> Result<bool, ActivityError> {
        const TABLE: &str = "_sqlx_migrations";
        const VERSIONS: &str =
            "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
        let (applied, known): (Vec<i64>, _) = match &self.pool {
            Pool::Sqlite(pool) => {
                const THERE: &str = "SELECT count(*) FROM sqlite_master WHERE name = $1";
                let there: i64 = sqlx::query_scalar(THERE).bind(TABLE).fetch_one(pool).await?;
                if there == 0 {
                    return Ok(false);
                }
                (sqlx::query_scalar(VERSIONS).fetch_all(pool).await?, &SQLITE)
            }
            Pool::Postgres(pool) => {
                const THERE: &str = "SELECT to_regclass($1) IS NOT NULL";
                let there: bool = sqlx::query_scalar(THERE).bind(TABLE).fetch_one(pool).await?;
                if !there {
                    return Ok(false);
                }
                (sqlx::query_scalar(VERSIONS).fetch_all(pool).await?, &POSTGRES)
            }
        };
        match applied.iter().find(|version| !known.version_exists(**version)) {
            Some(version) => Err(MigrateError::VersionMissing(*version).into()),
            None => Ok(known.iter().all(|migration| applied.contains(&migration.version))),
        }
    }
}

async fn in_time<T, E: Into<ActivityError>>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ActivityError> {
    match timeout(patience, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(ActivityError::TimedOut),
    }
}

/// SQLite's result codes (<https://sqlite.org/rescode.html>): no permission, read-only, cannot be
/// opened, no database. Extended ones have more in their higher bits.
fn is_of_the_file(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 3 | 8 | 14 | 26))
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    // Nobody else's to read: SQLite's own files take after it. That it cannot be made SQLite will tell.
    let _ = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .busy_timeout(PATIENCE)
        // What is confirmed survives the machine.
        .synchronous(SqliteSynchronous::Full)
        // What it may need to undo of a long statement: an image has no folder for that.
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging();
    if keeps_memory_to_itself(path) {
        options.journal_mode(SqliteJournalMode::Wal)
    } else {
        options.journal_mode(SqliteJournalMode::Delete)
    }
}

/// Whether a write-ahead log works there: its index is shared memory, which a network's file system does
/// not have (<https://sqlite.org/wal.html>).
fn keeps_memory_to_itself(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let kind = |kind: FsWord| u64::try_from(kind).unwrap_or_default();
    statfs(folder).is_ok_and(|found| LOCAL.contains(&kind(found.f_type)))
}
