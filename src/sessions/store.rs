//! tower-sessions' [`SessionStore`] over the store that Flask reads too.
//!
//! tower-sessions looks up by its own 22 characters; Flask's key holds the expiry as well. The note
//! kept under the 22 characters tells it. `SessionManagerLayer` is not used: it deletes the cookie of
//! every browser user, whose ids it cannot read (see `docs/decisions/`).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use tower_sessions::{
    SessionStore,
    session::{Id, Record},
    session_store,
};

use super::{
    SessionsError,
    backend::{Added, Quota, SessionBackend, SessionMeta},
};
use crate::{
    authz::session::SessionId,
    clock,
    flask::{FormatError, session_codec::SessionMembers},
};

/// The member of [`Record::data`] that holds the [`SessionMeta`]; it is kept apart from what Flask reads.
pub(super) const NOTE: &str = "gateway";
/// The members that Flask-Session 0.8.0 and SimpleChat put first, in their order.
const FLASK_ORDER: [&str; 3] = ["_permanent", "user", "last_activity_epoch"];

/// A fresh id: 128 random bits of the library that does all cryptography here. tower-sessions' own default
/// asks another generator.
pub(super) fn fresh_id() -> session_store::Result<Id> {
    let mut bits = [0; 16];
    aws_lc_rs::rand::fill(&mut bits)
        .map_err(|_| session_store::Error::Backend("there are no random bits".to_owned()))?;
    Ok(Id(i128::from_be_bytes(bits)))
}

/// Flask's sessions as tower-sessions sees them.
#[derive(Debug)]
pub(super) struct FlaskStore {
    backend: Arc<dyn SessionBackend>,
    /// The id that a session was last put under, also where the store never confirmed it.
    attempt: Mutex<Option<SessionId>>,
    /// How many sessions its subject had then, or more.
    crowd: AtomicUsize,
    quota: Quota,
    /// How long to wait, where the quota was used up.
    wait: Mutex<Option<Duration>>,
}

impl FlaskStore {
    pub(super) fn new(backend: Arc<dyn SessionBackend>, quota: Quota) -> Self {
        let (attempt, crowd) = (Mutex::default(), AtomicUsize::default());
        Self { backend, attempt, crowd, quota, wait: Mutex::default() }
    }

