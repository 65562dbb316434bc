//! Databases that can be read but not written: full disk, read-only file, failing writes, read-only
//! server.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{gateway::Gateway, postgres::Postgres};

/// Kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `ENOSPC` on a small tmpfs.
    Full,
    /// Immutable files (`chattr +i`).
    ReadOnly,
    /// `EFBIG` from a file size limit of the process; `SQLite` reports it as an I/O error.
    Io,
    /// PostgreSQL answers 25006 (`read_only_sql_transaction`), as a replica does.
    Replica,
}

/// A database with a fault that can be switched on and off.
pub(crate) struct Faulty {
    fault: Fault,
    postgres: Option<Postgres>,
    folder: TempDir,
}

impl Faulty {
    /// Starts without the fault. `None` if this machine cannot produce it; prints the reason to
    /// stderr.
    pub(crate) async fn start(fault: Fault) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let postgres = if fault == Fault::Replica { Some(Postgres::start().await) } else { None };
        let faulty = Self { fault, postgres, folder };
        let path = faulty.folder.path();
        let is_possible = match fault {
            Fault::Full => {
                let mut mount = Command::new("mount");
                mount.args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(path);
                succeeds(&mut mount)
            }
            Fault::ReadOnly => {
                let probe = path.join("probe");
                fs::write(&probe, "").expect("a file");
                let is_possible = chattr("+i", &probe) && chattr("-i", &probe);
                fs::remove_file(probe).expect("a file");
                is_possible
            }
            Fault::Io => succeeds(Command::new("prlimit").arg("--fsize")),
            Fault::Replica => true,
        };
        if !is_possible {
            eprintln!("SKIPPED: {fault:?} needs root, and mount, chattr or prlimit");
        }
        is_possible.then_some(faulty)
    }

    /// Folder of SQLite's file.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Value for `DATABASE_URL`.
    pub(crate) fn url(&self) -> String {
        match &self.postgres {
            Some(postgres) => postgres.url(),
            None => format!("sqlite:{}", self.folder.path().join("gateway.db").display()),
        }
    }

    /// Makes all writes fail.
    pub(crate) fn set(&self, gateway: &Gateway) {
        match self.fault {
            Fault::Full => {
                let path = self.folder.path().join("ballast");
                let mut ballast = OpenOptions::new().append(true).create(true).open(path);
                let ballast = ballast.as_mut().expect("a file");
                for length in [1 << 20, 4096, 1] {
                    while ballast.write_all(&vec![0; length]).is_ok() {}
                }
            }
            Fault::ReadOnly => self.set_attribute("+i"),
            Fault::Io => limit(gateway, "1024:"),
            Fault::Replica => {
                self.read_only("on");
                // Only new PostgreSQL sessions are read-only.
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'";
                self.server().ask_in("postgres", end);
            }
        }
    }

    /// Makes writes work again. PostgreSQL sessions opened during the fault stay read-only.
    pub(crate) fn clear(&self, gateway: &Gateway) {
        match self.fault {
            Fault::Full => {
                fs::remove_file(self.folder.path().join("ballast")).expect("a file");
            }
            Fault::ReadOnly => self.set_attribute("-i"),
            Fault::Io => limit(gateway, "unlimited:"),
            Fault::Replica => self.read_only("off"),
        }
    }

    /// Result as text: one row per line, columns separated by `|`.
    pub(crate) fn ask(&self, sql: &str) -> String {
        if let Some(postgres) = &self.postgres {
            return postgres.ask(sql);
        }
        let script = "import sqlite3, sys\n\
            for row in sqlite3.connect(sys.argv[1], timeout=10).execute(sys.argv[2]):\n    \
                print('|'.join(str(column) for column in row))";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(self.folder.path().join("gateway.db")).arg(sql);
        let output = python.output().expect("python3");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn server(&self) -> &Postgres {
        self.postgres.as_ref().expect("a server")
    }

    fn read_only(&self, to: &str) {
        let alter = format!("ALTER DATABASE gateway SET default_transaction_read_only = {to}");
        self.server().ask_in("postgres", &alter);
    }

    fn set_attribute(&self, attribute: &str) {
        for name in ["gateway.db", "gateway.db-wal"] {
            let path = self.folder.path().join(name);
            assert!(!path.exists() || chattr(attribute, &path), "{attribute} {name}");
        }
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        match self.fault {
            Fault::Full => {
                let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
            }
            Fault::ReadOnly => {
                for name in ["gateway.db", "gateway.db-wal"] {
                    let _ = chattr("-i", &self.folder.path().join(name));
                }
            }
            Fault::Io | Fault::Replica => {}
        }
    }
}

/// Limits the size of files that the gateway may write. Sets the soft limit only, so that it can be
/// raised again.
fn limit(gateway: &Gateway, fsize: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.arg("--pid").arg(gateway.process.id().to_string()).arg(format!("--fsize={fsize}"));
    assert!(succeeds(&mut prlimit), "{prlimit:?}");
}

fn chattr(attribute: &str, path: &Path) -> bool {
    succeeds(Command::new("chattr").arg(attribute).arg(path))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
