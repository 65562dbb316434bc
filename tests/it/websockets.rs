//! Autobahn's WebSocket cases have the same results for an echo server with and without the
//! gateway.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use serde_json::Value;

use crate::world::{Kind, alone, flask::in_repository, process::Process};

/// Framing, control frames, reserved bits, opcodes, fragmentation, UTF-8, closing; 10 is a
/// regression. 9 is load, 12 and 13 compression: `make soak`.
const GROUPS: &str = "1 2 3 4 5 6 7 10";
const MORE_GROUPS: &str = "9 12.1 13.1";

type Verdicts = BTreeMap<String, Value>;

fn python(script: &str) -> Command {
    let mut command = Command::new(in_repository("target/python/autobahn/bin/python"));
    command.arg(in_repository("tests/autobahn").join(script));
    command
}

async fn run_suite(address: &str, into: &Path, groups: &str) -> Verdicts {
    let mut command = python("fuzz.py");
    command.arg(in_repository("target/python/autobahn/ported"));
    command.arg(format!("ws://{address}/echo")).arg(into).args(groups.split(' '));
    // The suite's own server and client report every frame that is invalid on purpose.
    command.stderr(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.status()).await.unwrap();
    assert!(ended.as_ref().is_ok_and(ExitStatus::success), "{ended:?}: was `make setup` run?");
    serde_json::from_slice(&std::fs::read(into).unwrap()).unwrap()
}

async fn assert_same_verdicts(groups: &str, at_least: usize) {
    let mut echo = Process::start(&mut python("echo.py"), &[], "TERM");
    let direct = format!("127.0.0.1:{}", echo.stdout_after("listening on ").await);
    let upstream = format!("http://{direct}");
    let (gateway, _entra, _store) =
        alone(Kind::Files, &[("GATEWAY_UPSTREAM_URL", upstream.as_str())]).await;
    let folder = tempfile::tempdir().unwrap();
    let (without, with) = (folder.path().join("without.json"), folder.path().join("with.json"));
    let (without, with) = tokio::join!(
        run_suite(&direct, &without, groups),
        run_suite(gateway.address(), &with, groups)
    );
    assert!(without.len() >= at_least, "{} cases", without.len());
    let good = without.values().filter(|verdict| verdict["behavior"] == "OK").count();
    assert!(
        good * 20 >= without.len() * 19,
        "{good} of {} pass without the gateway",
        without.len()
    );
    let differ: Vec<_> =
        without.iter().filter(|(case, verdict)| with[*case] != **verdict).collect();
    assert!(differ.is_empty(), "without: {differ:#?}");
    println!("{} cases, {good} OK, the same with the gateway", with.len());
}

#[tokio::test]
async fn autobahn_verdicts_are_the_same_through_the_gateway() {
    assert_same_verdicts(GROUPS, 240).await;
}

#[tokio::test]
async fn autobahn_verdicts_on_load_and_compression_are_the_same() {
    if crate::soak::is_full() {
        assert_same_verdicts(MORE_GROUPS, 80).await;
    }
}
