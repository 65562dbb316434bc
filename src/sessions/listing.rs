//! Live minted sessions, for administrators: which there are, and the end of them.

use std::{collections::HashSet, sync::Arc};

use uuid::Uuid;

use super::{
    Sessions, SessionsError,
    backend::{SessionBackend, Unended},
    error::malformed_as_none,
    in_time,
    several::each,
};
use crate::{
    authz::{policy::CANARY, session::SessionId},
    clock,
    flask::{FormatError, session_record::FlaskRecord},
    telemetry,
};

/// Ids looked at together, at least and at most.
const BATCH: (usize, usize) = (50, 500);
/// Disposition so many failures the store is away, and no more is read.
const TOO_MANY_FAILURES: usize = 50;

/// A live minted session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: SessionId,
    /// Entra's object id; nil where neither note nor record tells.
    pub(crate) subject: Uuid,
    /// The client app's id.
    pub(crate) client: String,
    /// Unix milliseconds; 0 where the note is lost.
    pub(crate) opened_at: i64,
    /// Flask's `last_activity_epoch`, in Unix milliseconds.
    pub(crate) last_seen: Option<i64>,
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
}

/// Which sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Those of a person or a service.
    Subject(Uuid),
    /// Those that a client app was given, by its id in any case.
    Client(String),
    /// One, by its handle or its whole id.
    Handle(String),
}

impl Which {
    /// Whether a session of theirs can be meant. Canaries' never are.
    fn means(&self, subject: Uuid, client: &str) -> bool {
        subject != CANARY
            && match self {
                Self::Subject(meant) => *meant == subject,
                Self::Client(meant) => meant.eq_ignore_ascii_case(client),
                Self::All | Self::Handle(_) => true,
            }
    }
}

/// What is known of a session whose end has not come.
struct LiveSession {
    listed: Listed,
    /// Whether Flask's record is there; without it upstream takes the caller for a stranger.
    has_record: bool,
}

/// What was found of those meant.
struct Matches {
    known: Vec<LiveSession>,
    /// Why there may be more.
    missed: Option<SessionsError>,
}

impl Matches {
    fn nothing(why: SessionsError) -> Self {
        Self { known: Vec::new(), missed: Some(why) }
    }
}

impl Sessions {
    /// How many minted sessions there are whose end has not come; in Redis also those ended before.
    pub(crate) async fn count(&self) -> Result<u64, SessionsError> {
        in_time(self.0.backend.count(clock::now())).await
    }

    /// Live minted sessions, canaries left out, newest first. Where there are many more than `limit`,
    /// it is chosen from those that end last: not all are read.
    pub(crate) async fn list(
        &self,
        which: &Which,
        limit: usize,
    ) -> Result<Vec<Listed>, SessionsError> {
        let Matches { known, missed } = self.known(which, limit, |known| known.has_record).await?;
        if let Some(error) = missed {
            return Err(error);
        }
        let mut listed: Vec<_> = known.into_iter().map(|known| known.listed).collect();
        listed.sort_by_key(|listed| std::cmp::Reverse(listed.opened_at));
        listed.truncate(limit);
        Ok(listed)
    }

    /// Those whose end has not come and that were not ended, also such as have no record of Flask's (any
    /// more); and why there may be more.
    pub(crate) async fn unended(&self, which: &Which) -> (Vec<Listed>, Option<SessionsError>) {
        let found = self.known(which, usize::MAX, |_| true).await;
        let Matches { known, missed } = found.unwrap_or_else(Matches::nothing);
        (known.into_iter().map(|known| known.listed).collect(), missed)
    }

    /// Ends sessions for good, however many; how many were, and why not all.
    pub(crate) async fn end_these(&self, listed: Vec<Listed>) -> (usize, Option<SessionsError>) {
        let sessions = self.clone();
        let (mut ended, mut failure) = (0, None);
        for result in each(listed, move |listed| sessions.clone().end_listed(listed)).await {
            match result {
                Ok(()) => ended += 1,
                Err(error) => failure = Some(error),
            }
        }
        (ended, failure)
    }

