//! Unit tests of the parent module.

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::{
    activity::{Author, Blocked, EventKind, Filter, Record},
    config::{
        ActivityConfig, ActivityRequired, DatabaseConfig, DatabaseTarget, SessionsConfig,
        StoreConfig,
    },
};

/// Restrictions with a SQLite database at a path, and session files in a temporary folder.
fn over(database: &Path) -> (Restrictions, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let sessions = SessionsConfig {
        store: StoreConfig::Files {
            directory: folder.path().to_owned(),
            state: folder.path().join("state"),
        },
        key_prefix: "session:".to_owned(),
        per_subject: 16,
        login_limit: None,
        failure_limit: None,
    };
    let target = DatabaseTarget::Sqlite(folder.path().join(database));
    let activity = ActivityConfig {
        database: Some(DatabaseConfig { target, migrates: true }),
        retention: Duration::from_hours(24),
        max_size: 1 << 30,
        required: ActivityRequired::Decisions,
    };
    let sessions = Sessions::open_store(sessions).unwrap();
    (Restrictions::new(&Activity::open(&activity), &sessions), folder)
}

fn open() -> (Restrictions, TempDir) {
    over(Path::new("gateway.db"))
}

#[test]
fn a_pending_block_replaces_the_databases_block_of_the_same_caller() {
    let block = |who: &str, since: i64| Block {
        blocked: Blocked::Subject(who.to_owned()),
        since,
        until: i64::MAX,
        by: Actor::default(),
    };
    let in_force = InForce { disabled: None, blocks: vec![block("a", 2)] };
    let of_database = [block("b", 3), block("a", 1)];
    assert_eq!(in_force.blocks_over(&of_database), [block("b", 3), block("a", 2)]);
    assert_eq!(InForce::default().blocks_over(&of_database), of_database);
}

fn ended(id: &str) -> Record {
    let author = Author::default();
    Record { id: id.to_owned(), ..Record::new(EventKind::SessionEndedByAdmin).by(&author) }
}

async fn waiting(restrictions: &Restrictions, of: Outbox) -> Vec<String> {
    restrictions.sessions().waiting(of, 1000).await.unwrap()
}

#[tokio::test]
async fn a_recorded_decision_that_is_still_in_the_store_is_not_applied_again() {
    let (restrictions, _folder) = open();
    let disabled = Restriction::access(&Author::default());
    restrictions.store_pending(&disabled).await.unwrap();
    let long_ago = Instant::now().checked_sub(REMEMBERED * 2).unwrap();
    restrictions.lock().done.insert(disabled.id().to_owned(), long_ago);
    restrictions.follow().await.unwrap();
    assert!(restrictions.in_force().disabled.is_none());
    assert!(waiting(&restrictions, Outbox::Decisions).await.is_empty());
    restrictions.lock().done.insert(disabled.id().to_owned(), long_ago);
    restrictions.follow().await.unwrap();
    assert!(restrictions.lock().done.is_empty(), "forgotten once it left the store");
}

#[tokio::test]
async fn a_decision_that_is_being_recorded_is_not_recorded_by_others() {
    let (restrictions, _folder) = open();
    let pending = restrictions.apply(Restriction::access(&Author::default()));
    assert!(restrictions.in_force().disabled.is_some());
    assert_eq!(restrictions.record().await.unwrap(), 0);
    assert!(waiting(&restrictions, Outbox::Decisions).await.is_empty());
    drop(pending);
    assert!(restrictions.in_force().disabled.is_some(), "also where the caller hangs up");
    assert_eq!(restrictions.record().await.unwrap(), 1);
    let pending = restrictions.apply(Restriction::access(&Author::default()));
    assert_eq!(pending.record().await.unwrap(), Recording::Recorded(false));
    assert_eq!(restrictions.record().await.unwrap(), 0);
}

#[tokio::test]
async fn a_decision_that_could_not_be_written_is_added_to_the_store() {
    let (restrictions, _folder) = over(Path::new("/proc/none/gateway.db"));
    let pending = restrictions.apply(Restriction::access(&Author::default()));
    assert!(matches!(pending.record().await.unwrap(), Recording::Pending(_)));
    assert_eq!(waiting(&restrictions, Outbox::Decisions).await.len(), 1);
    assert!(restrictions.record().await.is_err());
}

#[tokio::test]
async fn texts_of_another_version_stay_in_the_store_and_do_not_delay_others() {
    let (restrictions, _folder) = open();
    let sessions = restrictions.sessions();
    for number in 0..BATCH * 2 {
        let text = format!("{{\"version\":{number}}}");
        sessions.add_waiting(Outbox::Records, &text).await.unwrap();
        let text = Restriction::of_sessions(vec![ended(&number.to_string())]).to_text();
        sessions.add_waiting(Outbox::Records, &text).await.unwrap();
    }
    sessions.add_waiting(Outbox::Decisions, "{}").await.unwrap();
    restrictions.record_ended_before().await;
    restrictions.follow().await.unwrap();
    restrictions.record().await.unwrap();
    let left = waiting(&restrictions, Outbox::Records).await;
    assert_eq!(left.len(), BATCH * 2);
    assert!(left.iter().all(|text| text.starts_with("{\"version\"")), "{left:?}");
    assert_eq!(waiting(&restrictions, Outbox::Decisions).await, ["{}"]);
    let everything = Filter { limit: 100, ..Filter::default() };
    let found = restrictions.0.activity.find(everything).await.unwrap();
    assert_eq!(found.len(), BATCH * 2);
}

#[tokio::test]
async fn a_retried_revocation_adds_its_record_to_the_store_once() {
    let (restrictions, _folder) = over(Path::new("/proc/none/gateway.db"));
    for at in 0..3 {
        let at = |id| Record { at, ..ended(id) };
        restrictions.record_ended(vec![at("a"), at("b")]).await;
    }
    restrictions.record_ended(vec![ended("b"), ended("c")]).await;
    let texts = waiting(&restrictions, Outbox::Records).await;
    let of = |id: &str| texts.iter().filter(|text| text.contains(&format!("\"{id}\""))).count();
    assert_eq!((of("a"), of("b"), of("c")), (1, 1, 1), "{texts:?}");
}
