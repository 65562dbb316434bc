//! The real binary on a free port.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    client,
    flask::in_repository,
    process::{Process, until},
    secrets::Secrets,
};

/// A running gateway. `Drop` asserts that its output holds no secret.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    address: String,
    secrets: Secrets,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.secrets.assert_absent_in(&self.process.all_output());
        }
    }
}

/// Path of the FIPS build, set by `make fips`.
pub(crate) fn fips_binary() -> Option<PathBuf> {
    let named = std::env::vars_os().find(|(name, _)| name == "GATEWAY_FIPS_BINARY");
    named.map(|(_, path)| path.into())
}

/// True under `make image-check`: the gateway runs as in its image, and upstream and the other
/// servers as the image's user.
pub(crate) fn is_image() -> bool {
    std::env::vars_os().any(|(name, _)| name == "GATEWAY_IMAGE")
}

/// User and group id of the images, SimpleChat's included.
pub(crate) const IMAGE_USER: u32 = 65532;

/// The binary built with this test, unless `GATEWAY_BINARY` (set by `make soak`) or the FIPS build
/// replaces it.
pub(crate) fn binary() -> PathBuf {
    if is_image() {
        return in_repository("tests/image/enter");
    }
    let named = std::env::vars_os().find(|(name, _)| name == "GATEWAY_BINARY");
    if let Some(binary) = named.map(|(_, path)| path.into()).or_else(fips_binary) {
        return binary;
    }
    let this = std::env::current_exe().expect("an executable");
    let folder = this.parent().and_then(|folder| folder.parent()).expect("a target folder");
    folder.join("simplechat-gateway")
}

/// Runs a command until it exits.
pub(crate) async fn run(settings: &[(String, String)], arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.env_clear().envs(settings.iter().cloned()).args(arguments);
    // `spawn_blocking`: the Entra stand-in and others are served on this thread.
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    let output = ended.expect("a thread").expect("the binary");
    // The OpenAPI document holds an example of a session id.
    if arguments == ["openapi"] {
        return output;
    }
    let secrets = Secrets::of(settings);
    for written in [&output.stdout, &output.stderr] {
        secrets.assert_absent_in(&String::from_utf8_lossy(written));
    }
    output
}

impl Gateway {
    pub(crate) async fn start(settings: &[(String, String)]) -> Self {
        Self::start_by(&mut Command::new(binary()), settings).await
    }

    /// Starts a gateway that ignores a signal from the start.
    pub(crate) async fn start_ignoring(settings: &[(String, String)], signal: &str) -> Self {
        let script = format!("trap '' {signal}; exec \"$0\"");
        Self::start_by(Command::new("sh").args(["-c", &script]).arg(binary()), settings).await
    }

    /// Starts the gateway by a command that executes it.
    pub(crate) async fn start_by(command: &mut Command, settings: &[(String, String)]) -> Self {
        let mut process = Process::start(command, settings, "KILL");
        let address = process.stdout_after("listening on http://").await;
        // The log uses another pipe than the line above.
        until("the log reports the listener", async || process.log().contains("\"listening\""))
            .await;
        Self { process, address, secrets: Secrets::of(settings) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// URL on the operators' listener.
    pub(crate) fn ops_url(&self, path: &str) -> Option<String> {
        let log = self.process.log();
        let line = log.lines().find(|line| line.contains("operators' listener"))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(format!("http://{}{path}", line["address"].as_str()?))
    }

    /// Waits until signing keys are loaded; the gateway fetches them in the background.
    pub(crate) async fn wait_until_it_has_keys(&self) {
        until("the gateway has keys", async || {
            self.process.log().contains("signing keys refreshed")
        })
        .await;
    }

    /// True if the readiness probe answers 200.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer = client().get(self.url("/gateway/health/ready")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// Sends raw bytes and reads until the peer closes.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(&self.address).await.expect("a connection");
        stream.write_all(request.as_ref()).await.expect("sent");
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let in_time = tokio::time::timeout(super::process::TEST_TIMEOUT, read).await;
        in_time.expect("the gateway closes the connection").ok();
        String::from_utf8_lossy(&answer).into_owned()
    }
}
