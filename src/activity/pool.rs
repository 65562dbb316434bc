//! Connection pool of either database, with a timeout for each operation.
//!
//! When an operation is dropped, sqlx pings the server before it returns the connection to the pool, without a
//! timeout. A server that does not respond would hold that connection forever, so a connection whose operation
//! timed out is closed here without a message to the server.
//!
//! A connection on which a statement failed is closed as well, unless the statement itself was at fault
//! ([`is_statement_error`]).

use std::{pin::Pin, time::Duration};

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, pool::PoolConnection, postgres::PgDatabaseError};
use tokio::time::timeout;

use super::ActivityError;

/// Timeout of an operation, and of acquiring a connection.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout of an operation that reads or removes many rows.
pub(super) const LONG_QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// sqlx's pool of either database.
#[derive(Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Connection from the pool.
pub(super) enum PooledConnection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// Operation on a connection.
pub(super) type BoxFuture<'c, T> =
    Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;

/// Runs the same expression on either kind of connection.
macro_rules! with_connection {
    ($connection:expr, $name:ident => $work:expr) => {
        match $connection {
            $crate::activity::pool::PooledConnection::Sqlite($name) => $work,
            $crate::activity::pool::PooledConnection::Postgres($name) => $work,
        }
    };
}
pub(super) use with_connection;

impl Pool {
    /// Runs an operation; drops it and closes its connection after `query_timeout`.
    pub(super) async fn work<T>(
        &self,
        query_timeout: Duration,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T>,
    ) -> Result<T, ActivityError> {
        let mut connection = self.acquire_connection().await?;
        let Ok(done) = timeout(query_timeout, work(&mut connection)).await else {
            connection.close();
            return Err(ActivityError::TimedOut);
        };
        if done.as_ref().err().is_none_or(is_statement_error) {
            connection.return_to_pool_in_time().await;
        } else {
            connection.close();
        }
        done.map_err(ActivityError::from)
    }

    /// Acquires a connection. The pool's own acquire timeout is [`QUERY_TIMEOUT`].
    async fn acquire_connection(&self) -> Result<PooledConnection, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => pool.acquire().await.map(PooledConnection::Sqlite),
            Self::Postgres(pool) => pool.acquire().await.map(PooledConnection::Postgres),
        }
    }
}

impl PooledConnection {
    /// Statement that begins a transaction that will write.
    pub(super) fn begin(&self) -> &'static str {
        match self {
            // BEGIN would let two transactions read first and then block one another.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        }
    }

    /// Closes the connection without a message to the server.
    fn close(self) {
        match self {
            Self::Sqlite(connection) => drop(connection.detach()),
            Self::Postgres(connection) => drop(connection.detach()),
        }
    }

    /// Returns the connection to the pool, within [`QUERY_TIMEOUT`].
    async fn return_to_pool_in_time(mut self) {
        let given = match &mut self {
            Self::Sqlite(_) => return,
            Self::Postgres(connection) => connection.return_to_pool(),
        };
        let _ = timeout(QUERY_TIMEOUT, given).await;
    }
}

/// True for errors that leave the connection usable: wrong values or missing rights of one statement. Any other error
/// may have changed the connection's state.
///
/// `SQLite` rolls a transaction back by itself on FULL, IOERR, NOMEM, BUSY and INTERRUPT
/// (<https://sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction"); sqlx's own ROLLBACK
/// then fails, its transaction depth never falls, and no later transaction begins on that connection.
/// PostgreSQL's sessions can stay read-only (25006) after the server takes writes again.
fn is_statement_error(error: &sqlx::Error) -> bool {
    /// `SQLITE_CONSTRAINT`, the lower eight bits of its extended codes.
    const CONSTRAINT: u32 = 19;
    /// Classes of SQLSTATE: data exception, integrity constraint violation, syntax error or access rule
    /// violation, PL/pgSQL error.
    const CLASSES: [&str; 4] = ["22", "23", "42", "P0"];
    let Some(error) = error.as_database_error() else {
        return matches!(error, sqlx::Error::RowNotFound);
    };
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        CLASSES.iter().any(|class| code.starts_with(class))
    } else {
        code.parse::<u32>().is_ok_and(|code| code & 0xff == CONSTRAINT)
    }
}

/// Drops an operation that has not ended within the timeout.
pub(super) async fn in_time<T, E: Into<ActivityError>>(
    query_timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ActivityError> {
    match timeout(query_timeout, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(ActivityError::TimedOut),
    }
}
