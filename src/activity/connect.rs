//! Connection options of SQLite and PostgreSQL.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use rustix::fs::{Access, FsWord, access, statfs};
use sqlx::{
    ConnectOptions, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::pool::Pool;
use crate::config::DatabaseTarget;

/// Local file systems, on which SQLite can use a write-ahead log, by `f_type` (`statfs(2)`): overlayfs, ext4, XFS,
/// Btrfs, tmpfs, ZFS, F2FS.
const LOCAL_FILE_SYSTEMS: [u64; 7] =
    [0x794c_7630, 0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0xf2f5_2010];

/// Lazily connected pool; the server ends statements soon after `query_timeout`.
pub(super) fn pool(target: &DatabaseTarget, connections: u32, query_timeout: Duration) -> Pool {
    match target {
        DatabaseTarget::Sqlite(path) => Pool::Sqlite(
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(super::pool::QUERY_TIMEOUT)
                .connect_lazy_with(sqlite(path)),
        ),
        DatabaseTarget::Postgres(options) => {
            let options = (**options).clone();
            let limits = limits(query_timeout);
            Pool::Postgres(
                PgPoolOptions::new()
                    .max_connections(connections)
                    .acquire_timeout(super::pool::QUERY_TIMEOUT)
                    .after_connect(move |connection, _| {
                        let limits = sqlx::AssertSqlSafe(limits.clone());
                        Box::pin(async move { connection.execute(limits).await.map(drop) })
                    })
                    .connect_lazy_with(options),
            )
        }
    }
}

/// Limits on the server: an abandoned statement must not hold a lock. They are statements because a connection
/// pooler may reject startup options.
fn limits(query_timeout: Duration) -> String {
    let (max, lock) = (query_timeout.as_millis() + 500, query_timeout.as_millis().min(10_000));
    format!(
        "SET statement_timeout = {max}; SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = {max}"
    )
}

/// Options without a pool and without limits, for migrations and for the diagnosis of failed connections.
pub(super) fn postgres(target: &DatabaseTarget) -> Option<PgConnectOptions> {
    match target {
        DatabaseTarget::Postgres(options) => Some((**options).clone()),
        DatabaseTarget::Sqlite(_) => None,
    }
}

/// Creates SQLite's file if it is missing, with mode 600, which SQLite's other files inherit. Errors are ignored:
/// SQLite reports them when it opens the file.
pub(super) fn make_file(path: &Path) {
    let _ = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
}

/// True if files can be created in a folder.
pub(super) fn is_writable(folder: &Path) -> bool {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(super::pool::QUERY_TIMEOUT)
        // Committed transactions survive a power failure.
        .synchronous(SqliteSynchronous::Full)
        // Statement journals: a container image has no temporary folder for them.
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging();
    if is_local(path) {
        options.journal_mode(SqliteJournalMode::Wal)
    } else {
        options.journal_mode(SqliteJournalMode::Delete)
    }
}

/// True if a write-ahead log works there: its index is shared memory, which network file systems lack
/// (<https://sqlite.org/wal.html>).
fn is_local(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let kind = |kind: FsWord| u64::try_from(kind).unwrap_or_default();
    statfs(folder).is_ok_and(|found| LOCAL_FILE_SYSTEMS.contains(&kind(found.f_type)))
}
