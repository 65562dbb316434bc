//! Sessions that end otherwise than by their callers: administrators end them, where it is first written
//! down, if that can be, and then done; or their time is over.

use std::time::Duration;

use tokio::time::sleep;

use super::restrictions::Restrictions;
use crate::{
    activity::{Activity, Author, Block, Blocked, EventKind, Record},
    sessions::{Listed, Sessions, SessionsError, Which},
    telemetry,
};

/// How often it is looked whether more were opened while others were being ended.
const ROUNDS: usize = 4;
/// Longer than any instance takes to learn of a decision.
const LEARNED: Duration = Duration::from_millis(2500);

/// Ends them for good, also such as are opened meanwhile; how many there were. Each has a record, written before
/// or as soon as the database can be. Done to the end even if the caller hangs up. `reason`: why, in a word. An
/// error: some may not have been ended.
pub(crate) async fn end(
    restrictions: &Restrictions,
    which: &Which,
    author: &Author,
    reason: Option<&'static str>,
) -> Result<usize, SessionsError> {
    let ending =
        tokio::spawn(end_in_rounds(restrictions.clone(), which.clone(), author.clone(), reason));
    ending.await.unwrap_or(Err(SessionsError::Interrupted))
}

async fn end_in_rounds(
    restrictions: Restrictions,
    which: Which,
    author: Author,
    reason: Option<&'static str>,
) -> Result<usize, SessionsError> {
    let sessions = restrictions.sessions();
    let record = |listed: &Listed| Record {
        // Instances may come upon the same one.
        id: listed.id.record_id(EventKind::SessionEndedByAdmin.name()).to_string(),
        subject: Some(listed.subject.to_string()),
        client: Some(listed.client.clone()),
        session: Some(listed.id.handle()),
        reason: reason.map(str::to_owned),
        ..Record::new(EventKind::SessionEndedByAdmin).by(&author)
    };
    let (mut count, mut failure) = (0, None);
    for _ in 0..ROUNDS {
        let (found, missed) = sessions.unended(&which).await;
        failure = missed;
        if found.is_empty() && failure.is_none() {
            break;
        }
        restrictions.record_ended(found.iter().map(record).collect()).await;
        let (ended, failed) = sessions.end_these(found).await;
        count += ended;
        // They are tried again.
        failure = failed.or(failure);
    }
    match failure {
        None => Ok(count),
        Some(error) => {
            let reason = telemetry::chain(&error);
            tracing::warn!(reason, ended = count, "not all sessions could be ended");
            Err(error)
        }
    }
}

/// Ends them once more in a while: logins were under way, here or on an instance that had not yet learned of
/// what was decided.
pub(crate) async fn end_latecomers(
    restrictions: Restrictions,
    which: Which,
    author: Author,
) -> Result<usize, SessionsError> {
    sleep(LEARNED).await;
    end(&restrictions, &which, &author, None).await
}

/// Ends the sessions of somebody who was blocked, until that is done or the block `stands` no more; and once
/// more, for logins that were under way.
pub(crate) async fn end_blocked(
    restrictions: Restrictions,
    block: Block,
    is_in_force: impl Fn() -> bool + Send,
) {
    let which = match &block.blocked {
        Blocked::Subject(oid) => match oid.parse() {
            Ok(oid) => Which::Subject(oid),
            Err(_) => return,
        },
        Blocked::Client(id) => Which::Client(id.clone()),
    };
    let author = Author { actor: block.by, ..Author::default() };
    let mut rounds = 2;
    while rounds > 0 && is_in_force() {
        if end(&restrictions, &which, &author, Some("blocked")).await.is_ok() {
            rounds -= 1;
        }
        sleep(LEARNED).await;
    }
}

/// Writes down which sessions came to their end, for ever; to be spawned.
pub(crate) async fn record_expired_loop(activity: Activity, sessions: Sessions) {
    let Some(mut expired) = sessions.expired() else { return };
    while let Some(one) = expired.recv().await {
        let record = Record {
            id: one.record_id.to_string(),
            at: one.at,
            subject: Some(one.subject.to_string()),
            client: Some(one.client),
            session: Some(one.handle),
            ..Record::new(EventKind::SessionExpired)
        };
        activity.happened(record).await;
    }
}
