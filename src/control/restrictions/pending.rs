//! A decision that is in force and not yet recorded.

use super::{DecisionState, Recording, Restrictions};
use crate::{
    activity::{ActivityError, Restriction},
    telemetry,
};

/// Decision that is in force here and about to be recorded. If it is dropped before [`Self::record`] has ended (the
/// caller hangs up), it stays in force and [`Restrictions::record`] records it.
#[derive(Debug)]
pub(crate) struct PendingDecision {
    pub(super) restrictions: Restrictions,
    pub(super) restriction: Restriction,
}

impl PendingDecision {
    /// Records the decision; if that fails, adds it to the session store.
    ///
    /// # Errors
    /// When the database is not the right one. Then the decision is no longer in force.
    pub(crate) async fn record(self) -> Result<Recording, ActivityError> {
        let Self { restrictions, restriction } = &self;
        match restrictions.0.activity.restrict_in_time(restriction).await {
            Ok(changed) => {
                if changed {
                    restriction.emit();
                }
                restrictions.mark_recorded(restriction).await;
                Ok(Recording::Recorded(changed))
            }
            Err(error) if error.is_misconfiguration() => {
                restrictions.lock().decisions.remove(restriction.id());
                restrictions.publish();
                Err(error)
            }
            Err(error) => {
                let error = telemetry::chain(&error);
                restriction.emit();
                tracing::error!(
                    error,
                    id = restriction.id(),
                    "a decision is in force without its record: it is recorded as soon as the database can be written"
                );
                restrictions.store(restriction).await;
                Ok(Recording::Pending(error))
            }
        }
    }
}

impl Drop for PendingDecision {
    fn drop(&mut self) {
        let mut known = self.restrictions.lock();
        if let Some((_, state @ DecisionState::Deciding)) =
            known.decisions.get_mut(self.restriction.id())
        {
            *state = DecisionState::Local;
        }
    }
}
