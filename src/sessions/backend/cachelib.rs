//! Upstream's `SESSION_FILE_DIR`, read and written as cachelib does.
//!
//! ```text
//! SESSION_FILE_DIR/HASH   Flask's record; HASH of "session:ID"
//! SESSION_FILE_DIR/HASH   count of the files; HASH of "__wz_cache_count"
//! ```
//!
//! HASH is MD5 up to cachelib 0.15 and SHA-256 from 0.16. The count file's name shows which one upstream uses.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest, Md5};
use serde_json::Value;

use super::disk::{if_exists, names_in, write_atomically};
use crate::{
    authz::session::SessionId,
    flask::{session_codec, session_record::FlaskRecord},
    sessions::SessionsError,
    telemetry,
};

/// Key of cachelib's count file.
const COUNT: &str = "__wz_cache_count";

/// Upstream's folder of session files.
#[derive(Debug)]
pub(super) struct CachelibFolder {
    folder: PathBuf,
    key_prefix: String,
}

/// Hash of a key that names its file.
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

impl CachelibFolder {
    /// [`SessionsError::FolderMissing`] when it does not exist: the gateway never creates it.
    pub(super) fn open(folder: &Path, key_prefix: String) -> Result<Self, SessionsError> {
        if !folder.is_dir() {
            return Err(SessionsError::FolderMissing(folder.to_owned()));
        }
        Ok(Self { folder: folder.to_owned(), key_prefix })
    }

    /// Checks that upstream has initialized the folder and runs as user `ours`.
    pub(super) fn check(&self, ours: u32) -> Result<(), SessionsError> {
        self.refuse_other_user(ours)?;
        self.naming().map(drop)
    }

    /// cachelib writes files of mode 0600. A file of another user costs it 16 seconds a request, and then the
    /// session.
    pub(super) fn refuse_other_user(&self, ours: u32) -> Result<(), SessionsError> {
        let Some((_, count)) = self.count_file()? else { return Ok(()) };
        let theirs = fs::metadata(count)?.uid();
        if ours == theirs { Ok(()) } else { Err(SessionsError::OtherUser { ours, theirs }) }
    }

    /// The newest count file: an image may have moved from one cachelib to another.
    fn count_file(&self) -> Result<Option<(Naming, PathBuf)>, SessionsError> {
        let mut newest: Option<(SystemTime, Naming, PathBuf)> = None;
        for naming in [Naming::Sha256, Naming::Md5] {
            let path = self.folder.join(naming.of(COUNT));
            if let Some(metadata) = if_exists(fs::metadata(&path))? {
                let modified = metadata.modified()?;
                if newest.as_ref().is_none_or(|(at, ..)| modified > *at) {
                    newest = Some((modified, naming, path));
                }
            }
        }
        Ok(newest.map(|(_, naming, path)| (naming, path)))
    }

    /// Without a count file (a threshold of 0) the length of the other names decides.
    fn naming(&self) -> Result<Naming, SessionsError> {
        if let Some((naming, _)) = self.count_file()? {
            return Ok(naming);
        }
        let names = names_in(&self.folder)?;
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

    /// File of a record, by its whole id, minted or Flask's own.
    fn file(&self, id: impl fmt::Display) -> Result<PathBuf, SessionsError> {
        Ok(self.folder.join(self.file_name(id)?))
    }

    fn file_name(&self, id: impl fmt::Display) -> Result<String, SessionsError> {
        Ok(self.naming()?.of(&format!("{}{id}", self.key_prefix)))
    }

    /// cachelib's `_update_count`. A race with upstream's own is as harmless as among its workers, and so is a
    /// failure: cachelib uses the count only to decide when to look for files to evict.
    fn count(&self, delta: i64) {
        let counted = (|| {
            let Some((naming, path)) = self.count_file()? else { return Ok(()) };
            let Some(bytes) = if_exists(fs::read(&path))? else { return Ok(()) };
            let (_, count) = session_codec::from_file(&bytes)?;
            let count = (count.as_i64().unwrap_or_default() + delta).max(0);
            let bytes = session_codec::to_file(&Value::from(count), 0)?;
            Ok(write_atomically(&self.folder, &naming.of(COUNT), &bytes)?)
        })();
        if let Err::<(), SessionsError>(error) = counted {
            tracing::debug!(error = %telemetry::chain(&error), "cachelib's count could not be updated");
        }
    }

    /// False if there is a record already.
    pub(super) fn create(&self, id: &SessionId, file: &[u8]) -> Result<bool, SessionsError> {
        let name = self.file_name(id)?;
        if fs::exists(self.folder.join(&name))? {
            return Ok(false);
        }
        write_atomically(&self.folder, &name, file)?;
        self.count(1);
        Ok(true)
    }

    pub(super) fn remove(&self, ids: &[SessionId]) -> Result<(), SessionsError> {
        let mut removed = 0;
        for id in ids {
            if if_exists(fs::remove_file(self.file(id)?))?.is_some() {
                removed += 1;
            }
        }
        if removed > 0 {
            self.count(-removed);
        }
        Ok(())
    }

    /// `now` in Unix seconds.
    pub(super) fn record(&self, id: &str, now: i64) -> Result<Option<FlaskRecord>, SessionsError> {
        match if_exists(fs::read(self.file(id)?))? {
            Some(bytes) => Ok(FlaskRecord::from_file(&bytes, now)?),
            None => Ok(None),
        }
    }

    pub(super) fn has(&self, id: &SessionId) -> Result<bool, SessionsError> {
        Ok(fs::exists(self.file(id)?)?)
    }
}
