//! Unit tests of the parent module.

use std::fs;

use super::*;
use crate::sessions::{
    SessionStatus,
    test_support::{folders, instance, put},
};

const ZOE: Uuid = Uuid::from_u128(1);
const YAN: Uuid = Uuid::from_u128(2);

fn ids(listed: &[Listed]) -> Vec<SessionId> {
    listed.iter().map(|listed| listed.id).collect()
}

async fn end_all(sessions: &Sessions, which: &Which) -> Vec<Listed> {
    let (found, failure) = sessions.unended(which).await;
    assert!(failure.is_none());
    let (ended, failed) = sessions.end_these(found.clone()).await;
    assert!(ended == found.len() && failed.is_none());
    found
}

#[tokio::test]
async fn live_sessions_are_listed_newest_first_without_canaries() {
    let folders = folders();
    let sessions = instance(folders.path());
    let old = put(&sessions, (ZOE, "App"), 1_000, 900).await;
    let new = put(&sessions, (YAN, "other"), 3_000, 300).await;
    let middle = put(&sessions, (ZOE, "other"), 2_000, 600).await;
    put(&sessions, (CANARY, "canary"), 4_000, 100).await;
    put(&sessions, (ZOE, "App"), 5_000, -1).await;

    let all = sessions.list(&Which::All, 10).await.unwrap();
    assert_eq!(ids(&all), [new, middle, old]);
    let expected = Listed {
        id: old,
        subject: ZOE,
        client: "App".to_owned(),
        opened_at: 1_000,
        last_activity: Some(8_000),
        name: Some("Zoë".to_owned()),
        email: Some("zoe@example.org".to_owned()),
    };
    assert_eq!(all[2], expected);
    assert_eq!(sessions.count().await.unwrap(), 4, "the canary is counted");

    let of = async |which: Which| ids(&sessions.list(&which, 10).await.unwrap());
    assert_eq!(of(Which::Subject(ZOE)).await, [middle, old]);
    assert_eq!(of(Which::Client("aPP".to_owned())).await, [old]);
    assert_eq!(of(Which::Handle(new.handle())).await, [new]);
    assert_eq!(of(Which::Handle(new.to_string())).await, [new]);
    for unknown in ["", "0", &new.handle()[1..], "AAAAAAAAAAAAAAAAAAAAAA.1795384800"] {
        assert_eq!(of(Which::Handle(unknown.to_owned())).await, [], "{unknown}");
    }
    assert_eq!(of(Which::Subject(CANARY)).await, []);
    assert_eq!(ids(&sessions.list(&Which::All, 1).await.unwrap()), [new]);
}

#[tokio::test]
async fn ended_sessions_are_listed_by_no_instance() {
    let folders = folders();
    let (here, elsewhere) = (instance(folders.path()), instance(folders.path()));
    let id = put(&here, (ZOE, "app"), 1_000, 900).await;
    let removed = put(&here, (ZOE, "app"), 2_000, 900).await;
    here.0.backend.remove(&[removed]).await.unwrap();
    assert_eq!(
        ids(&here.list(&Which::All, 10).await.unwrap()),
        [id],
        "upstream removed one record"
    );
    here.revoke(&id).await.unwrap();
    assert_eq!(here.list(&Which::All, 10).await.unwrap(), []);
    assert_eq!(elsewhere.list(&Which::All, 10).await.unwrap(), []);
    assert_eq!(elsewhere.list(&Which::Handle(id.to_string()), 10).await.unwrap(), []);
}