    /// What cannot be removed is left to the sweep: it counts as ended all the same.
    async fn end_listed(self, listed: Listed) -> Result<(), SessionsError> {
        let id = listed.id;
        self.revoke(&id).await?;
        let (store, gone) = (&self.0.backend, [id]);
        let removed = tokio::try_join!(store.remove(&gone), store.remove_meta(&id, listed.subject));
        if let Err(error) = removed {
            tracing::debug!(error = %telemetry::chain(&error), "what is left of a session is left to the sweep");
        }
        Ok(())
    }

    /// What is known of those meant, `limit` of them or a few more; fewer where the store fails.
    async fn known(
        &self,
        which: &Which,
        limit: usize,
        wanted: impl Fn(&LiveSession) -> bool,
    ) -> Result<Matches, SessionsError> {
        // Else the ended ones would pass for live ones.
        if !self.0.revocations.was_read() {
            self.read_revocations().await?;
        }
        let now = clock::now();
        let mut seen = HashSet::new();
        let (mut found, mut missed, mut failures) = (Vec::new(), None, 0);
        let batch = match which {
            Which::All => limit.clamp(BATCH.0, BATCH.1),
            _ => BATCH.1,
        };
        let mut skip = 0;
        loop {
            let (ids, is_last) = match which {
                Which::Subject(subject) => (self.0.backend.sessions_of(*subject, now).await?, true),
                Which::Handle(text) if SessionId::parse(text).is_some() => {
                    (SessionId::parse(text).into_iter().collect(), true)
                }
                Which::All | Which::Client(_) | Which::Handle(_) => {
                    let Unended { ids, is_last } = self.0.backend.unended(now, skip, batch).await?;
                    (ids, is_last)
                }
            };
            skip += batch;
            let meant = |id: &SessionId| match which {
                Which::Handle(text) => id.to_string() == *text || id.handle() == *text,
                _ => true,
            };
            // Newest first also where the shelf has the oldest first.
            let mut ids: Vec<_> = ids
                .into_iter()
                .filter(|id| id.expires_at() > now && meant(id) && !self.is_revoked(id))
                .filter(|id| seen.insert(*id))
                .collect();
            ids.sort_by_key(|id| std::cmp::Reverse(id.expires_at()));
            let looked_at = each(ids, {
                let (store, which) = (Arc::clone(&self.0.backend), which.clone());
                move |id| look_at(Arc::clone(&store), id, which.clone())
            });
            for known in looked_at.await {
                match known {
                    Ok(known) => found.extend(known.filter(&wanted)),
                    Err(error) => {
                        missed = Some(error);
                        failures += 1;
                    }
                }
            }
            if is_last
                || failures >= TOO_MANY_FAILURES
                || found.len() >= limit
                || (matches!(which, Which::Handle(_)) && !found.is_empty())
            {
                return Ok(Matches { known: found, missed });
            }
        }
    }
}

/// What note and record tell of a session; `None`: there is neither, or it is not meant.
async fn look_at(
    backend: Arc<dyn SessionBackend>,
    id: SessionId,
    which: Which,
) -> Result<Option<LiveSession>, SessionsError> {
    let meta = malformed_as_none(backend.meta(id.id()).await)?;
    let meta = meta.filter(|meta| meta.session_id() == id);
    if meta.as_ref().is_some_and(|meta| !which.means(meta.subject, &meta.client)) {
        return Ok(None);
    }
    let record = match backend.record(&id.to_string()).await {
        // There it is, whatever it holds.
        Err(SessionsError::Format(FormatError::Decoding)) => Some(FlaskRecord::default()),
        record => record?,
    };
    if meta.is_none() && record.is_none() {
        return Ok(None);
    }
    let has_record = record.is_some();
    let record = record.unwrap_or_default();
    let account = record.account();
    let oid = account.as_ref().and_then(|account| account.oid).unwrap_or_default();
    let (subject, client, opened_at) = match meta {
        Some(meta) => (meta.subject, meta.client, meta.opened_at),
        None => (oid, record.client().unwrap_or_default(), 0),
    };
    if !which.means(subject, &client) {
        return Ok(None);
    }
    let (name, email) = account.map(|account| (account.name, account.email)).unwrap_or_default();
    let last_seen = record.last_activity();
    let listed = Listed { id, subject, client, opened_at, last_seen, name, email };
    Ok(Some(LiveSession { listed, has_record }))
}

