//! A database queried directly, not through the gateway: an `SQLite` file or a real PostgreSQL.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use super::{chown_to_gateway_user, postgres::Postgres, process::Process, tools::output_text};

/// Kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseKind {
    Sqlite,
    Postgres,
}

/// Both kinds, for behaviour that must be the same.
pub(crate) const BOTH: [DatabaseKind; 2] = [DatabaseKind::Sqlite, DatabaseKind::Postgres];

/// The database itself, empty at first.
pub(crate) enum Database {
    Sqlite(TempDir),
    Postgres(Postgres),
}

impl Database {
    pub(crate) async fn start(kind: DatabaseKind) -> Self {
        match kind {
            DatabaseKind::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                chown_to_gateway_user(folder.path());
                Self::Sqlite(folder)
            }
            DatabaseKind::Postgres => Self::Postgres(Postgres::start().await),
        }
    }

    /// Value for `DATABASE_URL`.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(_) => format!("sqlite:{}", self.file().display()),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    /// `SQLite`'s file.
    pub(crate) fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite(folder) => folder.path().join("gateway.db"),
            Self::Postgres(_) => panic!("it is a server"),
        }
    }

    /// Result as text: one row per line, columns separated by `|`. Changes are committed.
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.try_ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Result as text, or the error of the database.
    pub(crate) fn try_ask(&self, sql: &str) -> Result<String, String> {
        match self {
            Self::Sqlite(_) => {
                answered(&python(ASK).arg(self.file()).arg(sql).output().expect("python3"))
            }
            Self::Postgres(postgres) => postgres.try_ask("gateway", sql),
        }
    }

    /// Number of rows in a table (or of any `FROM` clause).
    pub(crate) fn count(&self, of: &str) -> usize {
        let answer = self.ask(&format!("SELECT count(*) FROM {of}"));
        answer.parse().unwrap_or_else(|_| panic!("{of}: {answer}"))
    }

    /// Unix milliseconds by the clock of the database.
    pub(crate) fn now(&self) -> i64 {
        let seconds = self.ask(match self {
            Self::Sqlite(_) => "SELECT strftime('%s', 'now')",
            Self::Postgres(_) => "SELECT extract(epoch FROM now())::bigint",
        });
        seconds.parse::<i64>().expect("a number") * 1000
    }

    /// The whole content as text.
    pub(crate) fn dump(&self) -> String {
        match self {
            Self::Sqlite(_) => {
                answered(&python(DUMP).arg(self.file()).output().expect("python3")).expect("a dump")
            }
            Self::Postgres(postgres) => postgres.dump(),
        }
    }

    /// Makes the database unavailable: another process locks `SQLite`'s file; PostgreSQL is
    /// stopped.
    pub(crate) async fn make_unavailable(&mut self) -> DatabaseOutage {
        match self {
            Self::Sqlite(_) => {
                let mut process = Process::start(python(HOLD).arg(self.file()), &[], "KILL");
                process.stdout_after("held").await;
                DatabaseOutage { _lock_holder: Some(process) }
            }
            Self::Postgres(postgres) => {
                postgres.stop().await;
                DatabaseOutage { _lock_holder: None }
            }
        }
    }

    /// Ends the outage.
    pub(crate) async fn make_available(&mut self, outage: DatabaseOutage) {
        drop(outage);
        if let Self::Postgres(postgres) = self {
            postgres.start_again().await;
        }
    }
}

/// A database outage. The process that holds the lock ends when this is dropped.
pub(crate) struct DatabaseOutage {
    _lock_holder: Option<Process>,
}

const ASK: &str = "import sqlite3, sys\n\
    with sqlite3.connect(sys.argv[1], timeout=10) as it:\n    \
        for row in it.execute(sys.argv[2]):\n        \
            print('|'.join('' if column is None else str(column) for column in row))";
const DUMP: &str = "import sqlite3, sys\n\
    for line in sqlite3.connect(sys.argv[1], timeout=10).iterdump(): print(line)";
const HOLD: &str = "import sqlite3, sys, time\n\
    it = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)\n\
    it.execute('BEGIN EXCLUSIVE')\n\
    print('held', flush=True)\n\
    time.sleep(600)";

fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    command
}

fn answered(output: &Output) -> Result<String, String> {
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(output_text(output))
    }
}
