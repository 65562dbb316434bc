//! Programs installed by `make setup`, each in its own folder.

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

/// stdout and stderr of a finished program.
pub(crate) fn output_text(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes);
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// checkov's report on a folder. checkov skips unreadable files and still exits 0, so the caller
/// must check the number of results.
pub(crate) fn checkov(framework: &str, folder: &Path) -> Value {
    let mut command = Command::new(installed("checkov", "checkov"));
    command.args(["--skip-download", "--compact", "--framework", framework, "--output", "json"]);
    let output = command.arg("--directory").arg(folder).output().expect("run `make setup`");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", output_text(&output)));
    assert_eq!(report["summary"]["parsing_errors"], 0, "{}", report["summary"]);
    report
}
