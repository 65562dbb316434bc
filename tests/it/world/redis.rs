//! A real redis-server on a free port.

use std::{net::TcpListener, process::Command};

use super::process::{Process, until};

/// A server that keeps nothing on disk.
pub(crate) struct Redis {
    process: Option<Process>,
    port: u16,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut redis = Self { process: None, port };
        redis.begin().await;
        redis
    }

    /// Starts it, empty, where it was before.
    pub(crate) async fn begin(&mut self) {
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--port",
            &self.port.to_string(),
        ]);
        self.process = Some(Process::start(&mut command, &[], "KILL"));
        until("redis-server answers", async || {
            self.try_ask(&["PING"]).is_some_and(|answer| answer == "PONG")
        })
        .await;
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

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// What redis-cli prints.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).expect("redis-cli")
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(command).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }
}
