//! A child process whose output is read while it runs, and which ends when it is dropped.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Timeout of every wait in the tests.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A child and its output so far.
pub(crate) struct Process {
    child: Child,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    /// The signal that ends it on `Drop`.
    signal: &'static str,
}

impl Process {
    /// Starts a command with these environment variables and `PATH`.
    pub(crate) fn start(
        command: &mut Command,
        environment: &[(String, String)],
        signal: &'static str,
    ) -> Self {
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
        command.envs(environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = follow(child.stdout.take().expect("piped"));
        let stderr = follow(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr, signal }
    }

    /// The text after `prefix` in the first stdout line that begins with it; waits for that line.
    pub(crate) async fn stdout_after(&mut self, prefix: &str) -> String {
        let begun = Instant::now();
        loop {
            let line = lines(&self.stdout)
                .into_iter()
                .find_map(|l| l.strip_prefix(prefix).map(str::to_owned));
            if let Some(rest) = line {
                return rest;
            }
            let ended = self.child.try_wait().expect("a child");
            assert!(
                ended.is_none() && begun.elapsed() < TEST_TIMEOUT,
                "no line {prefix:?} on stdout ({ended:?}):\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// stderr so far.
    pub(crate) fn log(&self) -> String {
        lines(&self.stderr).join("\n")
    }

    /// stdout and stderr so far.
    pub(crate) fn all_output(&self) -> String {
        format!("{}\n{}", lines(&self.stdout).join("\n"), self.log())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("kill").success(), "kill -s {name} {id}");
    }

    /// Waits until the process exits.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(begun.elapsed() < TEST_TIMEOUT, "still runs:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal(self.signal);
            let begun = Instant::now();
            while self.is_running() && begun.elapsed() < Duration::from_secs(5) {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn follow(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let read = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&read);
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    read
}

fn lines(of: &Mutex<Vec<String>>) -> Vec<String> {
    of.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Waits until a condition is true; polls it.
pub(crate) async fn until<F: Future<Output = bool>>(
    condition: &str,
    mut is_true: impl FnMut() -> F,
) {
    let begun = Instant::now();
    while !is_true().await {
        assert!(begun.elapsed() < TEST_TIMEOUT, "not within {TEST_TIMEOUT:?}: {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
