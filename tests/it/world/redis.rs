//! A real redis-server on a free port.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;

use super::process::{Process, until};

/// A server that keeps nothing on disk.
pub(crate) struct Redis {
    process: Option<Process>,
    port: u16,
    options: Vec<String>,
    folder: TempDir,
    /// Speaks TLS alone, with what lies in this folder.
    tls: Option<PathBuf>,
}

/// As whom redis-cli comes, whatever becomes of other users.
const ADMIN: &str = "redis-cli";

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more options, as on its command line.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::start_at(None, options).await
    }

    /// `ca.pem`, `server.pem` and `server.key` lie in the folder; the certificate is for `localhost`.
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

    /// Starts it, empty, where it was before.
    pub(crate) async fn begin(&mut self) {
        self.begin_silently();
        until("redis-server answers", async || {
            self.try_ask(&["PING"]).is_some_and(|answer| answer == "PONG")
        })
        .await;
    }

    /// The same without waiting until it answers.
    pub(crate) fn begin_silently(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        // What it needs of a disk to be somebody's replica lies elsewhere, and goes.
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

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.process = None;
    }

    /// Freezes it: connections stand, nothing answers.
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

    /// The same for a user and his password, as they stand in a URL.
    pub(crate) fn url_for(&self, credentials: &str) -> String {
        self.url().replacen("://", &format!("://{credentials}@"), 1)
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What redis-cli prints.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).expect("redis-cli")
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        ask(self.port, self.tls.is_some(), command)
    }
}

/// What redis-cli prints of a server on this host.
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

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    // Below those that the kernel hands out to whoever asks for any.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 50).unwrap_or_default() * 200;
    loop {
        let port = 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
