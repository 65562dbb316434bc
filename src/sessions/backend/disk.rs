//! File operations: private folders, atomic writes, names of files.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use crate::{authz::session::SessionId, sessions::SessionsError};

/// Suffix of cachelib's temporary files.
pub(super) const TEMPORARY: &str = ".__wz_cache";

/// Creates a folder of mode 0700, if it is missing.
pub(super) fn create_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// `Ok(None)` when the file does not exist.
pub(super) fn if_exists<T>(result: io::Result<T>) -> Result<Option<T>, SessionsError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SessionsError::from(error)),
    }
}

/// Writes a file of mode 0600 atomically and durably: readers get all of it or nothing, also after a crash.
pub(super) fn write_atomically(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
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

/// File name for any text: its SHA-256.
pub(super) fn name_of(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// Names of the files in a folder; none when it does not exist.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, SessionsError> {
    let Some(entries) = if_exists(fs::read_dir(folder))? else { return Ok(Vec::new()) };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string().ok()));
    Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Session ids among the names of the files in a folder.
pub(super) fn ids_in(folder: &Path) -> Result<Vec<SessionId>, SessionsError> {
    Ok(names_in(folder)?.iter().filter_map(|name| SessionId::parse(name)).collect())
}
