//! Records of ended sessions that wait for the database.

use std::sync::Arc;

use tokio::time::timeout;

use super::{BATCH, GROUP, Inner, RECORD_TIMEOUT, Restrictions};
use crate::{
    activity::{ActivityError, Record, Restriction},
    sessions::Outbox,
    telemetry,
};

impl Restrictions {
    /// Records the end of sessions before the revocation. If that fails, the records wait in the session store or in
    /// memory. The record of one session is handed over once, however often the revocation is retried.
    pub(crate) async fn record_ended(&self, mut records: Vec<Record>) {
        let Inner { activity, sessions, enqueued, .. } = &*self.0;
        records.retain(|record| !enqueued.contains_key(&record.id));
        if records.is_empty() {
            return;
        }
        for record in &records {
            enqueued.insert(record.id.clone(), ());
        }
        let recorded = timeout(RECORD_TIMEOUT, activity.record_decisions(records.clone())).await;
        let Err(error) = recorded.unwrap_or(Err(ActivityError::TimedOut)) else { return };
        let error = telemetry::chain(&error);
        tracing::error!(
            error,
            count = records.len(),
            "sessions are ended without their records: they are recorded as soon as the database can be written"
        );
        records.iter().for_each(Record::emit);
        self.0.unrecorded.store(Some(Arc::new(error)));
        for group in records.chunks(GROUP) {
            let text = Restriction::of_sessions(group.to_vec()).to_text();
            if let Err(error) = sessions.add_waiting(Outbox::Records, &text).await {
                let error = telemetry::chain(&error);
                tracing::error!(
                    error,
                    "records wait in memory only: the session store is unavailable"
                );
                if !activity.wait_for(group.to_vec()).await {
                    for record in group {
                        enqueued.invalidate(&record.id);
                    }
                }
            }
        }
    }

    /// Error because of which sessions ended without their records, if any did.
    pub(crate) fn unrecorded(&self) -> Option<Arc<String>> {
        self.0.unrecorded.load_full()
    }

    /// Writes the records of ended sessions from the session store until a write fails. Texts that this version cannot
    /// read stay in the store.
    pub(crate) async fn record_ended_before(&self) {
        let Inner { activity, sessions, .. } = &*self.0;
        let mut max = BATCH;
        loop {
            let Ok(texts) = sessions.waiting(Outbox::Records, max).await else { return };
            let is_all = texts.len() < max;
            let mut unreadable = 0;
            for text in texts {
                let Some(restriction) = Restriction::from_text(&text) else {
                    unreadable += 1;
                    continue;
                };
                if activity.restrict(&restriction).await.is_err()
                    || sessions.remove_waiting(Outbox::Records, &text).await.is_err()
                {
                    return;
                }
            }
            self.warn_of_unreadable(Outbox::Records, unreadable);
            if is_all {
                return;
            }
            // Reads past the texts that stay.
            max = unreadable + BATCH;
        }
    }
}
