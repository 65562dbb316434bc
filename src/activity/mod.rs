//! Activity log: sign-ins, denials and administrative changes. The state of external access and the blocks are in
//! the same database.
//!
//! Every record is emitted to the log and to telemetry. With a database it is also written there: decisions
//! before they take effect, logins before they are answered, so that a killed gateway loses none.

mod bound;
mod connect;
mod database;
mod decisions;
mod denials;
mod instances;
mod log;
mod metrics;
mod pool;
mod record;
mod view;
mod wording;
mod writer;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use moka::sync::Cache;
use sqlx::migrate::MigrateError;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use self::{
    database::Database,
    denials::{DenialSlot, Denials},
    metrics::ActivityMetrics,
    writer::{Entry, Failing, Trouble, Writer},
};
pub(crate) use self::{
    decisions::{AccessState, Block, Blocked, Restriction},
    instances::Instance,
    record::{Actor, Author, EndReason, EventKind, Filter, Outcome, Record},
    view::BlockInForce,
};
use crate::{
    cli::exit::Failure,
    clock,
    config::{ActivityConfig, ActivityRequired},
    telemetry,
};

/// Maximum time that a caller waits for a record to be queued or written.
const ENQUEUE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Margin for the clock of the database, in milliseconds. The database protects records of the last day by its own
/// clock, which counts in seconds and may be behind this host's.
const SLACK: i64 = 60_000;

/// Repeated denials of one caller that are recorded one by one.
const MAX_REPETITIONS: u32 = 20;
/// Time without a repetition after which a caller's denials are recorded again.
const REPETITION_WINDOW: Duration = Duration::from_mins(1);
/// Callers whose repetitions are counted; the least active are evicted.
const MAX_REPEATING_CALLERS: u64 = 10_000;

/// Failures of the database. None of them means "not found".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivityError {
    #[error("DATABASE_URL is not set")]
    NoDatabase,
    #[error("database error")]
    Database(#[from] sqlx::Error),
    /// SQLite's file cannot be opened or written.
    #[error("database file {} cannot be used: the gateway's user needs write access to the file and its folder (DATABASE_URL)", .0.display())]
    Unusable(PathBuf, #[source] sqlx::Error),
    #[error(
        "database file {} does not exist: start the gateway or run `migrate` to create it, or correct DATABASE_URL", .0.display()
    )]
    Missing(PathBuf),
    #[error("the database migration failed")]
    Migration(#[source] MigrateError),
    #[error(
        "the database schema is not up to date: run `simplechat-gateway migrate`, or set GATEWAY_MIGRATE=auto"
    )]
    NotMigrated,
    #[error(
        "a later version of the gateway migrated the database: use that version, or restore a backup"
    )]
    TooNew,
    #[error("database file {}: the disk is full (DATABASE_URL)", .0.display())]
    DiskFull(PathBuf, #[source] sqlx::Error),
    #[error("database file {}: reading or writing the disk failed (DATABASE_URL)", .0.display())]
    Disk(PathBuf, #[source] sqlx::Error),
    /// Error reported by PostgreSQL.
    #[error("PostgreSQL: {message} ({code}){advice}")]
    Server {
        /// PostgreSQL's message.
        message: String,
        /// SQLSTATE: five characters.
        code: String,
        /// Empty, or advice that begins with a semicolon.
        advice: &'static str,
    },
    #[error("PostgreSQL at {0} cannot be reached (DATABASE_URL)")]
    Away(String, #[source] Option<Box<ActivityError>>),
    #[error("no database connection became available in time")]
    NoConnection,
    #[error("the database did not respond in time: the operation may or may not have been applied")]
    TimedOut,
    #[error("the activity log is over capacity")]
    Behind,
    #[error("the operation was interrupted")]
    Interrupted,
}

impl From<MigrateError> for ActivityError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(_) => Self::TooNew,
            error => Self::Migration(error),
        }
    }
}

impl ActivityError {
    /// Exit code and message of a program that ends with this error.
    pub(crate) fn into_failure(self) -> Failure {
        let chain = telemetry::chain(&self);
        match self {
            Self::Unusable(..) | Self::Missing(_) => Failure::Misconfigured(chain),
            _ => Failure::Unavailable(chain),
        }
    }

    /// True if the database may not be the gateway's, or has another version's schema.
    pub(crate) fn is_of_the_settings(&self) -> bool {
        matches!(self, Self::NoDatabase | Self::NotMigrated | Self::TooNew | Self::Missing(_))
    }

