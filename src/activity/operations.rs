//! Operations on the database: decisions, heartbeats, queries.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    Activity, bound, decisions, error::ActivityError, instances, log, queue::ENQUEUE_TIMEOUT,
};
use crate::{
    activity::{
        decisions::{AccessState, Block, Blocked, Restriction},
        instances::Instance,
        record::{Author, Filter, Record},
    },
    clock,
};

/// Margin for the clock of the database, in milliseconds. The database protects records of the last day by its own
/// clock, which counts in seconds and may be behind this host's.
const SLACK: i64 = 60_000;

/// Emits the records of a decision. False: nothing was decided.
fn emit_all(decided: Option<Vec<Record>>) -> bool {
    let is_news = decided.is_some();
    decided.into_iter().flatten().for_each(|record| record.emit());
    is_news
}

impl Activity {
    /// Finds records, newest first.
    pub(crate) async fn find(&self, filter: Filter) -> Result<Vec<Record>, ActivityError> {
        log::find(self.database()?, filter).await
    }

    /// Reads the state of external access and the blocks in force.
    pub(crate) async fn read(&self) -> Result<(AccessState, Vec<Block>), ActivityError> {
        decisions::read(self.database()?, clock::millis()).await
    }

    /// Enables external access; `accepted` is the exposure text that the author accepted. False: it was enabled
    /// already, and nothing is written.
    pub(crate) async fn enable(
        &self,
        accepted: String,
        author: Author,
    ) -> Result<bool, ActivityError> {
        decisions::enable(self.database()?, accepted, author).await.map(emit_all)
    }

    /// Writes a restriction with its records; repeated calls write it once. False: nothing changed. Emits no log line:
    /// the caller does.
    pub(crate) async fn restrict(&self, restriction: &Restriction) -> Result<bool, ActivityError> {
        decisions::restrict(self.database()?, restriction.clone(), false).await
    }

    /// [`Self::restrict`] for a decision that is in force already, without a record.
    pub(crate) async fn restrict_late(
        &self,
        restriction: &Restriction,
    ) -> Result<bool, ActivityError> {
        decisions::restrict(self.database()?, restriction.clone(), true).await
    }

    /// [`Self::restrict`] within [`ENQUEUE_TIMEOUT`].
    pub(crate) async fn restrict_in_time(
        &self,
        restriction: &Restriction,
    ) -> Result<bool, ActivityError> {
        timeout(ENQUEUE_TIMEOUT, self.restrict(restriction))
            .await
            .unwrap_or(Err(ActivityError::TimedOut))
    }

    /// Unblocks a caller. False: the caller was not blocked.
    pub(crate) async fn unblock(
        &self,
        blocked: Blocked,
        author: Author,
    ) -> Result<bool, ActivityError> {
        decisions::unblock(self.database()?, blocked, author).await.map(emit_all)
    }

    /// Checks that records can be written; leaves no row.
    pub(crate) async fn try_writing(&self) -> Result<(), ActivityError> {
        instances::try_writing(self.database()?).await
    }

    /// Inserts or updates an instance's row.
    pub(crate) async fn heartbeat(&self, instance: Instance) -> Result<(), ActivityError> {
        instances::heartbeat(self.database()?, instance).await
    }

    /// Removes an instance's row.
    pub(crate) async fn deregister(&self, id: String) -> Result<(), ActivityError> {
        instances::deregister(self.database()?, id).await
    }

    /// Running instances.
    pub(crate) async fn instances(&self) -> Result<Vec<Instance>, ActivityError> {
        instances::all(self.database()?, clock::millis()).await
    }

    /// Removes records older than `retention`, and expired blocks. Returns the number of records.
    pub(crate) async fn prune(&self, retention: Duration) -> Result<u64, ActivityError> {
        let now = clock::millis();
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let database = self.database()?;
        decisions::prune(database, now).await?;
        log::prune(database, now.saturating_sub(retention).saturating_sub(SLACK)).await
    }

    /// Migrates the database to this version's schema.
    pub(crate) async fn migrate(&self) -> Result<(), ActivityError> {
        let database = self.database()?;
        database.make_file();
        database.migrate().await
    }

    /// Removes the oldest records, denials first and decisions last, when the log has more than `max` bytes. Returns
    /// the number of records.
    pub(crate) async fn shrink_to(&self, max: u64) -> Result<u64, ActivityError> {
        bound::shrink(self.database()?, i64::try_from(max).unwrap_or(i64::MAX)).await
    }
}
