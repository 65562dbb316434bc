//! A real PostgreSQL on a free port, with a new cluster each time.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use super::{
    process::{Process, until},
    redis::free_port,
};

/// A server that listens on 127.0.0.1 only. The data folder is deleted with it.
pub(crate) struct Postgres {
    process: Option<Process>,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
}

/// Superuser of the cluster.
const ADMIN: (&str, &str) = ("postgres", "the-word-of-the-administrator");

/// The gateway's role. It owns the database of the same name, for `migrate` and `serve`.
const GATEWAY: (&str, &str) = ("gateway", "the-word-of-the-gateway");

impl Postgres {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with more settings, each `name=value` as for `postgres -c`.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut postgres = Self { process: None, port: free_port(), options, folder };
        postgres.make_cluster();
        postgres.start_again().await;
        let role = format!("CREATE ROLE {} LOGIN PASSWORD '{}'", GATEWAY.0, GATEWAY.1);
        postgres.ask_in("postgres", &role);
        postgres.make_database(GATEWAY.0);
        postgres
    }

    /// Starts with TLS as well, with `server.pem` and `server.key` of this folder.
    pub(crate) async fn start_with_tls(folder: &Path) -> Self {
        let mut postgres = Self::start().await;
        postgres.stop().await;
        for file in ["server.pem", "server.key"] {
            let own = postgres.folder.path().join(file);
            fs::copy(folder.join(file), &own).expect("a file");
            chown_to_server_user(&own);
            fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).expect("a file");
        }
        let file = |name: &str| postgres.folder.path().join(name).display().to_string();
        postgres.options = vec![
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("server.pem")),
            format!("ssl_key_file={}", file("server.key")),
        ];
        postgres.start_again().await;
        postgres
    }

    fn make_cluster(&self) {
        chown_to_server_user(self.folder.path());
        let password = self.folder.path().join("password");
        fs::write(&password, ADMIN.1).expect("a file");
        chown_to_server_user(&password);
        let mut initdb = self.program("initdb");
        initdb.arg("--pgdata").arg(self.data()).args(["--username", ADMIN.0]).arg("--pwfile");
        initdb.arg(password).args(["--auth", "scram-sha-256", "--no-sync", "--no-locale"]);
        initdb.args(["--encoding", "UTF8"]);
        run_to_success(&mut initdb);
    }

    /// Creates another database owned by the gateway's role.
    pub(crate) fn make_database(&self, name: &str) {
        self.ask_in("postgres", &format!("CREATE DATABASE {name} OWNER {}", GATEWAY.0));
    }

    /// Starts the server again on the same port with the same data.
    pub(crate) async fn start_again(&mut self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let fixed = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // Data need not survive a crash of the machine.
            "fsync=off",
            "max_connections=100",
        ];
        for option in fixed.into_iter().chain(self.options.iter().map(String::as_str)) {
            command.args(["-c", option]);
        }
        self.process = Some(Process::start(&mut command, &[], "QUIT"));
        until("postgres answers", async || self.try_ask("postgres", "SELECT 1").is_ok()).await;
    }

    /// Stops the server (fast shutdown, SIGINT): connected clients get an error message.
    pub(crate) async fn stop(&mut self) {
        self.end_by("INT").await;
    }

    /// Stops the server at once (immediate shutdown, SIGQUIT).
    pub(crate) async fn crash(&mut self) {
        self.end_by("QUIT").await;
    }

    async fn end_by(&mut self, signal: &str) {
        let mut process = self.process.take().expect("running");
        process.signal(signal);
        process.ended().await;
    }

    /// Freezes the server (SIGSTOP): connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        // The postmaster first: it would start new backends.
        self.signal_all("-STOP");
    }

    /// Undoes [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal_all("-CONT");
    }

    fn signal_all(&self, signal: &str) {
        let id = self.process.as_ref().expect("running").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
        assert!(Command::new("pkill").args([signal, "-P", &id]).status().expect("pkill").success());
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Value for `DATABASE_URL`.
    pub(crate) fn url(&self) -> String {
        self.url_of(GATEWAY.0)
    }

    /// URL of another database of the gateway's role.
    pub(crate) fn url_of(&self, database: &str) -> String {
        self.url_for(&format!("{}:{}", GATEWAY.0, GATEWAY.1), database)
    }

    /// URL with other credentials, percent-encoded as in a URL.
    pub(crate) fn url_for(&self, credentials: &str, database: &str) -> String {
        format!("postgres://{credentials}@{}/{database}", self.address())
    }

    /// psql's output for the gateway's database: one row per line, columns separated by `|`.
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.ask_in(GATEWAY.0, sql)
    }

    /// psql's output for another database.
    pub(crate) fn ask_in(&self, database: &str, sql: &str) -> String {
        self.try_ask(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// psql's output, or its error.
    pub(crate) fn try_ask(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = self.client("psql", database);
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--quiet", "--command", sql]);
        let output = psql.output().expect("psql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Locks a table against writes until [`Self::release_lock`].
    pub(crate) fn hold(&self, table: &str) -> Child {
        let sql = format!("LOCK TABLE {table} IN EXCLUSIVE MODE; SELECT pg_sleep(600)");
        let mut psql = self.client("psql", GATEWAY.0);
        psql.args(["--no-psqlrc", "--quiet", "--command", &sql]).stderr(Stdio::null());
        psql.stdout(Stdio::null()).spawn().expect("psql")
    }

    /// Releases the lock of [`Self::hold`].
    pub(crate) fn release_lock(&self, mut holder: Child) {
        self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()");
        holder.wait().expect("psql");
    }

    /// Content of the gateway's database as text.
    pub(crate) fn dump(&self) -> String {
        let output = run_to_success(&mut self.client("pg_dump", GATEWAY.0));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(binary(program));
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--username", ADMIN.0, "--dbname", database, "--no-password"]);
        command.env("PGPASSWORD", ADMIN.1).current_dir(self.folder.path());
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A PostgreSQL program run as an unprivileged user: the server refuses to run as root.
    fn program(&self, name: &str) -> Command {
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(binary(name));
            command
        } else {
            Command::new(binary(name))
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A server frozen by a failed test would not end.
        if let Some(process) = &self.process {
            let id = process.id().to_string();
            let _ = Command::new("kill").args(["-CONT", &id]).status();
            let _ = Command::new("pkill").args(["-CONT", "-P", &id]).status();
        }
    }
}

/// The user created by Debian's package.
const USER: &str = "postgres";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Debian installs the server programs outside `PATH`, one folder per version.
fn binary(name: &str) -> PathBuf {
    let version = |folder: &Path| {
        let text = folder.file_name()?.to_str()?;
        text.parse::<u32>().ok()
    };
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|entry| entry.path()).filter(|it| it.join("bin").join(name).exists());
    let newest = found.max_by_key(|folder| version(folder));
    newest.map_or_else(|| name.into(), |folder| folder.join("bin").join(name))
}

/// Gives a file or folder to the user that runs PostgreSQL.
fn chown_to_server_user(path: &Path) {
    if is_root() {
        let user = run_to_success(Command::new("id").args(["-u", USER]));
        let user = String::from_utf8_lossy(&user.stdout).trim().parse().expect("a user's id");
        chown(path, Some(user), None).expect("root");
    }
}

/// Runs a command until it exits and asserts success.
fn run_to_success(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
