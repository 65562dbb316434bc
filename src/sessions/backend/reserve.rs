//! Reserved disk space in a folder. When the disk is full it admits a few small files: revocations, and decisions
//! while the database is unavailable.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::statvfs;

/// Bytes of one piece: a block of most file systems.
const PIECE: usize = 4096;
/// Number of pieces. Each is a file, so that inodes are reserved as well.
const PIECES: usize = 64;
/// Free space required before the reserve is filled, in multiples of the reserve: the database has priority.
const FREE: u64 = 4;

/// The reserve.
#[derive(Debug)]
pub(crate) struct Reserve {
    folder: PathBuf,
}

impl Reserve {
    /// A reserve in this folder, which must exist.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the missing pieces. Does nothing when the disk is nearly full.
    pub(crate) fn fill(&self) -> io::Result<()> {
        let missing: Vec<_> =
            (0..PIECES).map(|at| self.piece(at)).filter(|it| !is_whole(it)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let disk = statvfs(&self.folder)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < FREE * (PIECES * PIECE) as u64 {
            return Ok(());
        }
        // Random bytes: a compressing file system would reserve nothing for zeros.
        let mut bytes = [0; PIECE];
        aws_lc_rs::rand::fill(&mut bytes).map_err(io::Error::other)?;
        for piece in missing {
            fs::write(piece, bytes)?;
        }
        Ok(())
    }

    /// Runs `write`, which writes a file of `length` bytes. While it fails for lack of space, pieces are removed and
    /// it is retried.
    pub(crate) fn write(
        &self,
        length: usize,
        mut write: impl FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            match write() {
                Err(error) if is_full(&error) && self.release(length / PIECE + 2) => {}
                written => return written,
            }
        }
    }

    /// Removes up to `count` pieces; false when none is left.
    fn release(&self, count: usize) -> bool {
        let removed = (0..PIECES).filter(|at| fs::remove_file(self.piece(*at)).is_ok());
        removed.take(count).count() > 0
    }

    fn piece(&self, at: usize) -> PathBuf {
        self.folder.join(at.to_string())
    }
}

fn is_whole(piece: &Path) -> bool {
    fs::metadata(piece).is_ok_and(|metadata| metadata.len() == PIECE as u64)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_without_space_is_retried_after_pieces_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(folder.path().to_owned());
        reserve.fill().unwrap();
        let left = || fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left(), PIECES);
        let mut faults = vec![io::ErrorKind::QuotaExceeded, io::ErrorKind::StorageFull];
        reserve.write(PIECE, || faults.pop().map_or(Ok(()), |kind| Err(kind.into()))).unwrap();
        assert_eq!(left(), PIECES - 6);
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        assert!(reserve.write(0, denied).is_err());
        assert_eq!(left(), PIECES - 6, "other errors do not use it");
        let always = || Err(io::ErrorKind::StorageFull.into());
        assert!(reserve.write(0, always).is_err());
        assert_eq!(left(), 0);
        reserve.fill().unwrap();
        assert_eq!(left(), PIECES);
    }
}