#[cfg(test)]
mod tests {
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
        let (found, missed) = sessions.unended(which).await;
        assert!(missed.is_none());
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
            last_seen: Some(8_000),
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
        for nobody in ["", "0", &new.handle()[1..], "AAAAAAAAAAAAAAAAAAAAAA.1795384800"] {
            assert_eq!(of(Which::Handle(nobody.to_owned())).await, [], "{nobody}");
        }
        assert_eq!(of(Which::Subject(CANARY)).await, []);
        assert_eq!(ids(&sessions.list(&Which::All, 1).await.unwrap()), [new]);
    }

    #[tokio::test]
    async fn what_has_ended_is_not_listed_by_anybody() {
        let folders = folders();
        let (here, elsewhere) = (instance(folders.path()), instance(folders.path()));
        let id = put(&here, (ZOE, "app"), 1_000, 900).await;
        let gone = put(&here, (ZOE, "app"), 2_000, 900).await;
        here.0.backend.remove(&[gone]).await.unwrap();
        assert_eq!(ids(&here.list(&Which::All, 10).await.unwrap()), [id], "upstream let one go");
        here.revoke(&id).await.unwrap();
        assert_eq!(here.list(&Which::All, 10).await.unwrap(), []);
        assert_eq!(elsewhere.list(&Which::All, 10).await.unwrap(), []);
        assert_eq!(elsewhere.list(&Which::Handle(id.to_string()), 10).await.unwrap(), []);
    }

    #[tokio::test]
    async fn those_meant_are_ended_for_good_and_no_others() {
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
        // One that starts afterwards knows it as well.
        let restarted = instance(folders.path());
        assert_eq!(ids(&restarted.list(&Which::All, 10).await.unwrap()), [of_yan]);

        let ended = end_all(&sessions, &Which::Handle(of_yan.handle())).await;
        assert_eq!(ids(&ended), [of_yan]);
        assert_eq!(end_all(&sessions, &Which::All).await, []);
        assert_eq!(sessions.status(&canary, clock::now()).unwrap(), SessionStatus::Active);
    }

    #[tokio::test]
    async fn an_odd_note_keeps_nobody_from_ending_all() {
        let folders = folders();
        let sessions = instance(folders.path());
        let mut all = Vec::new();
        for number in 0..3 {
            all.push(put(&sessions, (ZOE, "app"), number, 900).await);
        }
        let metas = folders.path().join("state/sessions");
        fs::write(metas.join(all[1].id().to_string()), "odd").unwrap();
        fs::remove_file(metas.join(all[2].id().to_string())).unwrap();

        let listed = sessions.list(&Which::All, 10).await.unwrap();
        assert_eq!(listed.len(), 3);
        // The record tells of them.
        let of_zoe = |listed: &Listed| listed.subject == ZOE && listed.client == "app";
        assert!(listed.iter().all(of_zoe), "{listed:?}");
        assert_eq!(end_all(&sessions, &Which::Client("app".to_owned())).await.len(), 3);
        for id in &all {
            assert_eq!(sessions.status(id, clock::now()).unwrap(), SessionStatus::Ended);
        }
    }

    #[tokio::test]
    async fn there_may_be_more_than_are_read_at_once() {
        let folders = folders();
        let sessions = instance(folders.path());
        for number in 0..60 {
            put(&sessions, (ZOE, "app"), number, 900).await;
        }
        assert_eq!(sessions.list(&Which::All, 7).await.unwrap().len(), 7);
        let mut seen = HashSet::new();
        for skip in (0..70).step_by(10) {
            let ids = sessions.0.backend.unended(clock::now(), skip, 10).await.unwrap().ids;
            assert!(ids.into_iter().all(|id| seen.insert(id)));
        }
        assert_eq!(seen.len(), 60);
    }
}