    /// True if a retry cannot succeed: the settings, or the state of the database, are wrong.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::NoDatabase
            | Self::NotMigrated
            | Self::TooNew
            | Self::Unusable(..)
            | Self::Missing(_) => true,
            Self::Migration(error) => !matches!(error, MigrateError::Execute(_)),
            Self::Database(_)
            | Self::DiskFull(..)
            | Self::Disk(..)
            | Self::Server { .. }
            | Self::Away(..)
            | Self::NoConnection
            | Self::TimedOut
            | Self::Behind
            | Self::Interrupted => false,
        }
    }
}

/// Activity log, and the state of external access, blocks and instances in the same database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    required: ActivityRequired,
    /// Repetitions by caller and kind of denial.
    repeated: Cache<String, u32>,
    denials: Denials,
    written: Option<LogWriter>,
}

/// The database, and the queue of the writer.
#[derive(Debug)]
struct LogWriter {
    database: Database,
    entries: mpsc::Sender<Entry>,
    metrics: ActivityMetrics,
    trouble: Trouble,
    /// Stops the writer: receives the flush timeout; the task ends after the flush.
    end: Mutex<Option<(oneshot::Sender<Duration>, JoinHandle<()>)>>,
}

impl LogWriter {
    fn not_written(&self, count: usize) {
        self.metrics.not_written(count);
        tracing::error!(count, "activity records were not written: the database is unavailable");
    }
}

/// Reserved place in the queue for one record.
#[derive(Debug)]
pub(crate) struct Slot {
    activity: Activity,
    /// `None`: there is no database, or the queue is full and records are not required.
    permit: Option<mpsc::OwnedPermit<Entry>>,
}

impl Activity {
    /// Opens the log for a gateway and creates SQLite's file where it is missing. Does not wait; the calling runtime
    /// runs the database operations.
    pub(crate) fn open(config: &ActivityConfig) -> Self {
        let activity = Self::open_existing(config);
        if let Ok(database) = activity.database() {
            database.make_file();
        }
        activity
    }