#[tokio::test]
async fn selected_sessions_are_ended_permanently_and_no_others() {
    let folders = folders();
    let sessions = instance(folders.path());
    let mut of_zoe = Vec::new();
    for number in 0..5 {
        of_zoe.push(put(&sessions, (ZOE, "app"), number, 900).await);
    }
    let of_yan = put(&sessions, (YAN, "another"), 9, 900).await;
    let canary = put(&sessions, (CANARY, "canary"), 9, 900).await;

    let mut ended = ids(&end_all(&sessions, &Which::Subject(ZOE)).await);
    let by_text = |id: &SessionId| id.to_string();
    ended.sort_by_key(by_text);
    of_zoe.sort_by_key(by_text);
    assert_eq!(ended, of_zoe);
    for id in &of_zoe {
        assert_eq!(sessions.status(id, clock::now()).unwrap(), SessionStatus::Ended);
        assert!(!sessions.has(id).await.unwrap());
    }
    assert_eq!(end_all(&sessions, &Which::Subject(ZOE)).await, []);
    assert_eq!(sessions.status(&of_yan, clock::now()).unwrap(), SessionStatus::Active);
    // An instance that starts afterwards reads the revocations.
    let restarted = instance(folders.path());
    assert_eq!(ids(&restarted.list(&Which::All, 10).await.unwrap()), [of_yan]);

    let ended = end_all(&sessions, &Which::Handle(of_yan.handle())).await;
    assert_eq!(ids(&ended), [of_yan]);
    assert_eq!(end_all(&sessions, &Which::All).await, []);
    assert_eq!(sessions.status(&canary, clock::now()).unwrap(), SessionStatus::Active);
}

#[tokio::test]
async fn malformed_metadata_does_not_prevent_ending_all_sessions() {
    let folders = folders();
    let sessions = instance(folders.path());
    let mut all = Vec::new();
    for number in 0..3 {
        all.push(put(&sessions, (ZOE, "app"), number, 900).await);
    }
    let metas = folders.path().join("state/sessions");
    fs::write(metas.join(all[1].id().to_string()), "malformed").unwrap();
    fs::remove_file(metas.join(all[2].id().to_string())).unwrap();

    let listed = sessions.list(&Which::All, 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    // Subject and client come from the record.
    let of_zoe = |listed: &Listed| listed.subject == ZOE && listed.client == "app";
    assert!(listed.iter().all(of_zoe), "{listed:?}");
    assert_eq!(end_all(&sessions, &Which::Client("app".to_owned())).await.len(), 3);
    for id in &all {
        assert_eq!(sessions.status(id, clock::now()).unwrap(), SessionStatus::Ended);
    }
}

#[tokio::test]
async fn sessions_beyond_one_batch_are_listed() {
    let folders = folders();
    let sessions = instance(folders.path());
    for number in 0..60 {
        put(&sessions, (ZOE, "app"), number, 900).await;
    }
    assert_eq!(sessions.list(&Which::All, 7).await.unwrap().len(), 7);
    let mut known = HashSet::new();
    for skip in (0..70).step_by(10) {
        let ids = sessions.0.backend.unexpired(clock::now(), skip, 10).await.unwrap().ids;
        assert!(ids.into_iter().all(|id| known.insert(id)));
    }
    assert_eq!(known.len(), 60);
}

#[tokio::test]
async fn a_failure_leaves_the_other_items_alone() {
    let work = |number: u32| async move {
        if number == 50 { Err(SessionsError::TimedOut) } else { Ok(number * 2) }
    };
    let results: Vec<_> = each((0..100).collect(), work).collect().await;
    let (done, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let mut done: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    done.sort_unstable();
    let expected: Vec<u32> = (0..100).filter(|number| *number != 50).map(|n| n * 2).collect();
    assert_eq!(done, expected);
    assert_eq!(failed.len(), 1);
    assert_eq!(each(Vec::new(), work).count().await, 0);
}

#[tokio::test]
async fn work_stops_after_a_number_of_failures() {
    let tried = AtomicUsize::new(0);
    let work = |_: u32| {
        tried.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::task::yield_now().await;
            Err::<(), _>(SessionsError::TimedOut)
        }
    };
    let results: Vec<_> = each((0..1000).collect(), work).collect().await;
    assert!(results.iter().all(Result::is_err));
    let tried = tried.load(Ordering::Relaxed);
    assert_eq!(results.len(), tried, "each one that was begun has a result");
    assert!((MAX_FAILURES..MAX_FAILURES + CONCURRENCY).contains(&tried), "{tried}");
}
