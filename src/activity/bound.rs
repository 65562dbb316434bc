//! Maximum size of the log (`GATEWAY_ACTIVITY_MAX_SIZE`): removes the oldest records, denials first, decisions last.

use std::fmt::Write as _;

use sqlx::{Connection, PgConnection, SqliteConnection};

use super::{
    ActivityError,
    database::Database,
    pool::{PooledConnection, with_connection},
    record::{EventKind, Importance},
};
use crate::clock;

/// Records removed in one transaction, at most and at least.
const BATCH: (i64, i64) = (5000, 50);
/// Estimated size of a record in bytes, for the number of records to remove next. An overestimate: too few records
/// are removed rather than too many.
const RECORD_SIZE: i64 = 1024;
/// Index entries of one record in PostgreSQL, in bytes.
const INDEX_SIZE: i64 = 500;
/// Age below which the database protects decisions (24 h), plus a minute of clock skew; in milliseconds.
const PROTECTED: i64 = 86_400_000 + 60_000;

/// Removes the oldest records when the log is larger than `max` bytes, until it is a tenth smaller than that. Returns
/// the number of records.
pub(super) async fn shrink(database: &Database, max: i64) -> Result<u64, ActivityError> {
    let used = database.run_slowly(move |pooled| {
        Box::pin(
            async move { with_connection!(pooled, connection => connection.bytes_used(max).await) },
        )
    });
    if used.await? <= max {
        return Ok(0);
    }
    let goal = max - max / 10;
    let mut removed = 0;
    loop {
        match database.run_slowly(move |pooled| Box::pin(remove(pooled, goal))).await? {
            0 => return Ok(removed),
            count => removed += count,
        }
    }
}

/// Removes some of the least important records if more than `goal` bytes are in use. Returns the number.
///
/// The row of `pruning` is locked before the log is measured, so that instances do this one after the other.
async fn remove(pooled: &mut PooledConnection, goal: i64) -> Result<u64, sqlx::Error> {
    const SET: &str = "UPDATE pruning SET by_size = $1";
    let begin = pooled.begin();
    let until = clock::millis() - PROTECTED;
    with_connection!(pooled, connection => {
        let mut transaction = connection.begin_with(begin).await?;
        sqlx::query(SET).bind(true).execute(&mut *transaction).await?;
        let excess = transaction.bytes_used(goal).await? - goal;
        let batch = (excess / RECORD_SIZE).clamp(BATCH.1, BATCH.0);
        let mut removed = 0;
        for importance in Importance::ALL {
            if excess <= 0 || removed > 0 {
                break;
            }
            let mut query = sqlx::query(sqlx::AssertSqlSafe(oldest(importance))).bind(batch);
            if importance == Importance::Decision {
                query = query.bind(until);
            }
            removed = query.execute(&mut *transaction).await?.rows_affected();
        }
        sqlx::query(SET).bind(false).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(removed)
    })
}

/// Measurement of the log's size.
trait Measure {
    /// Bytes in use; exact only above `max`.
    async fn bytes_used(&mut self, max: i64) -> Result<i64, sqlx::Error>;
}

impl Measure for SqliteConnection {
    /// Pages in use.
    async fn bytes_used(&mut self, _max: i64) -> Result<i64, sqlx::Error> {
        const PAGES: &str = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        sqlx::query_scalar(PAGES).fetch_one(self).await
    }
}

impl Measure for PgConnection {
    /// Size of the files. Files do not shrink when rows are deleted, so above `max` it is the number of records times
    /// the mean size of the newest thousand.
    async fn bytes_used(&mut self, max: i64) -> Result<i64, sqlx::Error> {
        const FILES: &str = "SELECT pg_total_relation_size('activity')";
        const COUNT: &str = "SELECT count(*) FROM activity";
        const MEAN: &str = "SELECT coalesce(avg(pg_column_size(newest.*)), 0)::bigint FROM (SELECT * FROM activity ORDER BY at DESC, id DESC LIMIT 1000) AS newest";
        let files: i64 = sqlx::query_scalar(FILES).fetch_one(&mut *self).await?;
        if files <= max {
            return Ok(files);
        }
        let count: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut *self).await?;
        let mean: i64 = sqlx::query_scalar(MEAN).fetch_one(&mut *self).await?;
        Ok(count.saturating_mul(mean + INDEX_SIZE).min(files))
    }
}

/// Statement that removes the oldest $1 records of an importance; decisions only if older than $2. Each kind is
/// read through its own index.
fn oldest(importance: Importance) -> String {
    let until = if importance == Importance::Decision { " AND at < $2" } else { "" };
    let kinds = EventKind::ALL.into_iter().filter(|kind| kind.importance() == importance);
    let mut each = String::new();
    for (at, kind) in kinds.enumerate() {
        let union = if at == 0 { "" } else { " UNION ALL " };
        // Writing to a String cannot fail.
        let _ = write!(
            each,
            "{union}SELECT * FROM (SELECT id, at FROM activity WHERE kind = '{}'{until} ORDER BY at, id LIMIT $1) AS of_{at}",
            kind.name()
        );
    }
    format!(
        "DELETE FROM activity WHERE id IN (SELECT id FROM ({each}) AS oldest ORDER BY at, id LIMIT $1)"
    )
}
