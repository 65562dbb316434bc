//! Decisions that let less in (external access disabled, a caller blocked, sessions ended). They take effect
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
    activity::{Activity, ActivityError, Actor, Block, Closing, Record},
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
pub(crate) struct Closings(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    activity: Activity,
    sessions: Sessions,
    known: Mutex<Known>,
    /// Why sessions ended without their records.
    unrecorded: ArcSwapOption<String>,
    /// What `known` has in force.
    closed: ArcSwap<Closed>,
}

#[derive(Debug, Default)]
struct Known {
    /// By [`Closing::id`].
    decisions: BTreeMap<String, (Closing, State)>,
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

/// What is closed beside what the database says.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// Since when external access is disabled (Unix milliseconds), and by whom.
    pub(crate) disabled: Option<(i64, Actor)>,
    pub(crate) blocks: Vec<Block>,
}

impl Closings {
    pub(crate) fn new(activity: &Activity, sessions: &Sessions) -> Self {
        Self(Arc::new(Inner {
            activity: activity.clone(),
            sessions: sessions.clone(),
            known: Mutex::default(),
            unrecorded: ArcSwapOption::empty(),
            closed: ArcSwap::default(),
        }))
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// What is closed beside what the database says.
    pub(crate) fn closed(&self) -> Arc<Closed> {
        self.0.closed.load_full()
    }

    /// Puts a decision in force here. [`Self::settle`] follows.
    pub(crate) fn hold(&self, closing: Closing) {
        let id = closing.id().to_owned();
        self.lock().decisions.insert(id, (closing, State::Here));
        self.publish();
    }

    /// Records a decision that is in force here; where that fails, hands it to the session store.
    ///
    /// # Errors
    /// When the database cannot be the right one. Then the decision is not in force any more.
    pub(crate) async fn settle(&self, closing: &Closing) -> Result<Taken, ActivityError> {
        match self.0.activity.close_in_time(closing).await {
            Ok(changed) => {
                if changed {
                    closing.tell();
                }
                self.has_been_recorded(closing).await;
                Ok(Taken::Recorded(changed))
            }
            Err(error) if error.is_of_the_settings() => {
                self.lock().decisions.remove(closing.id());
                self.publish();
                Err(error)
            }
            Err(error) => {
                let error = telemetry::chain(&error);
                closing.tell();
                tracing::error!(
                    error,
                    id = closing.id(),
                    "a decision is in force without its record: it is recorded as soon as the database can be written"
                );
                self.store(closing).await;
                Ok(Taken::Waits(error))
            }
        }
    }

    /// Hands a decision to the session store: instances put it in force, and record it.
    pub(crate) async fn leave(&self, closing: &Closing) -> Result<(), SessionsError> {
        self.0.sessions.add_waiting(Waiting::Decisions, &closing.to_text()).await
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
            let text = Closing::of_sessions(group.to_vec()).to_text();
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
                match Closing::from_text(&text) {
                    Some(closing) if done.contains_key(closing.id()) => left_over.push(text),
                    Some(closing) => {
                        let id = closing.id().to_owned();
                        decisions.entry(id).or_insert((closing, State::Stored));
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
        for (closing, state) in waiting {
            if state == State::Here {
                self.store(&closing).await;
            }
            self.0.activity.close_late(&closing).await?;
            tracing::info!(id = closing.id(), "a decision that waited for its record is recorded");
            self.has_been_recorded(&closing).await;
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
            if let Some(closing) = Closing::from_text(text)
                && activity.close(&closing).await.is_err()
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

    async fn store(&self, closing: &Closing) {
        match self.leave(closing).await {
            Ok(()) => drop(self.set(closing.id(), State::Stored)),
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::error!(
                    error,
                    id = closing.id(),
                    "a decision counts on this instance alone: neither the database nor the session store can be written"
                );
            }
        }
    }

    async fn has_been_recorded(&self, closing: &Closing) {
        if self.set(closing.id(), State::Recorded) == Some(State::Stored) {
            // What cannot be removed now is removed when it is read again.
            let _ = self.0.sessions.remove_waiting(Waiting::Decisions, &closing.to_text()).await;
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
        let decisions = || known.decisions.values().map(|(closing, _)| closing);
        let disabled = decisions().filter_map(Closing::disabled).min_by_key(|(since, _)| *since);
        let closed = Closed {
            disabled: disabled.map(|(since, by)| (since, by.clone())),
            blocks: decisions().filter_map(Closing::block).collect(),
        };
        // Under the lock: else an older state could be published last.
        self.0.closed.store(Arc::new(closed));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
