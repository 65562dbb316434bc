//! `tests/upstream` under a real gunicorn, started as SimpleChat starts it.

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

/// Path of a file in this repository.
pub(crate) fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Python with upstream's packages; `make` creates the venv.
pub(crate) fn python() -> PathBuf {
    in_repository(".venv/bin/python")
}

/// Python as the user of SimpleChat's image. `dac_read_search` lets it read Python's files, which
/// often belong to another user.
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

    /// Starts workers that have served no request.
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
        let address = process.stdout_after("upstream listening on ").await;
        Self { process, address }
    }

    /// Sends requests until every worker has served one. SimpleChat treats the first request of
    /// each worker as anonymous.
    pub(super) async fn prime(&self) {
        if self.address.starts_with('/') {
            return;
        }
        let ready = std::cell::RefCell::new(HashSet::new());
        until("both workers have served their first request", async || {
            // No keep-alive, so that either worker may accept it.
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

    /// Kills the master and its workers at once, also during a request.
    pub(crate) fn kill(self) {
        let pid = self.process.id().to_string();
        // The stopped master cannot start new workers while they are killed.
        for arguments in [["-STOP", &pid], ["-KILL", &pid]] {
            let _ = Command::new("kill").args(arguments).status();
            let _ = Command::new("pkill").args(["-KILL", "-P", &pid]).status();
        }
    }

    /// Process ids of all workers started so far.
    pub(crate) fn workers(&self) -> Vec<String> {
        let log = self.log();
        let pid = |line: &str| line.split("Booting worker with pid: ").nth(1).map(str::to_owned);
        log.lines().filter_map(pid).collect()
    }

    /// Replaces every worker, as a deployment does.
    pub(crate) fn replace_workers(&self) {
        self.process.signal("HUP");
    }

    /// Value for `GATEWAY_UPSTREAM_URL`.
    pub(crate) fn url(&self) -> String {
        if self.address.starts_with('/') {
            format!("unix:{}", self.address)
        } else {
            format!("http://{}", self.address)
        }
    }

    /// Access log: request lines with status.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}
