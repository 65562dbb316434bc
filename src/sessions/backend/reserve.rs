//! Disk space that is held ready in a folder, so that a few small files can be written although the disk is full: the
//! ends of sessions, and decisions while the database cannot be written.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::fs::statvfs;

/// Bytes of one piece: a block of most file systems.
const PIECE: usize = 4096;
/// Pieces. Each is a file, so that inodes are held ready as well.
const PIECES: usize = 64;
/// Free space, in reserves, that the disk must have before the reserve is filled: the database comes first.
const FREE: u64 = 4;

/// The reserve.
#[derive(Debug)]
pub(crate) struct Reserve {
    folder: PathBuf,
}

impl Reserve {
    /// In this folder, which must exist.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the missing pieces. Does nothing where the disk is nearly full.
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
        // Random: a file system that compresses would reserve nothing for zeros.
        let mut bytes = [0; PIECE];
        aws_lc_rs::rand::fill(&mut bytes).map_err(io::Error::other)?;
        for piece in missing {
            fs::write(piece, bytes)?;
        }
        Ok(())
    }

    /// Writes a file of so many bytes. While that fails for lack of space, pieces are removed and it is tried again.
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

    /// Removes so many pieces. False: there are none left.
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
    fn a_write_without_space_is_tried_again_with_less_of_the_reserve() {
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
        assert_eq!(left(), PIECES - 6, "of no use against other faults");
        let always = || Err(io::ErrorKind::StorageFull.into());
        assert!(reserve.write(0, always).is_err());
        assert_eq!(left(), 0);
        reserve.fill().unwrap();
        assert_eq!(left(), PIECES);
    }
}