    /// Opens the log for a command: creates no file, so that a typing error in `DATABASE_URL` creates no database.
    pub(crate) fn open_existing(config: &ActivityConfig) -> Self {
        let written = config.database.as_ref().map(|config| {
            let database = Database::new(config);
            let trouble = Trouble::default();
            let metrics = ActivityMetrics::new();
            let (writer, entries) =
                Writer::new(database.clone(), metrics.clone(), Arc::clone(&trouble));
            let queue = entries.downgrade();
            ActivityMetrics::watch(move || {
                queue.upgrade().map(|entries| entries.max_capacity() - entries.capacity())
            });
            let (end, stop) = oneshot::channel();
            let writing = tokio::spawn(writer.run(stop));
            LogWriter { database, entries, metrics, trouble, end: Mutex::new(Some((end, writing))) }
        });
        let repeated = Cache::builder()
            .max_capacity(MAX_REPEATING_CALLERS)
            .time_to_live(REPETITION_WINDOW)
            .build();
        let denials = Denials::new();
        let inner = Arc::new(Inner { required: config.required, repeated, denials, written });
        tokio::spawn(count_loop(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// True if records are written to a database, not only emitted.
    pub(crate) fn has_database(&self) -> bool {
        self.0.written.is_some()
    }

    /// Returns [`ActivityError::NoDatabase`] without a database.
    pub(crate) fn needs_database(&self) -> Result<(), ActivityError> {
        self.database().map(drop)
    }

    fn database(&self) -> Result<&Database, ActivityError> {
        self.0.written.as_ref().map(|written| &written.database).ok_or(ActivityError::NoDatabase)
    }

    /// Reserves a place for the record of an action before the action. Waits while the queue is full.
    ///
    /// # Errors
    /// When the action must not take place because it could not be recorded (`GATEWAY_ACTIVITY_REQUIRED`).
    pub(crate) async fn reserve(&self) -> Result<Slot, ActivityError> {
        let slot = |permit| Slot { activity: self.clone(), permit };
        let Some(written) = &self.0.written else { return Ok(slot(None)) };
        if self.0.required == ActivityRequired::All && written.trouble.load().is_some() {
            return Err(ActivityError::Behind);
        }
        match timeout(ENQUEUE_TIMEOUT, written.entries.clone().reserve_owned()).await {
            Ok(Ok(permit)) => Ok(slot(Some(permit))),
            Ok(Err(_)) | Err(_) if self.0.required == ActivityRequired::None => {
                written.not_written(1);
                Ok(slot(None))
            }
            Ok(Err(_)) | Err(_) => Err(ActivityError::Behind),
        }
    }

    /// Writes and emits the records of a decision before it takes effect. Without a database they are only emitted;
    /// with `GATEWAY_ACTIVITY_REQUIRED=none` also when writing them fails.
    ///
    /// # Errors
    /// When the records could not be written.
    pub(crate) async fn decided(&self, records: Vec<Record>) -> Result<(), ActivityError> {
        if let Some(written) = &self.0.written {
            match log::add(&written.database, records.clone()).await {
                Ok(()) => {}
                Err(_) if self.0.required == ActivityRequired::None => {
                    written.not_written(records.len());
                }
                Err(error) => return Err(error),
            }
        }
        records.iter().for_each(Record::emit);
        Ok(())
    }

    /// Emits and queues the record of an event that is already past. Waits for a place in the queue, not for the
    /// database.
    pub(crate) async fn happened(&self, record: Record) {
        record.emit();
        let Some(written) = &self.0.written else { return };
        let entry = Entry { record, written: None, _place: None };
        let taken = timeout(ENQUEUE_TIMEOUT, written.entries.send(entry)).await;
        if !matches!(taken, Ok(Ok(()))) {
            written.not_written(1);
        }
    }

    /// Queues the record of a denial. Anonymous callers can cause any number of them, so denials beyond a rate for all
    /// callers together, or beyond their share of the queue, are only counted. Never waits.
    pub(crate) fn denied(&self, record: Record) {
        if let Some(place) = self.0.denials.admit(&record)
            && let Some(record) = self.enqueue_denial(record, place)
        {
            self.0.denials.count(&record);
        }
    }

    /// Queues the record of a denial. Returns the record when the queue is full.
    fn enqueue_denial(&self, record: Record, place: DenialSlot) -> Option<Record> {
        let Some(written) = &self.0.written else {
            record.emit();
            return None;
        };
        let Ok(permit) = written.entries.try_reserve() else { return Some(record) };
        record.emit();
        permit.send(Entry { record, written: None, _place: Some(place) });
        None
    }

    fn enqueue_counted(&self) {
        for (counted, place) in self.0.denials.take_counted() {
            if self.enqueue_denial(counted.record(), place).is_some() {
                self.0.denials.put_back(counted);
            }
        }
    }

    /// [`Self::denied`] for denials that an authenticated caller can cause any number of times: records the first few
    /// of one caller (`whose`), until a minute passes without another.
    pub(crate) fn denied_again(&self, whose: String, record: Record) {
        let times = self.0.repeated.entry(whose);
        let times = times.and_upsert_with(|times| times.map_or(1, |times| times.into_value() + 1));
        if times.into_value() <= MAX_REPETITIONS {
            self.denied(record);
        }
    }

    /// Queues records that were emitted before. False: the queue is full, and not all of them are in it.
    pub(crate) async fn wait_for(&self, records: Vec<Record>) -> bool {
        let Some(written) = &self.0.written else { return true };
        let count = records.len();
        for (at, record) in records.into_iter().enumerate() {
            let entry = Entry { record, written: None, _place: None };
            if !matches!(timeout(ENQUEUE_TIMEOUT, written.entries.send(entry)).await, Ok(Ok(()))) {
                // The others would wait for as long.
                written.not_written(count - at);
                return false;
            }
        }
        true
    }

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
    pub(crate) async fn hold_to(&self, max: u64) -> Result<u64, ActivityError> {
        bound::hold(self.database()?, i64::try_from(max).unwrap_or(i64::MAX)).await
    }

    /// Error of the writer's last attempt, if it failed.
    pub(crate) fn trouble(&self) -> Option<Arc<String>> {
        self.failing().map(|failing| Arc::clone(&failing.why))
    }

    /// Time since which the writer's attempts fail.
    pub(crate) fn failing_for(&self) -> Option<Duration> {
        self.failing().map(|failing| failing.since.elapsed())
    }

    fn failing(&self) -> Option<Arc<Failing>> {
        self.0.written.as_ref()?.trouble.load_full()
    }

    /// Stops the writer after it has written the queue, within `flush_timeout`. Later records are only emitted.
    pub(crate) async fn end(&self, flush_timeout: Duration) {
        self.enqueue_counted();
        let Some(written) = &self.0.written else { return };
        let end = written.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((end, writing)) = end {
            let _ = end.send(flush_timeout);
            let _ = writing.await;
        }
    }
}

/// Records counted denials every [`denials::INTERVAL`], until the log is dropped.
async fn count_loop(activity: Weak<Inner>) {
    loop {
        sleep(denials::INTERVAL).await;
        let Some(inner) = activity.upgrade() else { return };
        Activity(inner).enqueue_counted();
    }
}

/// Emits the records of a decision. False: nothing was decided.
fn emit_all(decided: Option<Vec<Record>>) -> bool {
    let is_news = decided.is_some();
    decided.into_iter().flatten().for_each(|record| record.emit());
    is_news
}

impl Slot {
    /// Writes the record of the action. On `Ok` it is written or, where the database is unavailable and not required
    /// for this action, queued.
    ///
    /// # Errors
    /// When the record is required and was not written in time. The caller must undo the action.
    pub(crate) async fn write(self, record: Record) -> Result<(), ActivityError> {
        record.emit();
        let Some(permit) = self.permit else { return Ok(()) };
        let (chain, written) = oneshot::channel();
        permit.send(Entry { record, written: Some(chain), _place: None });
        let Inner { required, .. } = &*self.activity.0;
        match required {
            ActivityRequired::None => Ok(()),
            ActivityRequired::Decisions if self.activity.trouble().is_some() => Ok(()),
            _ => {
                let is_written = matches!(timeout(ENQUEUE_TIMEOUT, written).await, Ok(Ok(())));
                if is_written || *required == ActivityRequired::Decisions {
                    Ok(())
                } else {
                    Err(ActivityError::TimedOut)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, path::Path};

    use tempfile::TempDir;

    use super::*;
    use crate::config::{DatabaseConfig, DatabaseTarget};

    fn config(path: &Path) -> ActivityConfig {
        let target = DatabaseTarget::Sqlite(path.to_owned());
        ActivityConfig {
            database: Some(DatabaseConfig { target, migrates: true }),
            retention: Duration::from_hours(24),
            max_size: 1 << 30,
            required: ActivityRequired::Decisions,
        }
    }

    fn open() -> (Activity, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Activity::open(&config(&folder.path().join("gateway.db"))), folder)
    }

    fn ada() -> Author {
        let text = |text: &str| Some(text.to_owned());
        let actor = Actor { oid: text("oid-a"), name: text("Ada 100%"), email: text("ada@x") };
        Author { actor, address: text("192.0.2.1"), request_id: text("r") }
    }

    #[tokio::test]
    async fn records_are_found_by_every_filter() {
        let (activity, folder) = open();
        let of = |kind| Record { client: Some("c".to_owned()), ..Record::new(kind).by(&ada()) };
        let mut records =
            vec![of(EventKind::Login), Record::refused(EventKind::LoginDenied, "why")];
        records.push(Record { text: Some("a\0b".to_owned()), ..Record::new(EventKind::Logout) });
        activity.decided(records.clone()).await.unwrap();
        activity.decided(records.clone()).await.unwrap();
        let everything = || Filter { limit: 10, ..Filter::default() };
        let found = activity.find(everything()).await.unwrap();
        assert_eq!(found.len(), 3, "each once");
        assert_eq!(found[0].text.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(found[2], records[0]);
        for (filter, kind) in [
            (Filter { kind: Some(EventKind::LoginDenied), ..everything() }, EventKind::LoginDenied),
            (Filter { person: Some("ADA 100%".to_owned()), ..everything() }, EventKind::Login),
            (Filter { client: Some("c".to_owned()), ..everything() }, EventKind::Login),
            (Filter { limit: 1, ..everything() }, EventKind::Logout),
        ] {
            let found = activity.find(filter.clone()).await.unwrap();
            assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), [kind], "{filter:?}");
        }
        let mode = std::fs::metadata(folder.path().join("gateway.db")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let before = Some((found[0].at, found[0].id.clone()));
        assert_eq!(activity.find(Filter { before, ..everything() }).await.unwrap(), found[1..]);
        let without_match = Filter { person: Some("100_".to_owned()), ..everything() };
        assert_eq!(activity.find(without_match).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_decision_and_its_record_are_written_together() {
        let (activity, folder) = open();
        let (state, blocks) = activity.read().await.unwrap();
        assert!(!state.enabled && state.since.is_none() && blocks.is_empty());
        assert!(activity.enable("ids".to_owned(), ada()).await.unwrap());
        assert!(!activity.enable("ids".to_owned(), ada()).await.unwrap(), "on already");
        let blocked = Blocked::Client("c".to_owned());
        let until = clock::millis() + 60_000;
        let earlier = Restriction::caller(blocked.clone(), until, &ada());
        tokio::time::sleep(Duration::from_millis(2)).await;
        let later = Restriction::caller(blocked.clone(), until + 1, &ada());
        assert!(activity.restrict(&later).await.unwrap());
        assert!(activity.restrict(&earlier).await.unwrap(), "recorded, and no longer in force");
        assert!(!activity.restrict(&later).await.unwrap(), "each is recorded once");

        let again = Activity::open(&config(&folder.path().join("gateway.db")));
        let (state, blocks) = again.read().await.unwrap();
        assert!(state.enabled && state.since.is_some() && state.by == ada().actor);
        assert_eq!(
            blocks.iter().map(|one| (one.until, &one.blocked)).collect::<Vec<_>>(),
            [(until + 1, &blocked)]
        );
        assert!(again.unblock(blocked.clone(), ada()).await.unwrap());
        assert!(!again.unblock(blocked, ada()).await.unwrap());
        let disabled = Restriction::access(&ada());
        let disabled = Restriction::from_text(&disabled.to_text()).unwrap();
        assert!(again.restrict(&disabled).await.unwrap());
        assert!(!again.restrict(&disabled).await.unwrap());
        let disabled_again = Restriction::access(&ada());
        assert!(!again.restrict(&disabled_again).await.unwrap(), "off already");
        assert!(again.restrict_late(&disabled_again).await.unwrap(), "recorded all the same");
        assert!(again.enable("ids".to_owned(), ada()).await.unwrap());
        assert!(!again.restrict_late(&disabled_again).await.unwrap(), "and once");
        assert!(again.read().await.unwrap().0.enabled, "enabling came later");
        let kinds: Vec<_> = again
            .find(Filter { limit: 10, ..Filter::default() })
            .await
            .unwrap()
            .into_iter()
            .map(|record| (record.kind, record.text))
            .collect();
        let accepted = (EventKind::ExposureAccepted, Some("ids".to_owned()));
        assert!(kinds.contains(&accepted));
        assert_eq!(kinds.len(), 9);
        assert_eq!(kinds[0].0, EventKind::ExternalAccessEnabled);
    }

    #[tokio::test]
    async fn pruning_removes_old_records_only() {
        let (activity, _folder) = open();
        let aged = |hours: i64| Record {
            at: clock::millis() - hours * 3_600_000,
            ..Record::new(if hours > 24 { EventKind::Login } else { EventKind::Logout })
        };
        activity.decided(vec![aged(25), aged(23)]).await.unwrap();
        assert!(
            activity.prune(Duration::from_hours(1)).await.is_err(),
            "the last day is protected"
        );
        assert_eq!(activity.prune(Duration::from_hours(24)).await.unwrap(), 1);
        let left = activity.find(Filter { limit: 10, ..Filter::default() }).await.unwrap();
        assert_eq!(left.iter().map(|one| one.kind).collect::<Vec<_>>(), [EventKind::Logout]);
    }

    #[tokio::test]
    async fn queued_records_are_written_at_shutdown() {
        let (activity, folder) = open();
        for _ in 0..1000 {
            activity.happened(Record::new(EventKind::SessionExpired)).await;
        }
        for _ in 0..700 {
            activity.denied(Record::refused(EventKind::LoginDenied, "expired"));
        }
        let slot = activity.reserve().await.unwrap();
        slot.write(Record::new(EventKind::Login)).await.unwrap();
        activity.happened(Record::new(EventKind::Logout)).await;
        activity.end(Duration::from_secs(5)).await;
        let again = Activity::open(&config(&folder.path().join("gateway.db")));
        let found = again.find(Filter { limit: 3000, ..Filter::default() }).await.unwrap();
        assert_eq!(found.len(), 1603, "600 denials, and one for the other 100");
        let counted: Vec<_> = found.iter().filter_map(|record| record.text.as_deref()).collect();
        assert!(counted.len() == 1 && counted[0].starts_with("100 more denied"), "{counted:?}");
    }

    #[tokio::test]
    async fn a_command_creates_no_database_at_a_mistyped_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mistyped.db");
        let error = Activity::open_existing(&config(&path)).read().await.unwrap_err();
        assert!(matches!(error, ActivityError::Missing(_)) && error.is_lasting(), "{error:?}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_error_of_an_unwritable_file_names_the_file() {
        let activity = Activity::open(&config(Path::new("/proc/none/gateway.db")));
        let error = activity.read().await.unwrap_err();
        assert!(error.is_lasting(), "{error:?}");
        assert!(error.to_string().contains("/proc/none/gateway.db"), "{error}");
    }
}
