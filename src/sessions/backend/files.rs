//! Session files as backend: cachelib's folder for Flask's records, and a folder of the gateway's own.
//!
//! ```text
//! GATEWAY_STATE_DIR/sessions/22CHARS    metadata of a session
//! GATEWAY_STATE_DIR/subjects/OID/ID     sessions of a subject (empty files)
//! GATEWAY_STATE_DIR/ended/ID            revoked sessions (empty files)
//! GATEWAY_STATE_DIR/decisions/HASH      a decision that waits for the database; HASH is its SHA-256
//! GATEWAY_STATE_DIR/records/HASH        records that wait for the database
//! GATEWAY_STATE_DIR/reserve/N           disk space for files of `ended`, `decisions` and `records`
//! GATEWAY_STATE_DIR/instances/HASH      an instance and its database; modified at each heartbeat
//! ```

use std::{
    cmp::Reverse,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use tower_sessions_core::session::Id;
use uuid::Uuid;

use super::{
    Added, Cursor, Outbox, Quota, Revoked, SessionBackend, SessionMeta, Unexpired,
    cachelib::CachelibFolder,
    disk::{TEMPORARY, create_private, ids_in, if_exists, name_of, names_in, write_atomically},
    reserve::Reserve,
};
use crate::{
    authz::session::SessionId,
    clock,
    flask::{
        FormatError,
        session_codec::{self, SessionMembers},
        session_record::FlaskRecord,
    },
    sessions::SessionsError,
    telemetry,
};

/// Flask's `PERMANENT_SESSION_LIFETIME`, in seconds. Above its threshold cachelib evicts the files that expire
/// first: with their real expiry minted sessions would be evicted first. The gateway enforces the expiry itself.
const FLASK_LIFETIME: i64 = 31 * 86_400;

/// Session files as backend.
#[derive(Debug, Clone)]
pub(crate) struct Files(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    flask: CachelibFolder,
    sessions: PathBuf,
    subjects: PathBuf,
    revoked: PathBuf,
    instances: PathBuf,
    decisions: PathBuf,
    records: PathBuf,
    reserve: Reserve,
}

impl Files {
    /// Opens upstream's folder, which must exist, and the gateway's own, which is created when missing.
    pub(crate) fn open(
        flask: &Path,
        state: &Path,
        key_prefix: String,
    ) -> Result<Self, SessionsError> {
        let folders = Folders {
            flask: CachelibFolder::open(flask, key_prefix)?,
            sessions: state.join("sessions"),
            subjects: state.join("subjects"),
            revoked: state.join("ended"),
            instances: state.join("instances"),
            decisions: state.join(Outbox::Decisions.name()),
            records: state.join(Outbox::Records.name()),
            reserve: Reserve::new(state.join("reserve")),
        };
        for folder in [
            &folders.sessions,
            &folders.subjects,
            &folders.revoked,
            &folders.instances,
            &folders.decisions,
            &folders.records,
            folders.reserve.folder(),
        ] {
            create_private(folder)
                .map_err(|error| SessionsError::StateFolder(state.to_owned(), Arc::new(error)))?;
        }
        folders.flask.refuse_other_user(folders.user()?)?;
        folders.fill_reserve();
        Ok(Self(Arc::new(folders)))
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Folders) -> Result<T, SessionsError> + Send + 'static,
    ) -> Result<T, SessionsError> {
        let folders = Arc::clone(&self.0);
        spawn_blocking(move || job(&folders)).await.unwrap_or(Err(SessionsError::Interrupted))
    }
}

impl Folders {
    /// User id of the gateway, by the owner of its own folder.
    fn user(&self) -> Result<u32, SessionsError> {
        Ok(fs::metadata(&self.revoked)?.uid())
    }

    fn meta(&self, id: Id) -> Result<Option<SessionMeta>, SessionsError> {
        let bytes = if_exists(fs::read(self.sessions.join(id.to_string())))?;
        let meta = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        Ok(meta.map_err(|_| FormatError::Decoding)?)
    }

    fn add_meta(&self, meta: &SessionMeta) -> Result<bool, SessionsError> {
        let name = meta.id.to_string();
        if fs::exists(self.sessions.join(&name))? {
            return Ok(false);
        }
        let of_subject = self.subjects.join(meta.subject.to_string());
        create_private(&of_subject)?;
        write_atomically(
            &self.sessions,
            &name,
            &serde_json::to_vec(meta).map_err(|_| FormatError::Encoding)?,
        )?;
        write_atomically(&of_subject, &meta.session_id().to_string(), b"")?;
        Ok(true)
    }

