//! The log's bound (`GATEWAY_ACTIVITY_MAX_SIZE`): beyond it the oldest records go, denials first, decisions last.

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
/// A record's size in bytes, as a guess for the number to remove next. Less is removed than needed rather than
/// more.
const OF_RECORD: i64 = 1024;
/// Index entries of one record in PostgreSQL, in bytes.
const OF_INDEXES: i64 = 500;
/// The database's own protection of decisions, and a minute for clocks that differ; in milliseconds.
const PROTECTED: i64 = 86_400_000 + 60_000;

/// Removes the oldest records until the log is a tenth smaller than `most` bytes, if it is larger; how many.
pub(super) async fn hold(database: &Database, max: i64) -> Result<u64, ActivityError> {
    let used = database.run_slowly(move |held| {
        Box::pin(async move { with_connection!(held, connection => connection.consume(max).await) })
    });
    if used.await? <= max {
        return Ok(0);
    }
    let goal = max - max / 10;
    let mut removed = 0;
    loop {
        match database.run_slowly(move |held| Box::pin(remove(held, goal))).await? {
            0 => return Ok(removed),
            count => removed += count,
        }
    }
}

/// Removes some of the least important records if more than `goal` bytes are in use; how many.
///
/// Instances take turns: the row of `pruning` is locked before anything is measured.
async fn remove(held: &mut PooledConnection, goal: i64) -> Result<u64, sqlx::Error> {
    const SET: &str = "UPDATE pruning SET by_size = $1";
    let begin = held.begin();
    let until = clock::millis() - PROTECTED;
    with_connection!(held, connection => {
        let mut transaction = connection.begin_with(begin).await?;
        sqlx::query(SET).bind(true).execute(&mut *transaction).await?;
        let excess = transaction.consume(goal).await? - goal;
        let batch = (excess / OF_RECORD).clamp(BATCH.1, BATCH.0);
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

/// A connection by which the log is measured.
trait Measure {
    /// Bytes in use. Where those are fewer than `most`, any number below it.
    async fn consume(&mut self, max: i64) -> Result<i64, sqlx::Error>;
}

impl Measure for SqliteConnection {
    /// Pages that hold something.
    async fn consume(&mut self, _max: i64) -> Result<i64, sqlx::Error> {
        const PAGES: &str = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        sqlx::query_scalar(PAGES).fetch_one(self).await
    }
}

impl Measure for PgConnection {
    /// The files, unless they are larger than `most`: they do not shrink by themselves. Then the number of records
    /// times the mean size of the newest thousand.
    async fn consume(&mut self, max: i64) -> Result<i64, sqlx::Error> {
        const FILES: &str = "SELECT pg_total_relation_size('activity')";
        const COUNT: &str = "SELECT count(*) FROM activity";
        const MEAN: &str = "SELECT coalesce(avg(pg_column_size(newest.*)), 0)::bigint FROM (SELECT * FROM activity ORDER BY at DESC, id DESC LIMIT 1000) AS newest";
        let files: i64 = sqlx::query_scalar(FILES).fetch_one(&mut *self).await?;
        if files <= max {
            return Ok(files);
        }
        let count: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut *self).await?;
        let mean: i64 = sqlx::query_scalar(MEAN).fetch_one(&mut *self).await?;
        Ok(count.saturating_mul(mean + OF_INDEXES).min(files))
    }
}

/// The statement that removes the oldest $1 records of an importance; decisions only where older than $2. Each
/// kind is read by its own index.
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