    /// Whether nothing was written because the quota was used up, and how long to wait then.
    pub(super) fn wait(&self) -> Option<Duration> {
        *self.wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may lie in the store although it did not say so.
    pub(super) fn attempt(&self) -> Option<SessionId> {
        *self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sessions the subject has with the one that was created, or more.
    pub(super) fn crowd(&self) -> usize {
        self.crowd.load(Ordering::Relaxed)
    }

    fn attempting(&self, id: Option<SessionId>) {
        *self.attempt.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }
}

#[async_trait]
impl SessionStore for FlaskStore {
    /// Takes a fresh id if this one is taken.
    async fn create(&self, record: &mut Record) -> session_store::Result<()> {
        let now = clock::now();
        let mut meta = meta_in(record)?;
        meta.expires_at = record.expiry_date.unix_timestamp();
        loop {
            meta.id = record.id;
            self.attempting(Some(meta.session_id()));
            match self.backend.add_meta(&meta, &self.quota, now).await? {
                Added::New { crowd } => {
                    self.crowd.store(crowd, Ordering::Relaxed);
                    // The note first: whatever fails after it, no session is left that we know nothing of.
                    if self.backend.put(&meta.session_id(), &flask_part(record), true, now).await? {
                        return Ok(());
                    }
                    self.backend.remove_meta(&meta.session_id(), meta.subject).await?;
                }
                Added::Recording => {}
                Added::TooOften(wait) => {
                    self.attempting(None);
                    *self.wait.lock().unwrap_or_else(PoisonError::into_inner) = Some(wait);
                    return Err(session_store::Error::Backend("too many logins".to_owned()));
                }
            }
            // It is somebody else's.
            self.attempting(None);
            record.id = fresh_id()?;
        }
    }

    /// A record that is gone stays gone: it may have been ended.
    async fn save(&self, record: &Record) -> session_store::Result<()> {
        let id = SessionId::new(record.id, record.expiry_date.unix_timestamp());
        if self.backend.put(&id, &flask_part(record), false, clock::now()).await? {
            Ok(())
        } else {
            Err(session_store::Error::Backend("the session is gone".to_owned()))
        }
    }

    async fn load(&self, id: &Id) -> session_store::Result<Option<Record>> {
        let Some(meta) = self.backend.meta(*id).await? else { return Ok(None) };
        if meta.expires_at <= clock::now() {
            return Ok(None);
        }
        let Some(session) = self.backend.get(&meta.session_id()).await? else { return Ok(None) };
        let expiry_date = OffsetDateTime::from_unix_timestamp(meta.expires_at)
            .map_err(|error| session_store::Error::Decode(error.to_string()))?;
        let mut data: HashMap<String, Value> = session.into_iter().collect();
        data.insert(NOTE.to_owned(), as_value(&meta)?);
        Ok(Some(Record { id: *id, data, expiry_date }))
    }

    async fn delete(&self, id: &Id) -> session_store::Result<()> {
        if let Some(meta) = self.backend.meta(*id).await? {
            self.backend.remove(&[meta.session_id()]).await?;
            self.backend.remove_meta(&meta.session_id(), meta.subject).await?;
        }
        Ok(())
    }
}

fn meta_in(record: &Record) -> session_store::Result<SessionMeta> {
    let meta = record.data.get(NOTE).unwrap_or(&Value::Null);
    SessionMeta::deserialize(meta).map_err(|error| session_store::Error::Encode(error.to_string()))
}

/// A note as a member of [`Record::data`].
pub(super) fn as_value(meta: &SessionMeta) -> session_store::Result<Value> {
    serde_json::to_value(meta).map_err(|error| session_store::Error::Encode(error.to_string()))
}

fn flask_part(record: &Record) -> SessionMembers<'_> {
    let place = |name: &str| {
        FLASK_ORDER.iter().position(|known| *known == name).unwrap_or(FLASK_ORDER.len())
    };
    let members = record.data.iter().map(|(name, value)| (name.as_str(), value));
    let mut members: Vec<_> = members.filter(|(name, _)| *name != NOTE).collect();
    members.sort_by_key(|(name, _)| (place(name), *name));
    SessionMembers(members)
}

impl From<SessionsError> for session_store::Error {
    fn from(error: SessionsError) -> Self {
        match error {
            SessionsError::Format(FormatError::Encoding) => Self::Encode(error.to_string()),
            SessionsError::Format(FormatError::Decoding) => Self::Decode(error.to_string()),
            other => Self::Backend(crate::telemetry::chain(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tower_sessions::{Expiry, Session};

    use super::*;
    use crate::{flask::session_codec, sessions::backend::files::Files};

    #[tokio::test]
    async fn tower_sessions_finds_saves_and_deletes_by_its_own_id() {
        let folder = tempfile::tempdir().unwrap();
        let flask = folder.path().join("flask_session");
        fs::create_dir(&flask).unwrap();
        // SHA-256 of cachelib's count file: upstream has been here.
        let count = "79bc207ee04a581ab2348ca1f3494e64cd0ec36128735b8c6bc85ddd8fe1938c";
        fs::write(flask.join(count), session_codec::to_file(&json!(0), 0).unwrap()).unwrap();
        let files = Files::open(&flask, &folder.path().join("state"), "session:".to_owned());
        let quota = Quota { logins: None, failures: None };
        let store = Arc::new(FlaskStore::new(Arc::new(files.unwrap()), quota));

        let end = OffsetDateTime::from_unix_timestamp(clock::now() + 60).unwrap();
        let opened = Session::new(None, Arc::clone(&store), Some(Expiry::AtDateTime(end)));
        let meta = SessionMeta {
            id: Id::default(),
            expires_at: 0,
            opened_at: 0,
            subject: uuid::Uuid::nil(),
            client: "client".to_owned(),
            token: "token".to_owned(),
        };
        opened.insert_value(NOTE, as_value(&meta).unwrap()).await.unwrap();
        opened.insert("user", json!({"roles": ["User"]})).await.unwrap();
        opened.save().await.unwrap();
        let id = opened.id().unwrap();

        let found = Session::new(Some(id), Arc::clone(&store), Some(Expiry::AtDateTime(end)));
        assert_eq!(found.get_value("user").await.unwrap(), Some(json!({"roles": ["User"]})));
        found.insert("user", json!({"roles": []})).await.unwrap();
        found.save().await.unwrap();
        let record = store.load(&id).await.unwrap().unwrap();
        assert_eq!((record.expiry_date, &record.data["user"]), (end, &json!({"roles": []})));

        store.delete(&id).await.unwrap();
        assert_eq!(store.load(&id).await.unwrap(), None);
        assert!(store.save(&record).await.is_err(), "what is gone stays gone");
    }
}
