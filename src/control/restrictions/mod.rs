//! Decisions that disable external access, block a caller or end sessions. They take effect even if the database
//! cannot be written: at once on this instance, and through the session store within two seconds on all others. Each
//! is recorded as soon as any instance can write the database.

mod pending;
mod records;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use moka::sync::Cache;
use tokio::time::Instant;

pub(crate) use self::pending::PendingDecision;
use crate::{
    activity::{Activity, ActivityError, Actor, Block, Restriction},
    sessions::{Outbox, Sessions, SessionsError},
    telemetry,
};

/// Maximum time that a revocation waits for its records; after it, they are stored in the session store.
const RECORD_TIMEOUT: Duration = Duration::from_millis(1500);
/// Maximum number of decisions read from the session store.
const MAX_DECISIONS: usize = 1000;
/// Maximum number of records of ended sessions in one text of the session store.
const GROUP: usize = 200;
/// Texts of ended sessions that are read in one batch.
const BATCH: usize = 8;
/// Ids of ended sessions whose records were handed over: maximum number, and time for which they are remembered.
const MAX_ENQUEUED: u64 = 50_000;
const ENQUEUED_TTL: Duration = Duration::from_hours(24);
/// Time for which the id of a recorded decision is remembered: a list of pending decisions may have been read before.
const REMEMBERED: Duration = Duration::from_mins(1);

/// Outcome of recording a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recording {
    /// The record is written. False: the decision changed nothing.
    Recorded(bool),
    /// The record is not written yet; the error.
    Pending(String),
}

/// Failures of a decision that must be recorded after the pending ones.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecisionError {
    #[error("pending decisions in the session store cannot be read")]
    Sessions(#[from] SessionsError),
    #[error(transparent)]
    Activity(#[from] ActivityError),
}

/// Decisions in force here that the database may not have yet, and their delivery to it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Restrictions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    activity: Activity,
    sessions: Sessions,
    known: Mutex<Decisions>,
    /// Error because of which sessions ended without their records.
    unrecorded: ArcSwapOption<String>,
    /// Ids of records of ended sessions that are in the database or handed over.
    enqueued: Cache<String, ()>,
    /// True if the session store has texts that this version cannot read.
    has_unreadable_decisions: AtomicBool,
    has_unreadable_records: AtomicBool,
    /// Restrictions in force, derived from `known`.
    in_force: ArcSwap<InForce>,
}

#[derive(Debug, Default)]
struct Decisions {
    /// By [`Restriction::id`].
    decisions: BTreeMap<String, (Restriction, DecisionState)>,
    /// Recorded decisions that a later read of the database included, and the time of that read.
    done: BTreeMap<String, Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DecisionState {
    /// Being written by [`PendingDecision::record`].
    Deciding,
    /// In the memory of this instance only.
    Local,
    /// In the session store.
    Stored,
    /// In the database; no read of it since.
    Recorded,
}

/// Restrictions in force in addition to those in the database.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    /// Time (Unix milliseconds) and author of the decision that disabled external access.
    pub(crate) disabled: Option<(i64, Actor)>,
    pub(crate) blocks: Vec<Block>,
}

impl InForce {
    /// Blocks in force, newest first: these, and the database's blocks of other callers.
    pub(crate) fn blocks_over(&self, of_database: &[Block]) -> Vec<Block> {
        let is_other = |block: &&Block| !self.blocks.iter().any(|own| own.blocked == block.blocked);
        let others = of_database.iter().filter(is_other);
        let mut blocks: Vec<_> = self.blocks.iter().chain(others).cloned().collect();
        blocks.sort_by_key(|block| Reverse(block.since));
        blocks
    }
}

impl Restrictions {
    pub(crate) fn new(activity: &Activity, sessions: &Sessions) -> Self {
        Self(Arc::new(Inner {
            activity: activity.clone(),
            sessions: sessions.clone(),
            known: Mutex::default(),
            unrecorded: ArcSwapOption::empty(),
            enqueued: Cache::builder()
                .max_capacity(MAX_ENQUEUED)
                .time_to_live(ENQUEUED_TTL)
                .build(),
            has_unreadable_decisions: AtomicBool::default(),
            has_unreadable_records: AtomicBool::default(),
            in_force: ArcSwap::default(),
        }))
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Restrictions in force in addition to those in the database.
    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.0.in_force.load_full()
    }

    /// Applies a decision on this instance. [`PendingDecision::record`] records it.
    pub(crate) fn apply(&self, restriction: Restriction) -> PendingDecision {
        let id = restriction.id().to_owned();
        self.lock().decisions.insert(id, (restriction.clone(), DecisionState::Deciding));
        self.publish();
        PendingDecision { restrictions: self.clone(), restriction }
    }

    /// Adds a decision to the session store, from which every instance applies and records it.
    pub(crate) async fn store_pending(
        &self,
        restriction: &Restriction,
    ) -> Result<(), SessionsError> {
        self.0.sessions.add_waiting(Outbox::Decisions, &restriction.to_text()).await
    }

