//! Programs that `make setup` brings, each in a place of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use super::flask::in_repository;

/// A program of a venv under `target/python`.
pub(crate) fn installed(venv: &str, program: &str) -> PathBuf {
    in_repository("target/python").join(venv).join("bin").join(program)
}

/// All that a program has said.
pub(crate) fn told(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes);
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// What checkov makes of a folder. It passes over what it cannot read and ends with 0: the caller counts.
pub(crate) fn checkov(framework: &str, folder: &Path) -> Value {
    let mut command = Command::new(installed("checkov", "checkov"));
    command.args(["--skip-download", "--compact", "--framework", framework, "--output", "json"]);
    let output = command.arg("--directory").arg(folder).output().expect("run `make setup`");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", told(&output)));
    assert_eq!(report["summary"]["parsing_errors"], 0, "{}", report["summary"]);
    report
}
