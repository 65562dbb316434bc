//! A real redis-server on a free port.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;

use super::process::{Process, until};

/// A server without persistence.
pub(crate) struct Redis {
    process: Option<Process>,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
    /// Folder with the TLS files; the server then accepts TLS only.
    tls: Option<PathBuf>,
}

/// User for redis-cli, independent of the users that a test changes.
const ADMIN: &str = "redis-cli";

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with more command-line options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::start_at(None, options).await
    }

    /// Starts with TLS. The folder holds `ca.pem`, `server.pem` and `server.key`; the certificate
    /// is for `localhost`.
    pub(crate) async fn start_with_tls(folder: &Path, options: &[&str]) -> Self {
        Self::start_at(Some(folder.to_owned()), options).await
    }

    async fn start_at(tls: Option<PathBuf>, options: &[&str]) -> Self {
        let port = free_port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut redis = Self { process: None, port, options, folder, tls };
        redis.begin().await;
        redis
    }

    /// Starts the server, empty, on the same port.
    pub(crate) async fn begin(&mut self) {
        self.begin_without_waiting();
        until("redis-server answers", async || {
            self.try_ask(&["PING"]).is_some_and(|answer| answer == "PONG")
        })
        .await;
    }

    /// Starts the server without waiting for its first answer.
    pub(crate) fn begin_without_waiting(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        // A replica writes its replication file here; it is deleted after use.
        command.arg("--dir").arg(self.folder.path()).args(["--rdb-del-sync-files", "yes"]);
        command.args(["--user", ADMIN, "on", &format!(">{ADMIN}"), "~*", "&*", "+@all"]);
        let port = self.port.to_string();
        if let Some(folder) = &self.tls {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]);
            for (option, file) in [
                ("--tls-ca-cert-file", "ca.pem"),
                ("--tls-cert-file", "server.pem"),
                ("--tls-key-file", "server.key"),
            ] {
                command.arg(option).arg(folder.join(file));
            }
        } else {
            command.args(["--port", &port]);
        }
        command.args(&self.options);
        self.process = Some(Process::start(&mut command, &[], "KILL"));
    }

    /// Ends the server.
    pub(crate) fn end(&mut self) {
        self.process = None;
    }

    /// Freezes the server (SIGSTOP): connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.process.as_ref().expect("running").signal("STOP");
    }

    /// Undoes [`Self::freeze`].
    pub(crate) fn thaw(&self) {
        self.process.as_ref().expect("running").signal("CONT");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        match self.tls {
            Some(_) => format!("rediss://localhost:{}/0", self.port),
            None => format!("redis://127.0.0.1:{}/0", self.port),
        }
    }

    /// URL with credentials, percent-encoded as in a URL.
    pub(crate) fn url_for(&self, credentials: &str) -> String {
        self.url().replacen("://", &format!("://{credentials}@"), 1)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// redis-cli's output.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).expect("redis-cli")
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        ask(self.port, self.tls.is_some(), command)
    }
}

/// redis-cli's output for a server on this host.
pub(crate) fn ask_at(port: u16, command: &[&str]) -> Option<String> {
    ask(port, false, command)
}

fn ask(port: u16, tls: bool, command: &[&str]) -> Option<String> {
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &port.to_string(), "--user", ADMIN, "--pass", ADMIN, "--no-auth-warning"]);
    if tls {
        cli.args(["-h", "localhost", "--tls", "--insecure"]);
    }
    let output = cli.args(command).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// A free port.
pub(crate) fn free_port() -> u16 {
    // Below the kernel's range of ephemeral ports.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 50).unwrap_or_default() * 200;
    loop {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
