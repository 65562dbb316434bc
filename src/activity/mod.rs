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
mod error;
mod instances;
mod log;
mod metrics;
mod operations;
mod pool;
mod queue;
mod record;
mod view;
mod wording;
mod writer;

use std::sync::{Arc, Mutex};

use moka::sync::Cache;
use tokio::sync::oneshot;

pub(crate) use self::error::ActivityError;
use self::{
    database::Database,
    denials::Denials,
    metrics::ActivityMetrics,
    queue::{LogWriter, REPETITION_WINDOW, aggregate_loop},
    writer::{Writer, WriterError},
};
pub(crate) use self::{
    decisions::{AccessState, Block, Blocked, Restriction},
    instances::Instance,
    record::{Actor, Author, EndReason, EventKind, Filter, Outcome, Record},
    view::{BlockInForce, BlockKind, RunningInstance},
};
use crate::config::{ActivityConfig, ActivityRequired};

/// Callers whose repetitions are counted; the least active are evicted.
const MAX_REPEATING_CALLERS: u64 = 10_000;

/// Activity log, and the state of external access, blocks and instances in the same database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    required: ActivityRequired,
    /// Repetitions by caller and kind of denial.
    repeated: Cache<String, u32>,
    denials: Denials,
    writer: Option<LogWriter>,
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
        let writer = config.database.as_ref().map(|config| {
            let database = Database::new(config);
            let last_error = WriterError::default();
            let metrics = ActivityMetrics::new();
            let (writer, entries) =
                Writer::new(database.clone(), metrics.clone(), Arc::clone(&last_error));
            let queue = entries.downgrade();
            ActivityMetrics::watch(move || {
                queue.upgrade().map(|entries| entries.max_capacity() - entries.capacity())
            });
            let (end, stop) = oneshot::channel();
            let writing = tokio::spawn(writer.run(stop));
            LogWriter {
                database,
                entries,
                metrics,
                last_error,
                end: Mutex::new(Some((end, writing))),
            }
        });
        let repeated = Cache::builder()
            .max_capacity(MAX_REPEATING_CALLERS)
            .time_to_live(REPETITION_WINDOW)
            .build();
        let denials = Denials::new();
        let inner = Arc::new(Inner { required: config.required, repeated, denials, writer });
        tokio::spawn(aggregate_loop(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// True if records are written to a database, not only emitted.
    pub(crate) fn has_database(&self) -> bool {
        self.0.writer.is_some()
    }

    /// Returns [`ActivityError::NoDatabase`] without a database.
    pub(crate) fn needs_database(&self) -> Result<(), ActivityError> {
        self.database().map(drop)
    }

    fn database(&self) -> Result<&Database, ActivityError> {
        self.0.writer.as_ref().map(|writer| &writer.database).ok_or(ActivityError::NoDatabase)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::{
        clock,
        config::{DatabaseConfig, DatabaseTarget},
    };

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
        activity.record_decisions(records.clone()).await.unwrap();
        activity.record_decisions(records.clone()).await.unwrap();
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
        activity.record_decisions(vec![aged(25), aged(23)]).await.unwrap();
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
            activity.record(Record::new(EventKind::SessionExpired)).await;
        }
        for _ in 0..700 {
            activity.record_denial(Record::refused(EventKind::LoginDenied, "expired"));
        }
        let slot = activity.reserve().await.unwrap();
        slot.write(Record::new(EventKind::Login)).await.unwrap();
        activity.record(Record::new(EventKind::Logout)).await;
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
