//! Minting: limits, metadata, Flask's record; then the subject's surplus and replaced sessions end.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;
use tower_sessions_core::session::Id;
use uuid::Uuid;

use super::{
    EndedSession, Sessions, SessionsError,
    backend::{Added, Quota, SessionMeta},
    error::malformed_as_none,
    in_time,
    limits::Network,
};
use crate::{
    authz::{
        policy::CANARY,
        session::{SessionId, SessionRecord},
    },
    clock,
    flask::session_codec::SessionMembers,
    telemetry,
};

/// A session that was minted.
pub(crate) struct Opened {
    pub(crate) id: SessionId,
    /// Stored claims: an object.
    pub(crate) user: Value,
    /// Sessions of the same subject that the caller sent along; they are ended.
    pub(crate) replaced: Vec<EndedSession>,
    /// Oldest sessions of the subject above `GATEWAY_SESSIONS_PER_SUBJECT`; they are ended.
    pub(crate) crowded_out: Vec<EndedSession>,
}

/// A session whose metadata and record are stored.
struct Created {
    id: SessionId,
    user: Value,
    /// Sessions of the subject including this one, or more.
    subject_sessions: usize,
}

/// 128 random bits of the library that does all cryptography here. `Id::default` uses another generator.
pub(super) fn fresh_id() -> Result<Id, SessionsError> {
    let mut bits = [0; 16];
    aws_lc_rs::rand::fill(&mut bits).map_err(|_| SessionsError::NoRandomBytes)?;
    Ok(Id(i128::from_be_bytes(bits)))
}

impl Sessions {
    /// Mints a session under a fresh id; returns after the store has confirmed it. Ends the subject's oldest
    /// sessions above the limit, and those of `replaced` that are minted ones of the same subject. Runs to
    /// its end even if the caller disconnects; then, or when a step fails, no session remains.
    ///
    /// [`SessionsError::TooOften`] when a limit of the subject, or of `from`, is reached. Without `from` the
    /// gateway itself signs in, and no limit applies.
    pub(crate) async fn open(
        &self,
        record: SessionRecord,
        replaced: Vec<SessionId>,
        from: Option<Network>,
    ) -> Result<Opened, SessionsError> {
        if from.is_some()
            && !self.0.backend.counts_logins()
            && let Some(wait) = self.0.limits.load().login(record.subject())
        {
            return Err(SessionsError::TooOften(wait));
        }
        let (sender, receiver) = oneshot::channel();
        let sessions = self.clone();
        tokio::spawn(async move {
            let subject = record.subject();
            let mut attempt = None;
            let opened = in_time(sessions.mint(record, &replaced, from, &mut attempt)).await;
            let has_failed = opened.is_err();
            if sender.send(opened).is_err() || has_failed {
                sessions.discard(attempt, subject);
            }
        });
        receiver.await.unwrap_or(Err(SessionsError::Interrupted))
    }

    async fn mint(
        &self,
        record: SessionRecord,
        replaced: &[SessionId],
        from: Option<Network>,
        attempt: &mut Option<SessionId>,
    ) -> Result<Opened, SessionsError> {
        let (subject, opened_at) = (record.subject(), record.opened_at());
        let (logins, failures) = self.0.limits.load().both();
        let quota =
            Quota { logins: logins.filter(|_| from.is_some()), failures: failures.zip(from) };
        let Created { id, user, subject_sessions } = self.create(record, &quota, attempt).await?;
        // Canaries of several instances must not end one another.
        let is_surplus = subject != CANARY && subject_sessions > self.per_subject();
        let crowded_out =
            if is_surplus { self.end_surplus(subject, opened_at, &id).await? } else { Vec::new() };
        let replaced = self.end_replaced(replaced, subject).await?;
        Ok(Opened { id, user, replaced, crowded_out })
    }

    /// Writes metadata and record under a fresh id. `attempt` receives the id that the store may hold, also
    /// where it has not confirmed it.
    async fn create(
        &self,
        record: SessionRecord,
        quota: &Quota,
        attempt: &mut Option<SessionId>,
    ) -> Result<Created, SessionsError> {
        let now = clock::now();
        let mut meta = SessionMeta {
            id: fresh_id()?,
            expires_at: record.expires_at(),
            opened_at: clock::millis(),
            subject: record.subject(),
            client: record.client().to_owned(),
            token: record.token_fingerprint().to_owned(),
        };
        let is_permanent = Value::Bool(true);
        let last_activity = Value::from(record.opened_at());
        let user = Value::Object(record.into_user());
        // Order of Flask-Session 0.8.0 and SimpleChat.
        let members = SessionMembers(vec![
            ("_permanent", &is_permanent),
            ("user", &user),
            ("last_activity_epoch", &last_activity),
        ]);
        let backend = &self.0.backend;
        loop {
            let id = meta.session_id();
            *attempt = Some(id);
            match backend.add_meta(&meta, quota, now).await? {
                Added::New { subject_sessions } => {
                    // Metadata first: a failure after it leaves no session unknown to the gateway.
                    if backend.create(&id, &members, now).await? {
                        return Ok(Created { id, user, subject_sessions });
                    }
                    backend.remove_meta(&id, meta.subject).await?;
                }
                Added::Taken => {}
                Added::TooOften(wait) => {
                    *attempt = None;
                    return Err(SessionsError::TooOften(wait));
                }
            }
            // The id belongs to another session.
            *attempt = None;
            meta.id = fresh_id()?;
        }
    }

