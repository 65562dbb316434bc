//! cachelib's files as the store that Flask reads too, and a folder of our own beside it.
//!
//! ```text
//! SESSION_FILE_DIR/HASH                 Flask's record; HASH of "session:ID"
//! SESSION_FILE_DIR/HASH                 the count of files; HASH of "__wz_cache_count"
//! GATEWAY_STATE_DIR/sessions/22CHARS    note
//! GATEWAY_STATE_DIR/subjects/OID/ID     a subject's sessions (empty files)
//! GATEWAY_STATE_DIR/ended/ID            ended sessions (empty files)
//! GATEWAY_STATE_DIR/decisions/HASH      a decision that waits for the database; HASH is SHA-256 of it
//! GATEWAY_STATE_DIR/records/HASH        records that do
//! GATEWAY_STATE_DIR/reserve/N           disk space for files of `ended`, `decisions` and `records`
//! GATEWAY_STATE_DIR/instances/HASH      an instance and its database; its time: when last seen
//! ```
//!
//! HASH is MD5 up to cachelib 0.15 and SHA-256 from 0.16: upstream's count file tells which.

use std::{
    cmp::Reverse,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest, Md5};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tower_sessions_core::session::Id;
use uuid::Uuid;

use super::{
    Added, Cursor, Quota, Revoked, SessionBackend, SessionMeta, Unexpired, Waiting,
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

/// cachelib's names.
const COUNT: &str = "__wz_cache_count";
const TEMPORARY: &str = ".__wz_cache";
/// As Flask's `PERMANENT_SESSION_LIFETIME`. Past its threshold cachelib evicts what expires first: an
/// honest expiry would make ours the first to go. The gateway holds sessions to their end itself.
const FLASK_LIFETIME: i64 = 31 * 86_400;

/// Both folders.
#[derive(Debug, Clone)]
pub(crate) struct Files(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    flask: PathBuf,
    sessions: PathBuf,
    subjects: PathBuf,
    ended: PathBuf,
    instances: PathBuf,
    decisions: PathBuf,
    records: PathBuf,
    reserve: Reserve,
    key_prefix: String,
}

/// How cachelib names its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Md5,
    Sha256,
}

impl Naming {
    fn of(self, key: &str) -> String {
        match self {
            Self::Md5 => hex::encode(Md5::digest(key.as_bytes())),
            Self::Sha256 => hex::encode(digest(&SHA256, key.as_bytes())),
        }
    }
}

impl Files {
    /// Opens upstream's folder, which must exist, and our own, which is made when missing.
    pub(crate) fn open(
        flask: &Path,
        state: &Path,
        key_prefix: String,
    ) -> Result<Self, SessionsError> {
        if !flask.is_dir() {
            return Err(SessionsError::FolderMissing(flask.to_owned()));
        }
        let folders = Folders {
            flask: flask.to_owned(),
            sessions: state.join("sessions"),
            subjects: state.join("subjects"),
            ended: state.join("ended"),
            instances: state.join("instances"),
            decisions: state.join(Waiting::Decisions.name()),
            records: state.join(Waiting::Records.name()),
            reserve: Reserve::new(state.join("reserve")),
            key_prefix,
        };
        for folder in [
            &folders.sessions,
            &folders.subjects,
            &folders.ended,
            &folders.instances,
            &folders.decisions,
            &folders.records,
            folders.reserve.folder(),
        ] {
            make_private(folder)
                .map_err(|error| SessionsError::StateFolder(state.to_owned(), Arc::new(error)))?;
        }
        folders.refuse_other_user()?;
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

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// `Ok(None)` when the file is not there.
fn if_there<T>(result: io::Result<T>) -> Result<Option<T>, SessionsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SessionsError::from(error)),
    }
}

