//! The pull request's MCP server as a client: Python's requests, over http and https.

use std::process::Command;

use serde_json::Value;

use crate::{
    tls_edge::TlsEdge,
    world::{
        Kind, World,
        flask::{in_repository, python},
    },
};

/// Runs the client and returns its report.
async fn converse(origin: String, token: String, ca: Option<String>) -> Value {
    let script = in_repository("tests/clients/mcp_server_conversation.py");
    let mut command = Command::new(python());
    command.env_clear().env("MCP_BEARER", token).arg(script).arg(origin);
    if let Some(ca) = ca {
        command.args(["--ca", &ca]);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn assert_all_calls_succeeded(report: &Value) {
    assert_eq!(report["login"], 200, "{report}");
    assert_eq!(report["cookie_sent"], true, "{report}");
    let calls = report["calls"].as_object().unwrap();
    assert!(calls.len() >= 10, "{report}");
    for (path, status) in calls {
        // Without an active group or public workspace SimpleChat answers 400.
        let needs_choice = path.contains("/group_")
            || path.contains("/public_documents")
            || path.contains("/public_prompts");
        assert_eq!(*status, if needs_choice { 400 } else { 200 }, "{path}: {report}");
    }
}

#[tokio::test]
async fn the_mcp_servers_conversation_works_over_http() {
    let world = World::start(Kind::Redis).await;
    let origin = format!("http://{}", world.gateway.address());
    assert_all_calls_succeeded(&converse(origin, world.entra.token().build(), None).await);
}

#[tokio::test]
async fn the_mcp_servers_conversation_works_over_https() {
    let world = World::start(Kind::Redis).await;
    let edge = TlsEdge::start(world.gateway.address().to_owned()).await;
    assert_all_calls_succeeded(
        &converse(edge.url(), world.entra.token().build(), Some(edge.ca())).await,
    );
}
