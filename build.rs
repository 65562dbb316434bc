//! Tells the program which commit it was built from, so that a deployment can be traced.

use std::process::Command;

fn main() {
    // The compiler notices when one of them changes, not when there is another.
    println!("cargo::rerun-if-changed=migrations");
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    // Image builds have no history: they say it themselves.
    let given = std::env::var_os("SOURCE_COMMIT").and_then(|commit| commit.into_string().ok());
    let asked = || {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success()).then(|| text.trim().to_owned())
    };
    let commit = given.filter(|commit| !commit.is_empty()).or_else(asked);
    println!("cargo::rustc-env=COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}
