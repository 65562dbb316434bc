//! Who came in, who was refused, who decided what; and the administrator's switch, which stands beside it
//! in the database.
//!
//! Everything is told in the log and by telemetry. With a database it is written down as well: decisions
//! before they take effect, logins before they are answered, so that a gateway that is killed loses none.

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

/// How long a caller may be kept waiting for a record to be written.
const ENQUEUE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The database keeps records for a day by its own clock, which counts in seconds and may be behind ours; in
/// milliseconds.
const SLACK: i64 = 60_000;

/// Records of what the same ones do again and again.
const FEW: u32 = 20;
/// How long they must be quiet before more are written.
const REPEATED: Duration = Duration::from_mins(1);
/// How many of them are remembered; the least busy give way.
const MAX_REPEATED: u64 = 10_000;

/// What can go wrong with the database. None of it means "nothing there".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActivityError {
    #[error("DATABASE_URL is not set")]
    NoDatabase,
    #[error("the database")]
    Database(#[from] sqlx::Error),
    /// SQLite's file.
    #[error("{} cannot be used: the gateway's user must be able to write it and its folder (DATABASE_URL)", .0.display())]
    Unusable(PathBuf, #[source] sqlx::Error),
    #[error(
        "{} does not exist: is it the gateway's own? A gateway makes it at its start, and so does `migrate` (DATABASE_URL)", .0.display()
    )]
    Missing(PathBuf),
    #[error("the database cannot be brought up to date")]
    Migration(#[source] MigrateError),
    #[error(
        "the database is not up to date: run `simplechat-gateway migrate`, or set GATEWAY_MIGRATE=auto"
    )]
    NotMigrated,
    #[error(
        "the database was brought up to date by a later version of the gateway: use that, or restore a backup"
    )]
    TooNew,
    #[error("{}: the disk is full (DATABASE_URL)", .0.display())]
    DiskFull(PathBuf, #[source] sqlx::Error),
    #[error("{}: the disk failed to read or write (DATABASE_URL)", .0.display())]
    Disk(PathBuf, #[source] sqlx::Error),
    /// PostgreSQL's own answer: its message, its SQLSTATE, what to do.
    #[error("PostgreSQL: {message} ({code}){advice}")]
    Server {
        /// For people.
        message: String,
        /// SQLSTATE: five characters.
        code: String,
        /// Begins with a semicolon, or is empty.
        advice: &'static str,
    },
    #[error("PostgreSQL at {0} cannot be reached (DATABASE_URL)")]
    Away(String, #[source] Option<Box<ActivityError>>),
    #[error("no connection to the database was free in time")]
    NoConnection,
    #[error("the database did not answer in time: whether it was done is not known")]
    TimedOut,
    #[error("the activity log cannot keep up")]
    Behind,
    #[error("the work was interrupted")]
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
    /// Why the gateway does not start like this.
    pub(crate) fn into_failure(self) -> Failure {
        let chain = telemetry::chain(&self);
        match self {
            Self::Unusable(..) | Self::Missing(_) => Failure::Misconfigured(chain),
            _ => Failure::Unavailable(chain),
        }
    }

    /// Whether the database may be none of the gateway's, or not of this version.
    pub(crate) fn is_of_the_settings(&self) -> bool {
        matches!(self, Self::NoDatabase | Self::NotMigrated | Self::TooNew | Self::Missing(_))
    }

    /// Whether it will not get better by waiting: the settings, or the database's state, are wrong.
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

/// The activity log and what stands beside it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    required: ActivityRequired,
    /// How often something was done by the same ones.
    repeated: Cache<String, u32>,
    denials: Denials,
    written: Option<LogWriter>,
}

/// Where there is a database.
#[derive(Debug)]
struct LogWriter {
    database: Database,
    entries: mpsc::Sender<Entry>,
    metrics: ActivityMetrics,
    trouble: Trouble,
    /// Ends the writer.
    end: Mutex<Option<(oneshot::Sender<Duration>, JoinHandle<()>)>>,
}

impl LogWriter {
    fn not_written(&self, count: usize) {
        self.metrics.not_written(count);
        tracing::error!(count, "activity records are not written: the database is away");
    }
}

/// ConnectionLimit for one record.
#[derive(Debug)]
pub(crate) struct Slot {
    activity: Activity,
    /// `None`: there is no database, or no room in one that is not required.
    permit: Option<mpsc::OwnedPermit<Entry>>,
}

impl Activity {
    /// For a gateway: SQLite's file is made where there is none. Waits for nothing; the runtime it is called
    /// in does the database's work.
    pub(crate) fn open(config: &ActivityConfig) -> Self {
        let activity = Self::open_existing(config);
        if let Ok(database) = activity.database() {
            database.make_file();
        }
        activity
    }

    /// For a command: a slip in `DATABASE_URL` makes no other database.
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
        let repeated = Cache::builder().max_capacity(MAX_REPEATED).time_to_live(REPEATED).build();
        let denials = Denials::new();
        let inner = Arc::new(Inner { required: config.required, repeated, denials, written });
        tokio::spawn(count_loop(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Whether records are written down, and not told alone.
    pub(crate) fn has_database(&self) -> bool {
        self.0.written.is_some()
    }

    /// An error where there is no database.
    pub(crate) fn needs_database(&self) -> Result<(), ActivityError> {
        self.database().map(drop)
    }

    fn database(&self) -> Result<&Database, ActivityError> {
        self.0.written.as_ref().map(|written| &written.database).ok_or(ActivityError::NoDatabase)
    }

    /// ConnectionLimit for a record of something that is about to be done. Waits while the writer is behind.
    ///
    /// # Errors
    /// When it must not be done because no record could be written (`GATEWAY_ACTIVITY_REQUIRED`).
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

    /// Writes records of a decision; on `Ok` they are written, and it may take effect. Without a database
    /// they are told alone, and with `GATEWAY_ACTIVITY_REQUIRED=none` also where they cannot be written.
    ///
    /// # Errors
    /// When they could not be written.
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

    /// Takes in a record of something that happened whether it is written or not: waits for room, and for
    /// nothing else.
    pub(crate) async fn happened(&self, record: Record) {
        record.emit();
        let Some(written) = &self.0.written else { return };
        let entry = Entry { record, written: None, _place: None };
        let taken = timeout(ENQUEUE_TIMEOUT, written.entries.send(entry)).await;
        if !matches!(taken, Ok(Ok(()))) {
            written.not_written(1);
        }
    }

    /// Takes in the record of a denial, which strangers can cause as often as they like. Beyond a rate for all
    /// callers together, and where its share of the queue is taken, it is counted instead. Never waits.
    pub(crate) fn denied(&self, record: Record) {
        if let Some(place) = self.0.denials.admit(&record)
            && let Some(record) = self.take_in(record, place)
        {
            self.0.denials.count(&record);
        }
    }

    /// Queues a denial's record. Returns it where the queue has no room.
    fn take_in(&self, record: Record, place: DenialSlot) -> Option<Record> {
        let Some(written) = &self.0.written else {
            record.emit();
            return None;
        };
        let Ok(room) = written.entries.try_reserve() else { return Some(record) };
        record.emit();
        room.send(Entry { record, written: None, _place: Some(place) });
        None
    }

    fn take_in_counted(&self) {
        for (counted, place) in self.0.denials.take_counted() {
            if self.take_in(counted.record(), place).is_some() {
                self.0.denials.put_back(counted);
            }
        }
    }

    /// [`Self::denied`] for what anybody who is signed in can have written as often as they like: of the same ones
    /// (`whose`) the first few, until they have been quiet for a minute.
    pub(crate) fn denied_again(&self, whose: String, record: Record) {
        let times = self.0.repeated.entry(whose);
        let times = times.and_upsert_with(|times| times.map_or(1, |times| times.into_value() + 1));
        if times.into_value() <= FEW {
            self.denied(record);
        }
    }

    /// Queues records whose log lines are written already. False: not all; the queue has no room.
    pub(crate) async fn wait_for(&self, records: Vec<Record>) -> bool {
        let Some(written) = &self.0.written else { return true };
        let count = records.len();
        for (at, record) in records.into_iter().enumerate() {
            let entry = Entry { record, written: None, _place: None };
            if !matches!(timeout(ENQUEUE_TIMEOUT, written.entries.send(entry)).await, Ok(Ok(()))) {
                // The others would wait as long.
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

    /// How the switch stands, and who is kept out now.
    pub(crate) async fn read(&self) -> Result<(AccessState, Vec<Block>), ActivityError> {
        decisions::read(self.database()?, clock::millis()).await
    }

    /// Lets machines in: `accepted` is the text that says what becomes public. False: they were already,
    /// and nothing is written.
    pub(crate) async fn enable(
        &self,
        accepted: String,
        author: Author,
    ) -> Result<bool, ActivityError> {
        decisions::enable(self.database()?, accepted, author).await.map(emit_all)
    }

    /// Writes a restriction with its records; repeated calls write it once. False: it changed nothing (any more).
    /// Emits no log line: the caller does.
    pub(crate) async fn restrict(&self, restriction: &Restriction) -> Result<bool, ActivityError> {
        decisions::restrict(self.database()?, restriction.clone(), false).await
    }

    /// The same for a decision that has been in force without its record.
    pub(crate) async fn restrict_late(
        &self,
        restriction: &Restriction,
    ) -> Result<bool, ActivityError> {
        decisions::restrict(self.database()?, restriction.clone(), true).await
    }

    /// The same within the time that a caller may wait.
    pub(crate) async fn restrict_in_time(
        &self,
        restriction: &Restriction,
    ) -> Result<bool, ActivityError> {
        timeout(ENQUEUE_TIMEOUT, self.restrict(restriction))
            .await
            .unwrap_or(Err(ActivityError::TimedOut))
    }

    /// Lets somebody in again. False: nobody kept them out.
    pub(crate) async fn unblock(
        &self,
        blocked: Blocked,
        author: Author,
    ) -> Result<bool, ActivityError> {
        decisions::unblock(self.database()?, blocked, author).await.map(emit_all)
    }

    /// Whether records can be written; leaves nothing behind.
    pub(crate) async fn try_writing(&self) -> Result<(), ActivityError> {
        instances::try_writing(self.database()?).await
    }

    /// An instance says that it runs.
    pub(crate) async fn heartbeat(&self, instance: Instance) -> Result<(), ActivityError> {
        instances::heartbeat(self.database()?, instance).await
    }

    /// An instance says that it goes.
    pub(crate) async fn deregister(&self, id: String) -> Result<(), ActivityError> {
        instances::deregister(self.database()?, id).await
    }

    /// The instances that run.
    pub(crate) async fn instances(&self) -> Result<Vec<Instance>, ActivityError> {
        instances::all(self.database()?, clock::millis()).await
    }

    /// Removes records older than `retention`, and blocks whose time is over; how many records.
    pub(crate) async fn prune(&self, retention: Duration) -> Result<u64, ActivityError> {
        let now = clock::millis();
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let database = self.database()?;
        decisions::prune(database, now).await?;
        log::prune(database, now.saturating_sub(retention).saturating_sub(SLACK)).await
    }

    /// Brings the database up to date.
    pub(crate) async fn migrate(&self) -> Result<(), ActivityError> {
        let database = self.database()?;
        database.make_file();
        database.migrate().await
    }

    /// Removes the oldest records, denials first and decisions last, where the log has more than `most` bytes; how
    /// many records.
    pub(crate) async fn hold_to(&self, max: u64) -> Result<u64, ActivityError> {
        bound::hold(self.database()?, i64::try_from(max).unwrap_or(i64::MAX)).await
    }

    /// Why the writer's last attempt failed.
    pub(crate) fn trouble(&self) -> Option<Arc<String>> {
        self.failing().map(|failing| Arc::clone(&failing.why))
    }

    /// For how long the writer has failed to write what waits.
    pub(crate) fn failing_for(&self) -> Option<Duration> {
        self.failing().map(|failing| failing.since.elapsed())
    }

    fn failing(&self) -> Option<Arc<Failing>> {
        self.0.written.as_ref()?.trouble.load_full()
    }

    /// Writes what waits, in so much time at most. What comes later is told alone.
    pub(crate) async fn end(&self, flush_timeout: Duration) {
        self.take_in_counted();
        let Some(written) = &self.0.written else { return };
        let end = written.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((end, writing)) = end {
            let _ = end.send(flush_timeout);
            let _ = writing.await;
        }
    }
}

/// Records denials that were counted, until the log is dropped.
async fn count_loop(activity: Weak<Inner>) {
    loop {
        sleep(denials::INTERVAL).await;
        let Some(inner) = activity.upgrade() else { return };
        Activity(inner).take_in_counted();
    }
}

/// Tells what was decided; whether anything was.
fn emit_all(decided: Option<Vec<Record>>) -> bool {
    let is_news = decided.is_some();
    decided.into_iter().flatten().for_each(|record| record.emit());
    is_news
}

impl Slot {
    /// Writes the record of what has been done. On `Ok` it is written, or, while the database is away and
    /// not required for this, on its way there.
    ///
    /// # Errors
    /// When it has to be written and was not in time: what was done is to be undone.
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
    async fn records_are_found_by_what_they_say() {
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
        let nobody = Filter { person: Some("100_".to_owned()), ..everything() };
        assert_eq!(activity.find(nobody).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_decision_and_its_record_stand_together() {
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
    async fn old_records_go_and_no_others() {
        let (activity, _folder) = open();
        let aged = |hours: i64| Record {
            at: clock::millis() - hours * 3_600_000,
            ..Record::new(if hours > 24 { EventKind::Login } else { EventKind::Logout })
        };
        activity.decided(vec![aged(25), aged(23)]).await.unwrap();
        assert!(activity.prune(Duration::from_hours(1)).await.is_err(), "a day is kept");
        assert_eq!(activity.prune(Duration::from_hours(24)).await.unwrap(), 1);
        let left = activity.find(Filter { limit: 10, ..Filter::default() }).await.unwrap();
        assert_eq!(left.iter().map(|one| one.kind).collect::<Vec<_>>(), [EventKind::Logout]);
    }

    #[tokio::test]
    async fn what_was_taken_in_is_written_at_the_end() {
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
    async fn a_command_makes_no_database_of_a_slip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slip.db");
        let error = Activity::open_existing(&config(&path)).read().await.unwrap_err();
        assert!(matches!(error, ActivityError::Missing(_)) && error.is_lasting(), "{error:?}");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_told_with_advice() {
        let activity = Activity::open(&config(Path::new("/proc/none/gateway.db")));
        let error = activity.read().await.unwrap_err();
        assert!(error.is_lasting(), "{error:?}");
        assert!(error.to_string().contains("/proc/none/gateway.db"), "{error}");
    }
}
