//! Decisions of administrators, shared by the administration page, the JSON API and the commands.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    external_access::ExternalAccess,
    restrictions::{DecisionError, Recording, Restrictions},
    revocation,
};
use crate::{
    activity::{Activity, ActivityError, Author, Block, Blocked, Restriction},
    clock,
    config::ExternalAccessMode,
    sessions::{SessionsError, Which},
};

/// Maximum wait for a decision to apply on this instance before the caller gets its response.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Reasons why a decision was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecisionRefused {
    /// `GATEWAY_EXTERNAL_ACCESS` is `on` or `off`.
    #[error("external access is controlled by GATEWAY_EXTERNAL_ACCESS")]
    ManagedBySetting,
    /// The administrator has not accepted that tenant and app IDs become public.
    #[error("the exposure is not accepted")]
    NotAccepted,
    /// The duration of a block is malformed or out of range.
    #[error("invalid duration")]
    InvalidDuration,
    /// Decisions that wait in the session store cannot be read.
    #[error(transparent)]
    Sessions(#[from] SessionsError),
    /// The database is not configured, or cannot be read or written.
    #[error(transparent)]
    Activity(#[from] ActivityError),
}

impl From<DecisionError> for DecisionRefused {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::Sessions(error) => Self::Sessions(error),
            DecisionError::Activity(error) => Self::Activity(error),
        }
    }
}

/// Enables external access. `accepted` is the text that describes the exposure, or `None` if the
/// administrator has not accepted it. False: external access was already on.
pub(crate) async fn enable(
    external_access: &ExternalAccess,
    accepted: Option<String>,
    author: Author,
) -> Result<bool, DecisionRefused> {
    require_managed(external_access)?;
    let accepted = accepted.ok_or(DecisionRefused::NotAccepted)?;
    let changed = external_access.enable(accepted, author).await?;
    applied_here(external_access, true).await;
    Ok(changed)
}

/// Disables external access, also while the decision cannot be recorded.
pub(crate) async fn disable(
    external_access: &ExternalAccess,
    author: &Author,
) -> Result<Recording, DecisionRefused> {
    require_managed(external_access)?;
    let recording = external_access.decide(Restriction::access(author)).await?;
    applied_here(external_access, false).await;
    Ok(recording)
}

/// Blocks in force, newest first.
pub(crate) async fn blocks(
    external_access: &ExternalAccess,
) -> Result<Vec<Block>, DecisionRefused> {
    external_access.activity().needs_database()?;
    let are_all_recorded = external_access.restrictions().in_force().blocks.is_empty();
    // Blocks that may not be in the database yet are known without it.
    if are_all_recorded {
        Ok(external_access.activity().read().await?.1)
    } else {
        Ok(external_access.blocks())
    }
}

/// Blocks a user or an app for a duration like `24h`, also while the decision cannot be recorded.
pub(crate) async fn block(
    external_access: &ExternalAccess,
    blocked: Blocked,
    span: &str,
    author: &Author,
) -> Result<Recording, DecisionRefused> {
    external_access.activity().needs_database()?;
    let span = Block::span(span).map_err(|_| DecisionRefused::InvalidDuration)?;
    let (restriction, _) = blocked_for(blocked, span, author);
    Ok(external_access.decide(restriction).await?)
}

/// Unblocks a user or an app. False: it was not blocked.
pub(crate) async fn unblock(
    external_access: &ExternalAccess,
    blocked: Blocked,
    author: Author,
) -> Result<bool, DecisionRefused> {
    external_access.activity().needs_database()?;
    Ok(external_access.unblock(blocked, author).await?)
}

/// Ends all minted sessions and, in the background, those whose logins were in progress. Returns
/// the number of sessions ended before it returns.
pub(crate) async fn end_all_sessions(
    restrictions: &Restrictions,
    author: &Author,
) -> Result<usize, SessionsError> {
    let count = revocation::end(restrictions, &Which::All, author, None).await?;
    tokio::spawn(revocation::end_again_after_propagation(
        restrictions.clone(),
        Which::All,
        author.clone(),
    ));
    Ok(count)
}

/// A block from now on, and its end (Unix milliseconds).
pub(crate) fn blocked_for(blocked: Blocked, span: Duration, author: &Author) -> (Restriction, i64) {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let until = clock::millis().saturating_add(span);
    (Restriction::caller(blocked, until, author), until)
}

/// Enables external access in the database, after the pending decisions, which the caller has read: recorded later,
/// they would revoke this one.
pub(crate) async fn record_enabled(
    restrictions: &Restrictions,
    activity: &Activity,
    accepted: String,
    author: Author,
) -> Result<bool, DecisionError> {
    restrictions.record().await?;
    Ok(activity.enable(accepted, author).await?)
}

/// Removes a block from the database, after the pending decisions, which the caller has read.
pub(crate) async fn record_unblocked(
    restrictions: &Restrictions,
    activity: &Activity,
    blocked: Blocked,
    author: Author,
) -> Result<bool, DecisionError> {
    restrictions.record().await?;
    Ok(activity.unblock(blocked, author).await?)
}

/// Administrators decide only under `managed`, which needs a database.
fn require_managed(external_access: &ExternalAccess) -> Result<(), DecisionRefused> {
    external_access.activity().needs_database()?;
    match &*external_access.mode() {
        ExternalAccessMode::Managed => Ok(()),
        ExternalAccessMode::Off | ExternalAccessMode::On { .. } => {
            Err(DecisionRefused::ManagedBySetting)
        }
    }
}

/// Reads the decision on this instance and waits until it applies, at most [`APPLY_TIMEOUT`].
async fn applied_here(external_access: &ExternalAccess, is_on: bool) {
    external_access.read_now();
    let mut changes = external_access.changes();
    let _ = timeout(APPLY_TIMEOUT, changes.wait_for(|now| *now == is_on)).await;
}