/// Writes a file so that readers see all of it or nothing, and it survives a crash.
fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{}{TEMPORARY}", Uuid::now_v7().simple()));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, folder.join(name))?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// A file's name for any text.
fn name_of(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

fn names_in(folder: &Path) -> Result<Vec<String>, SessionsError> {
    let Some(entries) = if_there(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
    Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn ids_in(folder: &Path) -> Result<Vec<SessionId>, SessionsError> {
    Ok(names_in(folder)?.iter().filter_map(|name| SessionId::parse(name)).collect())
}

impl Folders {
    /// cachelib writes files of mode 0600. One of another user costs it 16 seconds a request, and then
    /// the session.
    fn refuse_other_user(&self) -> Result<(), SessionsError> {
        let ours = fs::metadata(&self.ended)?.uid();
        let Some((_, count)) = self.count_file()? else { return Ok(()) };
        let theirs = fs::metadata(count)?.uid();
        if ours == theirs { Ok(()) } else { Err(SessionsError::OtherUser { ours, theirs }) }
    }

    /// The newest count file: an image may have moved from one cachelib to another.
    fn count_file(&self) -> Result<Option<(Naming, PathBuf)>, SessionsError> {
        let mut newest: Option<(SystemTime, Naming, PathBuf)> = None;
        for naming in [Naming::Sha256, Naming::Md5] {
            let path = self.flask.join(naming.of(COUNT));
            if let Some(metadata) = if_there(fs::metadata(&path))? {
                let modified = metadata.modified()?;
                if newest.as_ref().is_none_or(|(at, ..)| modified > *at) {
                    newest = Some((modified, naming, path));
                }
            }
        }
        Ok(newest.map(|(_, naming, path)| (naming, path)))
    }

    /// Without a count file (a threshold of 0) upstream's other files tell by their names' length.
    fn naming(&self) -> Result<Naming, SessionsError> {
        if let Some((naming, _)) = self.count_file()? {
            return Ok(naming);
        }
        let names = names_in(&self.flask)?;
        let has = |length| {
            names
                .iter()
                .any(|name| name.len() == length && name.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        match (has(64), has(32)) {
            (true, _) => Ok(Naming::Sha256),
            (false, true) => Ok(Naming::Md5),
            (false, false) => Err(SessionsError::UpstreamNotStarted),
        }
    }

    /// By its whole id, minted or Flask's own.
    fn flask_name(&self, id: impl fmt::Display) -> Result<String, SessionsError> {
        Ok(self.naming()?.of(&format!("{}{id}", self.key_prefix)))
    }

    /// As cachelib's `_update_count`. A race with upstream's own is as harmless as among its workers,
    /// and so is a failure: the count only tells cachelib when to look for what it may evict.
    fn count(&self, delta: i64) {
        let counted = (|| {
            let Some((naming, path)) = self.count_file()? else { return Ok(()) };
            let Some(bytes) = if_there(fs::read(&path))? else { return Ok(()) };
            let (_, count) = session_codec::from_file(&bytes)?;
            let count = (count.as_i64().unwrap_or_default() + delta).max(0);
            let bytes = session_codec::to_file(&Value::from(count), 0)?;
            Ok(write_whole(&self.flask, &naming.of(COUNT), &bytes)?)
        })();
        if let Err::<(), SessionsError>(error) = counted {
            tracing::debug!(error = %telemetry::chain(&error), "cachelib's count could not be kept");
        }
    }

    fn create(&self, id: &SessionId, file: &[u8]) -> Result<bool, SessionsError> {
        self.refuse_other_user()?;
        let name = self.flask_name(id)?;
        if fs::exists(self.flask.join(&name))? {
            return Ok(false);
        }
        write_whole(&self.flask, &name, file)?;
        self.count(1);
        Ok(true)
    }

    fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        let mut removed = 0;
        for id in ids {
            if if_there(fs::remove_file(self.flask.join(self.flask_name(id)?)))?.is_some() {
                removed -= 1;
            }
        }
        if removed < 0 {
            self.count(removed);
        }
        Ok(())
    }

    fn record(&self, id: &str, now: i64) -> Result<Option<FlaskRecord>, SessionsError> {
        let bytes = if_there(fs::read(self.flask.join(self.flask_name(id)?)))?;
        match bytes {
            Some(bytes) => Ok(FlaskRecord::from_file(&bytes, now)?),
            None => Ok(None),
        }
    }

    fn meta(&self, id: Id) -> Result<Option<SessionMeta>, SessionsError> {
        let bytes = if_there(fs::read(self.sessions.join(id.to_string())))?;
        let meta = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        Ok(meta.map_err(|_| FormatError::Decoding)?)
    }

    fn add_meta(&self, meta: &SessionMeta) -> Result<bool, SessionsError> {
        let name = meta.id.to_string();
        if fs::exists(self.sessions.join(&name))? {
            return Ok(false);
        }
        let of_subject = self.subjects.join(meta.subject.to_string());
        make_private(&of_subject)?;
        write_whole(
            &self.sessions,
            &name,
            &serde_json::to_vec(meta).map_err(|_| FormatError::Encoding)?,
        )?;
        write_whole(&of_subject, &meta.session_id().to_string(), b"")?;
        Ok(true)
    }

    fn sessions_of(&self, subject: Uuid, now: i64) -> Result<Vec<SessionId>, SessionsError> {
        let of_subject = self.subjects.join(subject.to_string());
        let mut found = Vec::new();
        for id in ids_in(&of_subject)?.into_iter().filter(|id| id.expires_at() > now) {
            if let Some(metadata) = if_there(fs::metadata(of_subject.join(id.to_string())))? {
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
        // By their text as well, so that one call goes on where another left off.
        found.sort_by_cached_key(|id| (Reverse(id.expires_at()), id.to_string()));
        Ok(found)
    }

    fn register(
        &self,
        instance: &str,
        database: &str,
        longest: Duration,
    ) -> Result<Vec<(String, String)>, SessionsError> {
        let name = name_of(instance);
        let ours = serde_json::to_vec(&(instance, database)).map_err(|_| FormatError::Encoding)?;
        write_whole(&self.instances, &name, &ours)?;
        let mut instances = Vec::new();
        for name in names_in(&self.instances)?.iter().filter(|name| !name.ends_with(TEMPORARY)) {
            let path = self.instances.join(name);
            let Some(metadata) = if_there(fs::metadata(&path))? else { continue };
            if metadata.modified()?.elapsed().is_ok_and(|age| age > longest) {
                if_there(fs::remove_file(&path))?;
                continue;
            }
            let Some(bytes) = if_there(fs::read(&path))? else { continue };
            // What another version wrote otherwise is passed over.
            instances.extend(serde_json::from_slice::<(String, String)>(&bytes));
        }
        Ok(instances)
    }

    fn folder_of(&self, of: Waiting) -> &Path {
        match of {
            Waiting::Decisions => &self.decisions,
            Waiting::Records => &self.records,
        }
    }

    /// Writes a file also where the disk is full, as long as the reserve lasts.
    fn write_urgent(&self, folder: &Path, name: &str, bytes: &[u8]) -> Result<(), SessionsError> {
        Ok(self.reserve.write(bytes.len(), || write_whole(folder, name, bytes))?)
    }

    fn fill_reserve(&self) {
        if let Err(error) = self.reserve.fill() {
            tracing::debug!(error = %telemetry::chain(&error), "the reserve in GATEWAY_STATE_DIR cannot be filled");
        }
    }

    fn waiting(&self, of: Waiting, max: usize) -> Result<Vec<String>, SessionsError> {
        let folder = self.folder_of(of);
        let mut found = Vec::new();
        for name in names_in(folder)?.iter().filter(|name| !name.ends_with(TEMPORARY)).take(max) {
            // Another instance may have removed it meanwhile.
            found.extend(if_there(fs::read_to_string(folder.join(name)))?);
        }
        Ok(found)
    }

    /// The subject's folder stays: another login may be about to use it.
    fn remove_meta(&self, id: &SessionId, subject: Uuid) -> Result<(), SessionsError> {
        let of_subject = self.subjects.join(subject.to_string());
        if_there(fs::remove_file(of_subject.join(id.to_string())))?;
        if_there(fs::remove_file(self.sessions.join(id.id().to_string())))?;
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
            self.remove(&over)?;
            for id in over.iter().filter(|id| id.expires_at() < forget_before) {
                self.remove_meta(id, oid)?;
            }
            all.extend(over);
        }
        for id in ids_in(&self.ended)? {
            if id.expires_at() < forget_before {
                if_there(fs::remove_file(self.ended.join(id.to_string())))?;
            }
        }
        Ok(all)
    }

    /// All of them, unless the folder has not changed since.
    fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError> {
        let modified = fs::metadata(&self.ended)?.modified()?;
        let cursor = Some(Cursor(format!("{modified:?}")));
        // Files made within one tick of the clock leave the same time behind.
        let has_settled = modified.elapsed().is_ok_and(|age| age > Duration::from_secs(2));
        if has_settled && since == cursor.as_ref() {
            return Ok(Revoked { ids: Vec::new(), is_whole: false, cursor });
        }
        Ok(Revoked { ids: ids_in(&self.ended)?, is_whole: true, cursor })
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
        self.run(move |folders| folders.create(&id, &file)).await
    }

    async fn record(&self, id: &str) -> Result<Option<FlaskRecord>, SessionsError> {
        let (id, now) = (id.to_owned(), clock::now());
        self.run(move |folders| folders.record(&id, now)).await
    }

    async fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        let id = *id;
        self.run(move |folders| Ok(fs::exists(folders.flask.join(folders.flask_name(id)?))?)).await
    }

    async fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        let ids = ids.to_vec();
        self.run(move |folders| folders.remove(&ids)).await
    }

    /// One machine's quota is counted in its memory.
    async fn add_meta(
        &self,
        meta: &SessionMeta,
        _quota: &Quota,
        _now: i64,
    ) -> Result<Added, SessionsError> {
        let meta = meta.clone();
        let is_new = self.run(move |folders| folders.add_meta(&meta)).await?;
        // Counting them is no less work than reading them.
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
        self.run(move |folders| folders.write_urgent(&folders.ended, &id.to_string(), b"")).await
    }

    async fn revoked(&self, since: Option<&Cursor>) -> Result<Revoked, SessionsError> {
        let since = since.cloned();
        self.run(move |folders| folders.revoked(since.as_ref())).await
    }

    async fn erase(&self, id: &SessionId) -> Result<(), SessionsError> {
        let id = *id;
        self.run(move |folders| {
            if_there(fs::remove_file(folders.ended.join(id.to_string()))).map(drop)
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
        let longest = Duration::from_secs(u64::try_from(now - since).unwrap_or_default());
        self.run(move |folders| folders.register(&instance, &database, longest)).await
    }

    async fn add_waiting(&self, of: Waiting, text: &str, _now: i64) -> Result<(), SessionsError> {
        let text = text.to_owned();
        self.run(move |folders| {
            folders.write_urgent(folders.folder_of(of), &name_of(&text), text.as_bytes())
        })
        .await
    }

    async fn waiting(&self, of: Waiting, max: usize) -> Result<Vec<String>, SessionsError> {
        self.run(move |folders| folders.waiting(of, max)).await
    }

    async fn remove_waiting(&self, of: Waiting, text: &str) -> Result<(), SessionsError> {
        let name = name_of(text);
        self.run(move |folders| {
            if_there(fs::remove_file(folders.folder_of(of).join(name))).map(drop)
        })
        .await
    }

    async fn ping(&self) -> Result<(), SessionsError> {
        self.run(|folders| {
            folders.refuse_other_user()?;
            folders.naming().map(drop)
        })
        .await
    }
}
