//! Sessions that end otherwise than by their callers: administrators end them, where it is first written
//! down and then done; or their time is over.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    activity::{Activity, ActivityError, Author, Block, Blocked, Kind, Record},
    clock,
    sessions::{Listed, Sessions, SessionsError, Which},
    telemetry,
};

/// Between rounds: longer than any instance takes to learn of a block.
const AGAIN: Duration = Duration::from_millis(1500);

/// Why sessions were not ended, or not all of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndingError {
    #[error(transparent)]
    Activity(#[from] ActivityError),
    #[error(transparent)]
    Sessions(#[from] SessionsError),
}

/// Ends them, each with a record; how many there were. `reason`: why, in a word.
pub(crate) async fn end(
    activity: &Activity,
    sessions: &Sessions,
    which: &Which,
    author: &Author,
    reason: Option<&str>,
) -> Result<usize, EndingError> {
    let record = |listed: &Listed| Record {
        // Instances may come upon the same one.
        id: listed.id.record_id(Kind::SessionEndedByAdmin.name()).to_string(),
        subject: Some(listed.subject.to_string()),
        client: Some(listed.client.clone()),
        session: Some(listed.id.handle()),
        reason: reason.map(str::to_owned),
        ..Record::new(Kind::SessionEndedByAdmin).by(author)
    };
    let listed = sessions.list(which, usize::MAX).await?;
    activity.decided(listed.iter().map(record).collect()).await?;
    let ended = sessions.end_which(which).await?;
    // Opened in between.
    let more = ended.iter().filter(|one| listed.iter().all(|known| known.id != one.id));
    activity.decided(more.map(record).collect()).await?;
    Ok(ended.len())
}

/// Ends the sessions of somebody who was blocked, until that is done; and once more, for logins that were
/// under way.
pub(crate) async fn end_blocked(activity: Activity, sessions: Sessions, block: Block) {
    let which = match &block.blocked {
        Blocked::Subject(oid) => match oid.parse() {
            Ok(oid) => Which::Subject(oid),
            Err(_) => return,
        },
        Blocked::Client(id) => Which::Client(id.clone()),
    };
    let author = Author { actor: block.by, ..Author::default() };
    let mut rounds = 2;
    while rounds > 0 && clock::millis() < block.until {
        match end(&activity, &sessions, &which, &author, Some("blocked")).await {
            Ok(_) => rounds -= 1,
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::warn!(
                    error,
                    "the sessions of somebody who is blocked could not be ended yet"
                );
            }
        }
        sleep(AGAIN).await;
    }
}

/// Writes down which sessions came to their end, for ever; to be spawned.
pub(crate) async fn keep_expired_told(activity: Activity, sessions: Sessions) {
    let Some(mut expired) = sessions.expired() else { return };
    while let Some(one) = expired.recv().await {
        let record = Record {
            id: one.record_id.to_string(),
            at: one.at,
            subject: Some(one.subject.to_string()),
            client: Some(one.client),
            session: Some(one.handle),
            ..Record::new(Kind::SessionExpired)
        };
        activity.happened(record).await;
    }
}
