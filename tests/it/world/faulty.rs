//! Databases that can be read and not written: a full disk, a read-only file, writes that fail, a server that
//! takes no writes.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{gateway::Gateway, postgres::Postgres};

/// What can be wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `ENOSPC`, on a small tmpfs.
    Full,
    /// Files that are immutable.
    ReadOnly,
    /// `EFBIG`, which is an I/O error to `SQLite`: the process may write no file.
    Io,
    /// PostgreSQL answers 25006 (read-only transaction), as a replica does.
    Replica,
}

/// A database with a fault that comes and goes.
pub(crate) struct Faulty {
    fault: Fault,
    postgres: Option<Postgres>,
    folder: TempDir,
}

impl Faulty {
    /// `None`: this fault cannot be made here, which is said on stderr.
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

    /// Where SQLite's file is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// For `DATABASE_URL`.
    pub(crate) fn url(&self) -> String {
        match &self.postgres {
            Some(postgres) => postgres.url(),
            None => format!("sqlite:{}", self.folder.path().join("gateway.db").display()),
        }
    }

    /// From now on nothing can be written.
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
            Fault::ReadOnly => self.of_each_file("+i"),
            Fault::Io => limit(gateway, "1024:"),
            Fault::Replica => {
                self.read_only("on");
                // The next sessions are read-only.
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'";
                self.server().ask_in("postgres", end);
            }
        }
    }

    /// Everything can be written again. Sessions of PostgreSQL that began meanwhile stay read-only.
    pub(crate) fn clear(&self, gateway: &Gateway) {
        match self.fault {
            Fault::Full => {
                fs::remove_file(self.folder.path().join("ballast")).expect("a file");
            }
            Fault::ReadOnly => self.of_each_file("-i"),
            Fault::Io => limit(gateway, "unlimited:"),
            Fault::Replica => self.read_only("off"),
        }
    }

    /// Rows of the database as text: a row a line, `|` between columns.
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
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {told}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn server(&self) -> &Postgres {
        self.postgres.as_ref().expect("a server")
    }

    fn read_only(&self, to: &str) {
        let alter = format!("ALTER DATABASE gateway SET default_transaction_read_only = {to}");
        self.server().ask_in("postgres", &alter);
    }

    fn of_each_file(&self, attribute: &str) {
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

/// Limits how far the gateway may write into a file; the soft limit, so that it can be raised again.
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
