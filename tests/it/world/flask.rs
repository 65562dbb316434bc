//! `tests/upstream` under a real gunicorn, as SimpleChat runs it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    API, client,
    gateway::{IMAGE_USER, is_image},
    json,
    process::{Process, until},
};

/// The running upstream.
pub(crate) struct Flask {
    process: Process,
    address: String,
}

/// A file of this repository.
pub(crate) fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Python with upstream's packages; `make` sets it up.
pub(crate) fn python() -> PathBuf {
    in_repository(".venv/bin/python")
}

/// The same as the user whom SimpleChat's image has. It may read what it cannot write: Python is often at home with
/// somebody else.
fn as_image_user() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--reuid={IMAGE_USER}"), &format!("--regid={IMAGE_USER}")])
        .args(["--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"])
        .arg(python());
    command
}

impl Flask {
    pub(crate) async fn start(environment: &[(String, String)]) -> Self {
        let flask = Self::start_unprimed(environment).await;
        flask.prime().await;
        flask
    }

    /// With workers that have served nothing yet.
    pub(crate) async fn start_unprimed(environment: &[(String, String)]) -> Self {
        let mut environment = environment.to_vec();
        for (name, value) in [("GUNICORN_BIND", "127.0.0.1:0"), ("PYTHONDONTWRITEBYTECODE", "1")] {
            if !environment.iter().any(|(given, _)| given == name) {
                environment.push((name.to_owned(), value.to_owned()));
            }
        }
        let mut command = if is_image() { as_image_user() } else { Command::new(python()) };
        command
            .args(["-m", "gunicorn", "-c"])
            .arg(in_repository("tests/upstream/gunicorn.conf.py"));
        let mut process = Process::start(&mut command, &environment, "INT");
        let address = process.said("upstream listening on ").await;
        Self { process, address }
    }

    /// SimpleChat treats the first request of each worker as anonymous. Here that is over.
    pub(super) async fn prime(&self) {
        if self.address.starts_with('/') {
            return;
        }
        let ready = std::cell::RefCell::new(HashSet::new());
        until("both workers are past their first request", async || {
            // Without keep-alive, so that either worker may take it.
            let ask = |path: &str| {
                client().get(format!("{}{path}", self.url())).header("connection", "close").send()
            };
            ask(API).await.expect("an answer");
            let state = json(ask("/test/pid").await.expect("an answer")).await;
            if state["initialized"] == true {
                ready.borrow_mut().insert(state["pid"].to_string());
            }
            ready.borrow().len() == 2
        })
        .await;
    }

    /// Ends it and its workers at once, in the middle of whatever they do.
    pub(crate) fn kill(self) {
        let pid = self.process.id().to_string();
        // Workers first: the master would start others.
        for arguments in [["-STOP", &pid], ["-KILL", &pid]] {
            let _ = Command::new("kill").args(arguments).status();
            let _ = Command::new("pkill").args(["-KILL", "-P", &pid]).status();
        }
    }

    /// Process ids of workers that have been started.
    pub(crate) fn workers(&self) -> Vec<String> {
        let log = self.log();
        let pid = |line: &str| line.split("Booting worker with pid: ").nth(1).map(str::to_owned);
        log.lines().filter_map(pid).collect()
    }

    /// Has every worker replaced, as a deployment does.
    pub(crate) fn replace_workers(&self) {
        self.process.signal("HUP");
    }

    /// For `GATEWAY_UPSTREAM_URL`.
    pub(crate) fn url(&self) -> String {
        if self.address.starts_with('/') {
            format!("unix:{}", self.address)
        } else {
            format!("http://{}", self.address)
        }
    }

    /// Its access log: request lines with status.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
