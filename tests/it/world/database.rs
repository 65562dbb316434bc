//! Either database, asked around the gateway: a file, or a real PostgreSQL.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use super::{hand_over, postgres::Postgres, process::Process, tools::told};

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatabaseKind {
    Sqlite,
    Postgres,
}

/// Both of them: what holds for one must hold for the other.
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
                hand_over(folder.path());
                Self::Sqlite(folder)
            }
            DatabaseKind::Postgres => Self::Postgres(Postgres::start().await),
        }
    }

    /// For `DATABASE_URL`.
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

    /// Rows as text: a row a line, `|` between columns. What it changes, it commits.
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.try_ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, or what the database complains of.
    pub(crate) fn try_ask(&self, sql: &str) -> Result<String, String> {
        match self {
            Self::Sqlite(_) => {
                answered(&python(ASK).arg(self.file()).arg(sql).output().expect("python3"))
            }
            Self::Postgres(postgres) => postgres.try_ask("gateway", sql),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self, of: &str) -> usize {
        let answer = self.ask(&format!("SELECT count(*) FROM {of}"));
        answer.parse().unwrap_or_else(|_| panic!("{of}: {answer}"))
    }

    /// Unix milliseconds, by its own clock.
    pub(crate) fn now(&self) -> i64 {
        let seconds = self.ask(match self {
            Self::Sqlite(_) => "SELECT strftime('%s', 'now')",
            Self::Postgres(_) => "SELECT extract(epoch FROM now())::bigint",
        });
        seconds.parse::<i64>().expect("a number") * 1000
    }

    /// All that it holds, as text.
    pub(crate) fn dump(&self) -> String {
        match self {
            Self::Sqlite(_) => {
                answered(&python(DUMP).arg(self.file()).output().expect("python3")).expect("a dump")
            }
            Self::Postgres(postgres) => postgres.dump(),
        }
    }

    /// Takes it away: `SQLite`'s file is held by another program, PostgreSQL is stopped.
    pub(crate) async fn take_away(&mut self) -> Away {
        match self {
            Self::Sqlite(_) => {
                let mut process = Process::start(python(HOLD).arg(self.file()), &[], "KILL");
                process.said("held").await;
                Away { _holder: Some(process) }
            }
            Self::Postgres(postgres) => {
                postgres.stop().await;
                Away { _holder: None }
            }
        }
    }

    /// Gives it back.
    pub(crate) async fn give_back(&mut self, away: Away) {
        drop(away);
        if let Self::Postgres(postgres) = self {
            postgres.start_again().await;
        }
    }
}

/// A database that is away; who holds it ends with this.
pub(crate) struct Away {
    _holder: Option<Process>,
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
        Err(told(output))
    }
}
