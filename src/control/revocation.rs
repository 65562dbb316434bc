//! Administrative revocation (audit record first, if it can be written, then revocation) and records of expired
//! sessions.

use std::time::Duration;

use tokio::time::sleep;

use super::restrictions::Restrictions;
use crate::{
    activity::{Activity, Author, Block, Blocked, EventKind, Record},
    sessions::{Listed, Sessions, SessionsError, Which},
    telemetry,
};

/// Maximum number of passes that end sessions created during the previous pass.
const MAX_ROUNDS: usize = 4;
/// Time after which every instance knows a decision, with a margin.
const PROPAGATION_TIME: Duration = Duration::from_millis(2500);

/// Revokes sessions, including those that are created meanwhile. Returns their number. Each has a record, written
/// before the revocation or as soon as the database is writable. Continues if the caller hangs up. `reason`: reason
/// code.
///
/// # Errors
/// When some sessions may not have been revoked.
pub(crate) async fn end(
    restrictions: &Restrictions,
    which: &Which,
    author: &Author,
    reason: Option<&'static str>,
) -> Result<usize, SessionsError> {
    let revoking =
        tokio::spawn(end_in_rounds(restrictions.clone(), which.clone(), author.clone(), reason));
    revoking.await.unwrap_or(Err(SessionsError::Interrupted))
}

async fn end_in_rounds(
    restrictions: Restrictions,
    which: Which,
    author: Author,
    reason: Option<&'static str>,
) -> Result<usize, SessionsError> {
    let sessions = restrictions.sessions();
    let record = |listed: &Listed| Record {
        // Several instances may revoke the same session and must write the same record.
        id: listed.id.record_id(EventKind::SessionEndedByAdmin.name()).to_string(),
        subject: Some(listed.subject.to_string()),
        client: Some(listed.client.clone()),
        session: Some(listed.id.handle()),
        reason: reason.map(str::to_owned),
        ..Record::new(EventKind::SessionEndedByAdmin).by(&author)
    };
    let (mut count, mut failure) = (0, None);
    for _ in 0..MAX_ROUNDS {
        let (found, missed) = sessions.unended(&which).await;
        failure = missed;
        if found.is_empty() && failure.is_none() {
            break;
        }
        restrictions.record_ended(found.iter().map(record).collect()).await;
        let (ended, failed) = sessions.end_these(found).await;
        count += ended;
        // The next round retries them.
        failure = failed.or(failure);
    }
    match failure {
        None => Ok(count),
        Some(error) => {
            let reason = telemetry::chain(&error);
            tracing::warn!(reason, ended = count, "some sessions could not be ended");
            Err(error)
        }
    }
}

/// Revokes sessions again after a delay: logins may have been in progress, here or on an instance that did not know
/// the decision yet.
pub(crate) async fn end_again_after_propagation(
    restrictions: Restrictions,
    which: Which,
    author: Author,
) -> Result<usize, SessionsError> {
    sleep(PROPAGATION_TIME).await;
    end(&restrictions, &which, &author, None).await
}

/// Revokes the sessions of a blocked caller; retries until it succeeds or the block is no longer in force. Then does
/// it once more, for logins that were in progress.
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
        sleep(PROPAGATION_TIME).await;
    }
}

/// Records expired sessions; runs forever, to be spawned.
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
        activity.record(record).await;
    }
}
