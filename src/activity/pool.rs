//! Connections to either database, and work that is done on one of them in time.
//!
//! sqlx gives a connection whose work was dropped back to its pool by asking the server first, however long
//! that takes: one that fell silent would be lost to the pool for good. So whoever ran out of time has
//! its connection closed here, without a word to the server.
//!
//! A connection on which a statement failed is closed as well, unless the statement itself was at fault
//! ([`is_of_the_statement`]).

use std::{pin::Pin, time::Duration};

use sqlx::{PgPool, Postgres, Sqlite, SqlitePool, pool::PoolConnection, postgres::PgDatabaseError};
use tokio::time::timeout;

use super::ActivityError;

/// For one piece of work, and for getting a connection.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// For what reads or removes a lot.
pub(super) const LONG_QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections to one kind or the other.
#[derive(Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// One of them.
pub(super) enum PooledConnection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// BoxFuture on it.
pub(super) type BoxFuture<'c, T> =
    Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;

/// The same work on either kind of connection.
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
    /// Does a piece of work in time.
    pub(super) async fn work<T>(
        &self,
        query_timeout: Duration,
        work: impl for<'c> FnOnce(&'c mut PooledConnection) -> BoxFuture<'c, T>,
    ) -> Result<T, ActivityError> {
        let mut connection = self.hold().await?;
        let Ok(done) = timeout(query_timeout, work(&mut connection)).await else {
            connection.close();
            return Err(ActivityError::TimedOut);
        };
        if done.as_ref().err().is_none_or(is_of_the_statement) {
            connection.give_back().await;
        } else {
            connection.close();
        }
        done.map_err(ActivityError::from)
    }

    /// The library's own time-out is [`QUERY_TIMEOUT`].
    async fn hold(&self) -> Result<PooledConnection, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => pool.acquire().await.map(PooledConnection::Sqlite),
            Self::Postgres(pool) => pool.acquire().await.map(PooledConnection::Postgres),
        }
    }
}

impl PooledConnection {
    /// Begins a transaction that will write.
    pub(super) fn begin(&self) -> &'static str {
        match self {
            // Else two that have read wait for one another.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        }
    }

    /// Closes it at once.
    fn close(self) {
        match self {
            Self::Sqlite(connection) => drop(connection.detach()),
            Self::Postgres(connection) => drop(connection.detach()),
        }
    }

    /// What the library does when one is dropped, in time.
    async fn give_back(mut self) {
        let given = match &mut self {
            Self::Sqlite(_) => return,
            Self::Postgres(connection) => connection.return_to_pool(),
        };
        let _ = timeout(QUERY_TIMEOUT, given).await;
    }
}

/// Errors that leave their connection usable: the values or the rights of one statement. Any other may have
/// changed the connection's state.
///
/// `SQLite` rolls a transaction back by itself on FULL, IOERR, NOMEM, BUSY and INTERRUPT
/// (<https://sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction"); sqlx's own ROLLBACK
/// then fails, its transaction depth never falls, and no later transaction begins on that connection.
/// PostgreSQL's sessions can stay read-only (25006) after the server takes writes again.
fn is_of_the_statement(error: &sqlx::Error) -> bool {
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

/// What has not ended by then is dropped.
pub(super) async fn in_time<T, E: Into<ActivityError>>(
    query_timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ActivityError> {
    match timeout(query_timeout, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(ActivityError::TimedOut),
    }
}