    /// Ends the subject's oldest sessions above the limit.
    async fn end_surplus(
        &self,
        subject: Uuid,
        now: i64,
        newest: &SessionId,
    ) -> Result<Vec<EndedSession>, SessionsError> {
        let mut live = self.0.backend.sessions_of(subject, now).await?;
        live.retain(|id| !self.is_revoked(id));
        let surplus = live.len().saturating_sub(self.per_subject());
        let mut ended = Vec::new();
        // Of concurrent logins each ends only sessions older than its own.
        for oldest in live.iter().take(surplus).filter(|id| *id != newest) {
            let meta = malformed_as_none(self.meta(oldest).await)?;
            self.end_of(oldest, subject).await?;
            ended.push(EndedSession::of(oldest, meta));
        }
        Ok(ended)
    }

    async fn end_replaced(
        &self,
        ids: &[SessionId],
        subject: Uuid,
    ) -> Result<Vec<EndedSession>, SessionsError> {
        let mut ended = Vec::new();
        for id in ids {
            let meta = malformed_as_none(self.meta(id).await)?;
            if let Some(meta) = meta.filter(|meta| meta.subject == subject) {
                self.end_of(id, subject).await?;
                ended.push(EndedSession::of(id, Some(meta)));
            }
        }
        Ok(ended)
    }

    /// Revokes a session whose id no caller received, and removes it later, also where the store has not
    /// confirmed it. The sweep removes the rest.
    fn discard(&self, attempt: Option<SessionId>, subject: Uuid) {
        let Some(id) = attempt else { return };
        self.revoke_here(id);
        let backend = Arc::clone(&self.0.backend);
        tokio::spawn(async move {
            let removed = async {
                backend.remove(&[id]).await?;
                backend.remove_meta(&id, subject).await
            };
            if let Err(error) = removed.await {
                tracing::debug!(error = %telemetry::chain(&error), "a discarded session could not be removed");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        authz::policy::Grant,
        flask::session_codec::from_file,
        sessions::{
            SessionStatus,
            test_support::{folders, instance, put},
        },
    };

    fn canary() -> SessionRecord {
        let now = clock::now();
        SessionRecord::new(Grant::canary(now), "fingerprint".to_owned(), now)
    }

    #[tokio::test]
    async fn minting_writes_flasks_record_and_metadata_until_the_session_ends() {
        let folders = folders();
        let sessions = instance(folders.path());
        let record = canary();
        let (opened_at, expires_at) = (record.opened_at(), record.expires_at());
        let before: Vec<_> = names(&folders.path().join("flask_session"));
        let Opened { id, user, .. } = sessions.open(record, Vec::new(), None).await.unwrap();
        assert_eq!(id.expires_at(), expires_at);
        assert_eq!(user["oid"], CANARY.to_string());

        let mut after = names(&folders.path().join("flask_session"));
        after.retain(|name| !before.contains(name));
        let [file] = &after[..] else { panic!("{after:?}") };
        let (_, stored) = from_file(&fs::read(file).unwrap()).unwrap();
        let members: Vec<_> = stored.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["_permanent", "user", "last_activity_epoch"]);
        assert_eq!((&stored["user"], &stored["last_activity_epoch"]), (&user, &opened_at.into()));

        let meta = sessions.meta(&id).await.unwrap().unwrap();
        assert_eq!((meta.subject, &*meta.client, &*meta.token), (CANARY, "canary", "fingerprint"));
        assert_eq!(meta.session_id(), id);
        assert_eq!(sessions.subject_of(&id).await.unwrap(), Some(CANARY));

        assert_eq!(sessions.end(&[id]).await.unwrap().len(), 1);
        assert!(sessions.meta(&id).await.unwrap().is_none());
        assert!(!sessions.has(&id).await.unwrap());
        sessions.read_revocations().await.unwrap();
        assert_eq!(sessions.status(&id, clock::now()).unwrap(), SessionStatus::Ended);
        assert_eq!(sessions.end(&[id]).await.unwrap().len(), 0, "there is nothing left to end");
    }

    #[tokio::test]
    async fn existing_records_and_metadata_are_never_overwritten() {
        let folders = folders();
        let sessions = instance(folders.path());
        let id = put(&sessions, (Uuid::from_u128(1), "app"), 1_000, 900).await;
        let (backend, now) = (&sessions.0.backend, clock::now());
        let mut meta = sessions.meta(&id).await.unwrap().unwrap();
        meta.client = "another".to_owned();
        let quota = Quota { logins: None, failures: None };
        assert_eq!(backend.add_meta(&meta, &quota, now).await.unwrap(), Added::Taken);
        assert_eq!(sessions.meta(&id).await.unwrap().unwrap().client, "app");
        let members = SessionMembers(Vec::new());
        assert!(!backend.create(&id, &members, now).await.unwrap());
        assert!(sessions.minted_account(&id).await.unwrap().is_some());
    }

    fn names(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}