    fn sessions_of(&self, subject: Uuid, now: i64) -> Result<Vec<SessionId>, SessionsError> {
        let of_subject = self.subjects.join(subject.to_string());
        let mut found = Vec::new();
        for id in ids_in(&of_subject)?.into_iter().filter(|id| id.expires_at() > now) {
            if let Some(metadata) = if_exists(fs::metadata(of_subject.join(id.to_string())))? {
                found.push((metadata.modified()?, id));
            }
        }
        found.sort_by_key(|(opened, _)| *opened);
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    fn unexpired(&self, now: i64) -> Result<Vec<SessionId>, SessionsError> {
        let mut found = Vec::new();
        for subject in names_in(&self.subjects)? {
            found.extend(ids_in(&self.subjects.join(&subject))?);
        }
        found.retain(|id| id.expires_at() > now);
        // By text as well, so that successive calls page through one order.
        found.sort_by_cached_key(|id| (Reverse(id.expires_at()), id.to_string()));
        Ok(found)
    }

    fn register(
        &self,
        instance: &str,
        database: &str,
        max_age: Duration,
    ) -> Result<Vec<(String, String)>, SessionsError> {
        let name = name_of(instance);
        let ours = serde_json::to_vec(&(instance, database)).map_err(|_| FormatError::Encoding)?;
        write_atomically(&self.instances, &name, &ours)?;
        let mut instances = Vec::new();
        for name in names_in(&self.instances)?.iter().filter(|name| !name.ends_with(TEMPORARY)) {
            let path = self.instances.join(name);
            let Some(metadata) = if_exists(fs::metadata(&path))? else { continue };
            if metadata.modified()?.elapsed().is_ok_and(|age| age > max_age) {
                if_exists(fs::remove_file(&path))?;
                continue;
            }
            let Some(bytes) = if_exists(fs::read(&path))? else { continue };
            // Entries of another version with another form are skipped.
            instances.extend(serde_json::from_slice::<(String, String)>(&bytes));
        }
        Ok(instances)
    }

    fn folder_of(&self, of: Outbox) -> &Path {
        match of {
            Outbox::Decisions => &self.decisions,
            Outbox::Records => &self.records,
        }
    }

    /// Writes a file even when the disk is full, as long as the reserve lasts.
    fn write_urgent(&self, folder: &Path, name: &str, bytes: &[u8]) -> Result<(), SessionsError> {
        Ok(self.reserve.write(bytes.len(), || write_atomically(folder, name, bytes))?)
    }

    fn fill_reserve(&self) {
        if let Err(error) = self.reserve.fill() {
            tracing::debug!(error = %telemetry::chain(&error), "the reserve in GATEWAY_STATE_DIR cannot be filled");
        }
    }

    fn waiting(&self, of: Outbox, max: usize) -> Result<Vec<String>, SessionsError> {
        let folder = self.folder_of(of);
        let mut found = Vec::new();
        for name in names_in(folder)?.iter().filter(|name| !name.ends_with(TEMPORARY)).take(max) {
            // Another instance may have removed the file.
            found.extend(if_exists(fs::read_to_string(folder.join(name)))?);
        }
        Ok(found)
    }

    /// Leaves the subject's folder: a concurrent login may be about to use it.
    fn remove_meta(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError> {
        let of_subject = self.subjects.join(subject.to_string());
        if_exists(fs::remove_file(of_subject.join(id.to_string())))?;
        if_exists(fs::remove_file(self.sessions.join(id.id().to_string())))?;
        Ok(())
    }

    fn sweep(&self, now: i64, forget_before: i64) -> Result<Vec<SessionId>, SessionsError> {
        self.fill_reserve();
        let mut all = Vec::new();
        for subject in names_in(&self.subjects)? {
            let Ok(oid) = subject.parse::<Uuid>() else { continue };
            let ids = ids_in(&self.subjects.join(&subject))?;
            let over: Vec<SessionId> =
                ids.into_iter().filter(|id| id.expires_at() <= now).collect();
            self.flask.remove(&over)?;
            for id in over.iter().filter(|id| id.expires_at() < forget_before) {
                self.remove_meta(id, oid)?;
            }
            all.extend(over);
        }
        for id in ids_in(&self.revoked)? {
            if id.expires_at() < forget_before {
                if_exists(fs::remove_file(self.revoked.join(id.to_string())))?;
            }
        }
        Ok(all)
    }

    /// The whole list, unless the folder has not changed since.
    fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError> {
        let modified = fs::metadata(&self.revoked)?.modified()?;
        let cursor = Some(Cursor(format!("{modified:?}")));
        // Files created within one tick of the file system's clock do not change the time.
        let has_settled = modified.elapsed().is_ok_and(|age| age > Duration::from_secs(2));
        if has_settled && since == cursor.as_ref() {
            return Ok(Revoked { ids: Vec::new(), is_whole: false, cursor });
        }
        Ok(Revoked { ids: ids_in(&self.revoked)?, is_whole: true, cursor })
    }
}

#[async_trait]
impl SessionBackend for Files {
    async fn create(
        &self,
        id: &SessionId,
        session: &SessionMembers<'_>,
        now: i64,
    ) -> Result<bool, SessionsError> {
        let expires_at = u32::try_from(now + FLASK_LIFETIME).unwrap_or(0);
        let (id, file) = (*id, session_codec::to_file(session, expires_at)?);
        self.run(move |folders| {
            folders.flask.refuse_other_user(folders.user()?)?;
            folders.flask.create(&id, &file)
        })
        .await
    }

    async fn record(&self, id: &str) -> Result<Option<FlaskRecord>, SessionsError> {
        let (id, now) = (id.to_owned(), clock::now());
        self.run(move |folders| folders.flask.record(&id, now)).await
    }

    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        let id = *id;
        self.run(move |folders| folders.flask.has(&id)).await
    }

    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        let ids = ids.to_vec();
        self.run(move |folders| folders.flask.remove(&ids)).await
    }

