//! Gateway instances that share a database.

use sqlx::{Connection, FromRow};

use super::{ActivityError, database::Database, pool::with_connection};

/// Time without a heartbeat after which an instance no longer counts as running, in milliseconds.
pub(crate) const STALE_AFTER: i64 = 15_000;

/// Running gateway.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct Instance {
    /// UUID, generated at startup.
    pub(crate) id: String,
    /// Host name.
    pub(crate) host: String,
    pub(crate) version: String,
    /// Unix milliseconds.
    pub(crate) started_at: i64,
    /// Last heartbeat, in Unix milliseconds.
    pub(crate) seen_at: i64,
    /// True if external access is enabled on this instance.
    pub(crate) is_on: bool,
}

/// Inserts or updates an instance's row, and removes rows without a heartbeat for a minute.
pub(super) async fn heartbeat(
    database: &Database,
    instance: Instance,
) -> Result<(), ActivityError> {
    const UPSERT: &str = "INSERT INTO instances (id, host, version, started_at, seen_at, is_on) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, is_on = excluded.is_on";
    const FORGET: &str = "DELETE FROM instances WHERE seen_at < $1";
    database
        .run(move |pooled| Box::pin(async move {
            with_connection!(pooled, connection => {
                sqlx::query(FORGET).bind(instance.seen_at - 4 * STALE_AFTER).execute(&mut **connection).await?;
                sqlx::query(UPSERT)
                    .bind(instance.id)
                    .bind(instance.host)
                    .bind(instance.version)
                    .bind(instance.started_at)
                    .bind(instance.seen_at)
                    .bind(instance.is_on)
                    .execute(&mut **connection)
                    .await
                    .map(drop)
            })
        }))
        .await
}

/// Inserts a row and rolls back, to check that the database is writable.
pub(super) async fn try_writing(database: &Database) -> Result<(), ActivityError> {
    const TRY: &str = "INSERT INTO instances (id, host, version, started_at, seen_at, is_on) VALUES ('', '', '', 0, 0, $1)";
    database
        .run(move |pooled| {
            Box::pin(async move {
                let begin = pooled.begin();
                with_connection!(pooled, connection => {
                    let mut transaction = connection.begin_with(begin).await?;
                    sqlx::query(TRY).bind(false).execute(&mut *transaction).await?;
                    transaction.rollback().await
                })
            })
        })
        .await
}

/// Removes an instance's row.
pub(super) async fn deregister(database: &Database, id: String) -> Result<(), ActivityError> {
    const GOES: &str = "DELETE FROM instances WHERE id = $1";
    database
        .run(move |pooled| Box::pin(async move {
            with_connection!(pooled, connection => sqlx::query(GOES).bind(id).execute(&mut **connection).await.map(drop))
        }))
        .await
}

/// Instances that run at a time (Unix milliseconds), the oldest first.
pub(super) async fn all(database: &Database, now: i64) -> Result<Vec<Instance>, ActivityError> {
    const ALL: &str = "SELECT id, host, version, started_at, seen_at, is_on FROM instances WHERE seen_at > $1 ORDER BY started_at, id";
    database
        .run(move |pooled| Box::pin(async move {
            with_connection!(pooled, connection => sqlx::query_as(ALL).bind(now - STALE_AFTER).fetch_all(&mut **connection).await)
        }))
        .await
}
