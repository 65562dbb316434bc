//! Decisions that disable external access, block a caller or end sessions. They take effect
//! whether or not the database can be written: at once on this instance, and by the session store within two
//! seconds on all others. Each is recorded as soon as any instance can write the database.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::time::{Instant, timeout};

use crate::{
    activity::{Activity, ActivityError, Actor, Block, Record, Restriction},
    sessions::{Sessions, SessionsError, Waiting},
    telemetry,
};

/// How long the end of sessions waits for their records before those wait in the session store.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Decisions that are read from the session store.
const MOST: usize = 1000;
/// Records of ended sessions in one text of the session store.
const GROUP: usize = 200;
/// For how long an id is remembered whose decision has been recorded: a list of those that wait may be older.
const REMEMBERED: Duration = Duration::from_mins(1);

/// What became of a decision's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Written. False: it changed nothing.
    Recorded(bool),
    /// Not yet written, and why.
    Waits(String),
}

/// Decisions in force here that the database may not have yet, and the way there. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Restrictions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    activity: Activity,
    sessions: Sessions,
    known: Mutex<Known>,
    /// Why sessions ended without their records.
    unrecorded: ArcSwapOption<String>,
    /// In force by `known`.
    in_force: ArcSwap<InForce>,
}

#[derive(Debug, Default)]
struct Known {
    /// By [`Restriction::id`].
    decisions: BTreeMap<String, (Restriction, State)>,
    /// Those that the database was read with since.
    done: BTreeMap<String, Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Known to this instance alone.
    Here,
    /// In the session store.
    Stored,
    /// In the database, which has not been read since.
    Recorded,
}

/// Restrictions in force in addition to those in the database.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    /// Since when external access is disabled (Unix milliseconds), and by whom.
    pub(crate) disabled: Option<(i64, Actor)>,
    pub(crate) blocks: Vec<Block>,
}

