//! Minted sessions: opened, ended, held to their end.
//!
//! Flask writes a session back at the end of each request, and for 31 days. So a session is over when
//! its id says so, or when it stands in the set of ended ones; every instance holds that set in memory
//! and reads on in the store's twice a second. Records that Flask brought back are swept.

mod files;
mod flask_format;
mod pickle;
mod redis;
mod shelf;
mod store;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tower_sessions::{Expiry, Session, session::Id, session_store};
use uuid::Uuid;

use self::{
    files::Files,
    redis::Redis,
    shelf::{Bookmark, Note, Shelf},
    store::{FlaskStore, NOTE},
};
use crate::{
    access::session::{SessionId, SessionRecord},
    clock,
    config::{SessionsConfig, StoreConfig},
    telemetry,
};

/// How often the store's set of ended sessions is read on.
const READ_ON: Duration = Duration::from_millis(500);
/// How often all of it is read again, whatever happened.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// How often records that should be gone are swept.
const SWEEP: Duration = Duration::from_secs(10);
/// After this long no request of a session can be in flight any more: beyond upstream's 900 s.
const LONG_AGO: i64 = 1200;
/// How long a caller may be kept waiting for the store.
const PATIENCE: Duration = Duration::from_millis(1800);

/// What can go wrong with the store. None of it means "no session".
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionsError {
    #[error("Redis")]
    Redis(#[source] Arc<fred::error::Error>),
    #[error("TLS for Redis")]
    Tls(#[source] io::Error),
    #[error("session files")]
    Io(#[from] io::Error),
    #[error("{} does not exist: mount upstream's SESSION_FILE_DIR here, one volume for both (SESSION_FILE_DIR)", .0.display())]
    FolderMissing(PathBuf),
    #[error("{} cannot be written: give the gateway a folder of its own (GATEWAY_STATE_DIR)", .0.display())]
    StateFolder(PathBuf, #[source] Arc<io::Error>),
    #[error(
        "the gateway runs as user {ours}, upstream as user {theirs}: session files need the same user for both"
    )]
    OtherUser {
        /// Our user id.
        ours: u32,
        /// Upstream's.
        theirs: u32,
    },
    #[error("upstream has not opened its SESSION_FILE_DIR yet")]
    UpstreamNotStarted,
    #[error("a session could not be encoded")]
    Encoding,
    #[error("a stored session could not be decoded")]
    Decoding,
    #[error("the store did not confirm in time")]
    TimedOut,
    #[error("the work was interrupted")]
    Interrupted,
    #[error("session store")]
    Store(#[source] session_store::Error),
    #[error("the set of ended sessions has not been read yet")]
    NotRead,
}

/// Where a minted session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing speaks against it. Whether the store has it, upstream will see.
    Live,
    /// Past its end, or ended before.
    Over,
}

/// The minted sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shelf: Arc<dyn Shelf>,
    store: Arc<FlaskStore>,
    per_subject: usize,
    /// Those whose end has not come, with when we learned of it (Unix seconds).
    ended: RwLock<HashMap<SessionId, i64>>,
    /// Whether the store's set was ever read.
    is_read: AtomicBool,
}

impl Sessions {
    /// Opens the store. Redis may be away: it is connected to in the background.
    pub(crate) fn open_store(config: SessionsConfig) -> Result<Self, SessionsError> {
        let shelf: Arc<dyn Shelf> = match &config.store {
            StoreConfig::Redis { url, password, ca_file } => Arc::new(Redis::connect(
                url,
                password.as_ref(),
                ca_file.as_deref(),
                config.key_prefix,
                config.format,
            )?),
            StoreConfig::Files { directory, state } => {
                Arc::new(Files::open(directory, state, config.key_prefix)?)
            }
        };
        let store = Arc::new(FlaskStore::new(Arc::clone(&shelf)));
        Ok(Self(Arc::new(Inner {
            shelf,
            store,
            per_subject: config.per_subject,
            ended: RwLock::default(),
            is_read: AtomicBool::new(false),
        })))
    }

    /// Mints a session under a fresh id, once the store has confirmed it; the subject's oldest give
    /// way beyond the limit.
    pub(crate) async fn open(&self, record: &SessionRecord) -> Result<SessionId, SessionsError> {
        patiently(async {
            let id = self.create(record).await?;
            if let Err(error) = self.make_room(record, &id).await {
                // Nobody will learn of this session.
                self.forget(id);
                return Err(error);
            }
            Ok(id)
        })
        .await
    }

    async fn make_room(
        &self,
        record: &SessionRecord,
        newest: &SessionId,
    ) -> Result<(), SessionsError> {
        let notes = self.0.shelf.notes_of(record.subject()).await?;
        let live: Vec<Note> =
            notes.into_iter().filter(|note| note.expires_at > record.opened_at()).collect();
        let surplus = live.len().saturating_sub(self.0.per_subject);
        for oldest in live.iter().filter(|note| note.session_id() != *newest).take(surplus) {
            self.end_noted(oldest).await?;
        }
        Ok(())
    }

    async fn create(&self, record: &SessionRecord) -> Result<SessionId, SessionsError> {
        let expires_at = OffsetDateTime::from_unix_timestamp(record.expires_at())
            .map_err(|_| SessionsError::Encoding)?;
        let note = Note {
            id: Id::default(),
            expires_at: record.expires_at(),
            opened_at: clock::millis(),
            subject: record.subject(),
            client: record.client().to_owned(),
            token: record.token_fingerprint().to_owned(),
        };
        let session =
            Session::new(None, Arc::clone(&self.0.store), Some(Expiry::AtDateTime(expires_at)));
        for (name, value) in [
            ("_permanent", Value::Bool(true)),
            ("user", Value::Object(record.user().clone())),
            ("last_activity_epoch", Value::from(record.opened_at())),
            (NOTE, store::as_value(&note).map_err(SessionsError::Store)?),
        ] {
            session.insert_value(name, value).await.map_err(of_session)?;
        }
        session.save().await.map_err(of_session)?;
        let id = session.id().ok_or(SessionsError::Encoding)?;
        Ok(SessionId::new(id, record.expires_at()))
    }

    /// Ends a session for good, if there is one. `Ok` once the store has confirmed it.
    pub(crate) async fn end(&self, id: &SessionId) -> Result<(), SessionsError> {
        patiently(async {
            match self.0.shelf.note(id.id()).await? {
                Some(note) if note.session_id() == *id => self.end_noted(&note).await,
                // Without a note (lost with the store's memory) a record that Flask wrote back may
                // still be there. Where neither is, there is nothing to end, and nothing is kept
                // that a caller made up.
                _ if self.0.shelf.has(id).await? => {
                    self.mark(id).await?;
                    self.0.shelf.remove(&[*id]).await
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// Ends the session that a login came with, if it is a minted one of the same subject.
    pub(crate) async fn end_if_of(
        &self,
        id: &SessionId,
        subject: Uuid,
    ) -> Result<(), SessionsError> {
        patiently(async {
            match self.0.shelf.note(id.id()).await? {
                Some(note) if note.session_id() == *id && note.subject == subject => {
                    self.end_noted(&note).await
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// Ends all sessions that were minted from one token.
    pub(crate) async fn end_of_token(
        &self,
        subject: Uuid,
        fingerprint: &str,
    ) -> Result<(), SessionsError> {
        patiently(async {
            let notes = self.0.shelf.notes_of(subject).await?;
            for note in notes.iter().filter(|note| note.token == fingerprint) {
                self.end_noted(note).await?;
            }
            Ok(())
        })
        .await
    }

    async fn end_noted(&self, note: &Note) -> Result<(), SessionsError> {
        let id = note.session_id();
        self.mark(&id).await?;
        self.0.shelf.remove(&[id]).await?;
        self.0.shelf.remove_note(note).await
    }

    /// First for all, then here: what is ended here must not come back with a restart.
    async fn mark(&self, id: &SessionId) -> Result<(), SessionsError> {
        self.0.shelf.mark_ended(id).await?;
        self.learn([*id]);
        Ok(())
    }

    fn learn(&self, ids: impl IntoIterator<Item = SessionId>) {
        let now = clock::now();
        let mut ended = self.0.ended.write().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            ended.entry(id).or_insert(now);
        }
    }

    /// Where a session stands; `now` in Unix seconds. Asks nobody.
    pub(crate) fn standing(&self, id: &SessionId, now: i64) -> Result<Standing, SessionsError> {
        if id.expires_at() <= now {
            return Ok(Standing::Over);
        }
        if !self.0.is_read.load(Ordering::Acquire) {
            return Err(SessionsError::NotRead);
        }
        let ended = self.0.ended.read().unwrap_or_else(PoisonError::into_inner);
        Ok(if ended.contains_key(id) { Standing::Over } else { Standing::Live })
    }

    /// Removes Flask's record of a session that is over, in the background. The sweep comes again
    /// if this fails.
    pub(crate) fn forget(&self, id: SessionId) {
        let store = Arc::clone(&self.0.shelf);
        tokio::spawn(async move {
            if let Err(error) = store.remove(&[id]).await {
                tracing::debug!(error = %telemetry::chain(&error), "a session that is over could not be removed");
            }
        });
    }

    /// Whether the store is there.
    pub(crate) async fn ping(&self) -> Result<(), SessionsError> {
        patiently(self.0.shelf.ping()).await
    }

    /// Reads the set of ended sessions now; for the start, before anybody is let in.
    pub(crate) async fn read_ended(&self) -> Result<(), SessionsError> {
        self.read_on(&mut None).await
    }

    /// Reads on and sweeps for ever; to be spawned.
    pub(crate) async fn keep_in_step(self) {
        let mut ticks = interval(READ_ON);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bookmark = None;
        let mut is_away = false;
        let mut read_whole = Instant::now();
        let mut swept = Instant::now();
        loop {
            ticks.tick().await;
            if read_whole.elapsed() > READ_AGAIN {
                bookmark = None;
                read_whole = Instant::now();
            }
            match self.read_on(&mut bookmark).await {
                Ok(()) if is_away => {
                    is_away = false;
                    tracing::info!("the session store is back");
                }
                Ok(()) => {}
                Err(error) => {
                    // Whoever reconnects reads all of it.
                    bookmark = None;
                    if !is_away {
                        is_away = true;
                        tracing::warn!(error = %telemetry::chain(&error), "the session store is away");
                    }
                }
            }
            if !is_away && swept.elapsed() > SWEEP {
                swept = Instant::now();
                if let Err(error) = self.sweep().await {
                    tracing::warn!(error = %telemetry::chain(&error), "sessions could not be swept");
                }
            }
        }
    }

    async fn read_on(&self, bookmark: &mut Option<Bookmark>) -> Result<(), SessionsError> {
        let read = self.0.shelf.ended(bookmark.as_ref()).await?;
        *bookmark = read.bookmark;
        let lost = if read.is_whole { self.known_beside(&read.ids) } else { Vec::new() };
        self.learn(read.ids);
        self.0.is_read.store(true, Ordering::Release);
        // A store that lost its memory is told again.
        for id in lost {
            self.0.shelf.mark_ended(&id).await?;
        }
        Ok(())
    }

    fn known_beside(&self, stored: &[SessionId]) -> Vec<SessionId> {
        let stored: HashSet<_> = stored.iter().collect();
        let long_ago = clock::now() - LONG_AGO;
        let ended = self.0.ended.read().unwrap_or_else(PoisonError::into_inner);
        let matters = |id: &&SessionId| !stored.contains(id) && id.expires_at() >= long_ago;
        ended.keys().filter(matters).copied().collect()
    }

    async fn sweep(&self) -> Result<(), SessionsError> {
        let now = clock::now();
        let long_ago = now - LONG_AGO;
        self.0.shelf.sweep(now, long_ago).await?;
        let written_back: Vec<SessionId> = {
            let mut ended = self.0.ended.write().unwrap_or_else(PoisonError::into_inner);
            ended.retain(|id, _| id.expires_at() >= long_ago);
            ended.iter().filter(|(_, since)| **since >= long_ago).map(|(id, _)| *id).collect()
        };
        for some in written_back.chunks(500) {
            self.0.shelf.remove(some).await?;
        }
        Ok(())
    }
}

fn of_session(error: tower_sessions::session::Error) -> SessionsError {
    match error {
        tower_sessions::session::Error::Store(error) => SessionsError::Store(error),
        tower_sessions::session::Error::SerdeJson(_) => SessionsError::Encoding,
    }
}

async fn patiently<T>(
    work: impl Future<Output = Result<T, SessionsError>>,
) -> Result<T, SessionsError> {
    timeout(PATIENCE, work).await.unwrap_or(Err(SessionsError::TimedOut))
}
