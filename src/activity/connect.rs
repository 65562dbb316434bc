//! How either database is opened.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use rustix::fs::{Access, FsWord, access, statfs};
use sqlx::{
    ConnectOptions, Executor,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::pool::Pool;
use crate::config::DatabaseTarget;

/// File systems whose memory is not shared between machines, by `f_type` (`statfs(2)`): where SQLite
/// can keep a write-ahead log. overlayfs, ext4, XFS, Btrfs, tmpfs, ZFS, F2FS.
const LOCAL: [u64; 7] =
    [0x794c_7630, 0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0xf2f5_2010];

/// A pool whose work has `patience`; waits for nothing.
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

/// The server gives up as well: what nobody waits for any more must hold no lock. Statements, since a pooler
/// before the server may take no options at the start.
fn limits(query_timeout: Duration) -> String {
    let (max, lock) = (query_timeout.as_millis() + 500, query_timeout.as_millis().min(10_000));
    format!(
        "SET statement_timeout = {max}; SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = {max}"
    )
}

/// Without a pool, and without limits: for bringing it up to date, and to learn why nobody connects.
pub(super) fn postgres(target: &DatabaseTarget) -> Option<PgConnectOptions> {
    match target {
        DatabaseTarget::Postgres(options) => Some((**options).clone()),
        DatabaseTarget::Sqlite(_) => None,
    }
}

/// Makes SQLite's file where there is none: nobody else's to read, and SQLite's other files take after it.
/// That it cannot be made SQLite will tell.
pub(super) fn make_file(path: &Path) {
    let _ = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
}

/// Whether a file could be made in a folder.
pub(super) fn is_writable(folder: &Path) -> bool {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

fn sqlite(path: &Path) -> SqliteConnectOptions {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(super::pool::QUERY_TIMEOUT)
        // What is confirmed survives the machine.
        .synchronous(SqliteSynchronous::Full)
        // What it may need to undo of a long statement: an image has no folder for that.
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging();
    if is_private_memory(path) {
        options.journal_mode(SqliteJournalMode::Wal)
    } else {
        options.journal_mode(SqliteJournalMode::Delete)
    }
}

/// Whether a write-ahead log works there: its index is shared memory, which a network's file system does
/// not have (<https://sqlite.org/wal.html>).
fn is_private_memory(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let kind = |kind: FsWord| u64::try_from(kind).unwrap_or_default();
    statfs(folder).is_ok_and(|found| LOCAL.contains(&kind(found.f_type)))
}