impl Restrictions {
    pub(crate) fn new(activity: &Activity, sessions: &Sessions) -> Self {
        Self(Arc::new(Inner {
            activity: activity.clone(),
            sessions: sessions.clone(),
            known: Mutex::default(),
            unrecorded: ArcSwapOption::empty(),
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

    /// Puts a decision in force here. [`Self::settle`] follows.
    pub(crate) fn hold(&self, restriction: Restriction) {
        let id = restriction.id().to_owned();
        self.lock().decisions.insert(id, (restriction, State::Here));
        self.publish();
    }

    /// Records a decision that is in force here; where that fails, hands it to the session store.
    ///
    /// # Errors
    /// When the database cannot be the right one. Then the decision is not in force any more.
    pub(crate) async fn settle(&self, restriction: &Restriction) -> Result<Taken, ActivityError> {
        match self.0.activity.restrict_in_time(restriction).await {
            Ok(changed) => {
                if changed {
                    restriction.tell();
                }
                self.has_been_recorded(restriction).await;
                Ok(Taken::Recorded(changed))
            }
            Err(error) if error.is_of_the_settings() => {
                self.lock().decisions.remove(restriction.id());
                self.publish();
                Err(error)
            }
            Err(error) => {
                let error = telemetry::chain(&error);
                restriction.tell();
                tracing::error!(
                    error,
                    id = restriction.id(),
                    "a decision is in force without its record: it is recorded as soon as the database can be written"
                );
                self.store(restriction).await;
                Ok(Taken::Waits(error))
            }
        }
    }

    /// Hands a decision to the session store: instances put it in force, and record it.
    pub(crate) async fn leave(&self, restriction: &Restriction) -> Result<(), SessionsError> {
        self.0.sessions.add_waiting(Waiting::Decisions, &restriction.to_text()).await
    }

    /// Records the end of sessions that are about to end; where that fails, the records wait in the session store,
    /// or in memory.
    pub(crate) async fn record_ended(&self, records: Vec<Record>) {
        let Inner { activity, sessions, .. } = &*self.0;
        let recorded = timeout(PATIENCE, activity.decided(records.clone())).await;
        let Err(error) = recorded.unwrap_or(Err(ActivityError::TimedOut)) else { return };
        let error = telemetry::chain(&error);
        tracing::error!(
            error,
            count = records.len(),
            "sessions end without their records: they are recorded as soon as the database can be written"
        );
        records.iter().for_each(Record::tell);
        self.0.unrecorded.store(Some(Arc::new(error)));
        for group in records.chunks(GROUP) {
            let text = Restriction::of_sessions(group.to_vec()).to_text();
            if let Err(error) = sessions.add_waiting(Waiting::Records, &text).await {
                let error = telemetry::chain(&error);
                tracing::error!(error, "records wait in memory alone: the session store is away");
                activity.wait_for(group.to_vec()).await;
            }
        }
    }

    /// Why sessions ended without their records, if any did.
    pub(crate) fn unrecorded(&self) -> Option<Arc<String>> {
        self.0.unrecorded.load_full()
    }

    /// Learns of decisions that other instances and commands handed to the session store. Where it is away, what
    /// was known stays in force.
    pub(crate) async fn follow(&self) {
        let Ok(texts) = self.0.sessions.waiting(Waiting::Decisions, MOST).await else { return };
        let mut left_over = Vec::new();
        {
            let mut known = self.lock();
            let Known { decisions, done } = &mut *known;
            done.retain(|_, since| since.elapsed() < REMEMBERED);
            for text in texts {
                match Restriction::from_text(&text) {
                    Some(restriction) if done.contains_key(restriction.id()) => {
                        left_over.push(text)
                    }
                    Some(restriction) => {
                        let id = restriction.id().to_owned();
                        decisions.entry(id).or_insert((restriction, State::Stored));
                    }
                    None => tracing::debug!("a decision of another version waits"),
                }
            }
        }
        self.publish();
        for text in left_over {
            let _ = self.0.sessions.remove_waiting(Waiting::Decisions, &text).await;
        }
    }

    /// Records the decisions that wait, as far as the database can be written; how many were.
    ///
    /// # Errors
    /// When one could not be recorded.
    pub(crate) async fn record(&self) -> Result<usize, ActivityError> {
        let waiting: Vec<_> = {
            let known = self.lock();
            let waits = known.decisions.values().filter(|(_, state)| *state != State::Recorded);
            waits.cloned().collect()
        };
        let mut count = 0;
        for (restriction, state) in waiting {
            if state == State::Here {
                self.store(&restriction).await;
            }
            self.0.activity.restrict_late(&restriction).await?;
            tracing::info!(
                id = restriction.id(),
                "a decision that waited for its record is recorded"
            );
            self.has_been_recorded(&restriction).await;
            count += 1;
        }
        Ok(count)
    }

    /// Records what waits of ended sessions, as far as the database can be written.
    pub(crate) async fn record_ended_before(&self) {
        let Inner { activity, sessions, .. } = &*self.0;
        // One at a time: they are long.
        while let Ok(texts) = sessions.waiting(Waiting::Records, 1).await
            && let Some(text) = texts.first()
        {
            if let Some(restriction) = Restriction::from_text(text)
                && activity.restrict(&restriction).await.is_err()
            {
                return;
            }
            if sessions.remove_waiting(Waiting::Records, text).await.is_err() {
                return;
            }
        }
    }

    /// Decisions that the database has: of these, what is read from it from now on tells.
    pub(crate) fn recorded(&self) -> Vec<String> {
        let known = self.lock();
        let recorded = known.decisions.iter().filter(|(_, (_, state))| *state == State::Recorded);
        recorded.map(|(id, _)| id.clone()).collect()
    }

    /// Forgets [`Self::recorded`] decisions: the database has been read since.
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
        match self.leave(restriction).await {
            Ok(()) => drop(self.set(restriction.id(), State::Stored)),
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::error!(
                    error,
                    id = restriction.id(),
                    "a decision counts on this instance alone: neither the database nor the session store can be written"
                );
            }
        }
    }

    async fn has_been_recorded(&self, restriction: &Restriction) {
        if self.set(restriction.id(), State::Recorded) == Some(State::Stored) {
            // What cannot be removed now is removed when it is read again.
            let _ =
                self.0.sessions.remove_waiting(Waiting::Decisions, &restriction.to_text()).await;
        }
    }

    /// Sets a decision's state; the one before.
    fn set(&self, id: &str, to: State) -> Option<State> {
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
        // Under the lock: else an older state could be published last.
        self.0.in_force.store(Arc::new(in_force));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