    /// Files serve one machine, which counts the quota in memory.
    async fn add_meta(
        &self,
        meta: &SessionMeta,
        _quota: &Quota,
        _now: i64,
    ) -> Result<Added, SessionsError> {
        let meta = meta.clone();
        let is_new = self.run(move |folders| folders.add_meta(&meta)).await?;
        // Counting costs as much as reading: the caller reads.
        Ok(if is_new { Added::New { subject_sessions: usize::MAX } } else { Added::Taken })
    }

    async fn meta(&self, id: Id) -> Result<Option<SessionMeta>, SessionsError> {
        self.run(move |folders| folders.meta(id)).await
    }

    async fn sessions_of(&self, subject: Uuid, now: i64) -> Result<Vec<SessionId>, SessionsError> {
        self.run(move |folders| folders.sessions_of(subject, now)).await
    }

    async fn unexpired(
        &self,
        now: i64,
        skip: usize,
        max: usize,
    ) -> Result<Unexpired, SessionsError> {
        let all = self.run(move |folders| folders.unexpired(now)).await?;
        let is_last = all.len() <= skip.saturating_add(max);
        Ok(Unexpired { ids: all.into_iter().skip(skip).take(max).collect(), is_last })
    }

    async fn remove_meta(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError> {
        let id = *id;
        self.run(move |folders| folders.remove_meta(&id, subject)).await
    }

    async fn revoke(&self, id: &SessionId) -> Result<(), SessionsError> {
        let id = *id;
        self.run(move |folders| folders.write_urgent(&folders.revoked, &id.to_string(), b"")).await
    }

    async fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError> {
        let since = since.cloned();
        self.run(move |folders| folders.revoked(since.as_ref())).await
    }

    async fn erase(&self, id: &SessionId) -> Result<(), SessionsError> {
        let id = *id;
        self.run(move |folders| {
            if_exists(fs::remove_file(folders.revoked.join(id.to_string()))).map(drop)
        })
        .await
    }

    async fn sweep(&self, now: i64, forget_before: i64) -> Result<Vec<SessionId>, SessionsError> {
        self.run(move |folders| folders.sweep(now, forget_before)).await
    }

    async fn count(&self, now: i64) -> Result<u64, SessionsError> {
        self.run(move |folders| Ok(folders.unexpired(now)?.len() as u64)).await
    }

    async fn register(
        &self,
        instance: &str,
        database: &str,
        now: i64,
        since: i64,
    ) -> Result<Vec<(String, String)>, SessionsError> {
        let (instance, database) = (instance.to_owned(), database.to_owned());
        let max_age = Duration::from_secs(u64::try_from(now - since).unwrap_or_default());
        self.run(move |folders| folders.register(&instance, &database, max_age)).await
    }

    async fn add_waiting(&self, of: Outbox, text: &str, _now: i64) -> Result<(), SessionsError> {
        let text = text.to_owned();
        self.run(move |folders| {
            folders.write_urgent(folders.folder_of(of), &name_of(&text), text.as_bytes())
        })
        .await
    }

    async fn waiting(&self, of: Outbox, max: usize) -> Result<Vec<String>, SessionsError> {
        self.run(move |folders| folders.waiting(of, max)).await
    }

    async fn remove_waiting(&self, of: Outbox, text: &str) -> Result<(), SessionsError> {
        let name = name_of(text);
        self.run(move |folders| {
            if_exists(fs::remove_file(folders.folder_of(of).join(name))).map(drop)
        })
        .await
    }

    async fn ping(&self) -> Result<(), SessionsError> {
        self.run(|folders| folders.flask.check(folders.user()?)).await
    }
}
