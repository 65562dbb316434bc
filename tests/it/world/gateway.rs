//! The real binary, on a free port.

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

/// A running gateway. When it ends, nothing that it wrote may hold a secret.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    address: String,
    secrets: Secrets,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.secrets.assert_absent_in(&self.process.said_in_all());
        }
    }
}

/// The gateway's FIPS build, where `make fips` has it tried in place of the usual one.
pub(crate) fn fips_binary() -> Option<PathBuf> {
    let named = std::env::vars_os().find(|(name, _)| name == "GATEWAY_FIPS_BINARY");
    named.map(|(_, path)| path.into())
}

/// Whether the gateway runs as the image would run it, which `make image-check` asks for, and its neighbours as
/// the image's user.
pub(crate) fn is_image() -> bool {
    std::env::vars_os().any(|(name, _)| name == "GATEWAY_IMAGE")
}

/// User and group of the images, SimpleChat's among them.
pub(crate) const IMAGE_USER: u32 = 65532;

/// The binary that was built beside this one, unless another is named, as `make soak` does.
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

/// Runs a command to its end.
pub(crate) async fn run(settings: &[(String, String)], arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.env_clear().envs(settings.iter().cloned()).args(arguments);
    // Entra and others are served on this thread meanwhile.
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    let output = ended.expect("a thread").expect("the binary");
    // The document shows what an id looks like.
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

    /// One that ignores a signal from its start on.
    pub(crate) async fn start_ignoring(settings: &[(String, String)], signal: &str) -> Self {
        let script = format!("trap '' {signal}; exec \"$0\"");
        Self::start_by(Command::new("sh").args(["-c", &script]).arg(binary()), settings).await
    }

    /// By a command that becomes the gateway.
    pub(crate) async fn start_by(command: &mut Command, settings: &[(String, String)]) -> Self {
        let mut process = Process::start(command, settings, "KILL");
        let address = process.said("listening on http://").await;
        // The log comes by another pipe.
        until("its log says so", async || process.log().contains("\"listening\"")).await;
        Self { process, address, secrets: Secrets::of(settings) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where operators look.
    pub(crate) fn ops_url(&self, path: &str) -> Option<String> {
        let log = self.process.log();
        let line = log.lines().find(|line| line.contains("operators' listener"))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(format!("http://{}{path}", line["address"].as_str()?))
    }

    /// Keys are fetched in the background.
    pub(crate) async fn wait_until_it_has_keys(&self) {
        until("the gateway has keys", async || {
            self.process.log().contains("signing keys refreshed")
        })
        .await;
    }

    /// Ready as a probe sees it.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer = client().get(self.url("/gateway/health/ready")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// Sends bytes as they are and reads until the other side closes.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(&self.address).await.expect("a connection");
        stream.write_all(request.as_ref()).await.expect("sent");
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let in_time = tokio::time::timeout(super::process::PATIENCE, read).await;
        in_time.expect("the connection stays open").ok();
        String::from_utf8_lossy(&answer).into_owned()
    }
}