    /// Reads and applies decisions that other instances and commands added to the session store.
    ///
    /// # Errors
    /// When the store cannot be read; known decisions stay in force.
    pub(crate) async fn follow(&self) -> Result<(), SessionsError> {
        let texts = self.0.sessions.waiting(Outbox::Decisions, MAX_DECISIONS).await?;
        let mut recorded_texts = Vec::new();
        let mut unreadable = 0;
        {
            let mut known = self.lock();
            let Decisions { decisions, done } = &mut *known;
            for text in texts {
                let Some(restriction) = Restriction::from_text(&text) else {
                    unreadable += 1;
                    continue;
                };
                if let Some(since) = done.get_mut(restriction.id()) {
                    // Recorded, but still in the store: removing it failed. The id is remembered while the text is there.
                    *since = Instant::now();
                    recorded_texts.push(text);
                } else {
                    let id = restriction.id().to_owned();
                    decisions.entry(id).or_insert((restriction, DecisionState::Stored));
                }
            }
            done.retain(|_, since| since.elapsed() < REMEMBERED);
        }
        self.warn_of_unreadable(Outbox::Decisions, unreadable);
        self.publish();
        for text in recorded_texts {
            let _ = self.0.sessions.remove_waiting(Outbox::Decisions, &text).await;
        }
        Ok(())
    }

    /// Records the known pending decisions, except those that [`PendingDecision::record`] is writing. Returns their
    /// number.
    ///
    /// # Errors
    /// When a decision cannot be recorded.
    pub(crate) async fn record(&self) -> Result<usize, ActivityError> {
        let waiting: Vec<_> = {
            let known = self.lock();
            let waits = |state| matches!(state, DecisionState::Local | DecisionState::Stored);
            known.decisions.values().filter(|(_, state)| waits(*state)).cloned().collect()
        };
        let mut count = 0;
        for (restriction, state) in waiting {
            if state == DecisionState::Local {
                self.store(&restriction).await;
            }
            self.0.activity.restrict_late(&restriction).await?;
            tracing::info!(id = restriction.id(), "a pending decision was recorded");
            self.mark_recorded(&restriction).await;
            count += 1;
        }
        Ok(count)
    }

    /// Warns of unreadable texts, once until none are left.
    fn warn_of_unreadable(&self, of: Outbox, count: usize) {
        let has_unreadable = match of {
            Outbox::Decisions => &self.0.has_unreadable_decisions,
            Outbox::Records => &self.0.has_unreadable_records,
        };
        if !has_unreadable.swap(count > 0, Ordering::Relaxed) && count > 0 {
            tracing::warn!(
                count,
                of = of.name(),
                "texts in the session store cannot be read and stay there: another version of the gateway wrote them"
            );
        }
    }

    /// Ids of decisions in the database: a read that begins now includes them.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let known = self.lock();
        let recorded =
            known.decisions.iter().filter(|(_, (_, state))| *state == DecisionState::Recorded);
        recorded.map(|(id, _)| id.clone()).collect()
    }

    /// Forgets [`Self::recorded`] decisions after a read of the database.
    pub(crate) fn forget(&self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        {
            let mut known = self.lock();
            for id in ids {
                known.decisions.remove(&id);
                known.done.insert(id, Instant::now());
            }
        }
        self.publish();
    }

    async fn store(&self, restriction: &Restriction) {
        match self.store_pending(restriction).await {
            Ok(()) => drop(self.set(restriction.id(), DecisionState::Stored)),
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::error!(
                    error,
                    id = restriction.id(),
                    "a decision applies on this instance only: neither the database nor the session store can be written"
                );
            }
        }
    }

    async fn mark_recorded(&self, restriction: &Restriction) {
        if self.set(restriction.id(), DecisionState::Recorded) == Some(DecisionState::Stored) {
            // If this fails, `follow` removes the text when it reads it again.
            let _ = self.0.sessions.remove_waiting(Outbox::Decisions, &restriction.to_text()).await;
        }
    }

    /// Sets a decision's state. Returns the previous one.
    fn set(&self, id: &str, to: DecisionState) -> Option<DecisionState> {
        let mut known = self.lock();
        let (_, state) = known.decisions.get_mut(id)?;
        Some(std::mem::replace(state, to))
    }

    fn publish(&self) {
        let known = self.lock();
        let decisions = || known.decisions.values().map(|(restriction, _)| restriction);
        let disabled =
            decisions().filter_map(Restriction::disabled).min_by_key(|(since, _)| *since);
        let in_force = InForce {
            disabled: disabled.map(|(since, by)| (since, by.clone())),
            blocks: decisions().filter_map(Restriction::block).collect(),
        };
        // Under the lock; otherwise an older state could be published last.
        self.0.in_force.store(Arc::new(in_force));
    }

    fn lock(&self) -> MutexGuard<'_, Decisions> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
