//! The pull request's MCP server as a client: Python's requests, over http and https.

use std::{process::Command, sync::Arc};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::world::{
    Kind, World,
    flask::{in_repository, python},
};

/// Terminates TLS as a platform's edge does and says so to the gateway. One request a connection.
async fn tls_edge(gateway: String, certificate: &CertifiedKey<rcgen::KeyPair>) -> u16 {
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, gateway) = (acceptor.clone(), gateway.clone());
            tokio::spawn(async move {
                let mut caller = acceptor.accept(stream).await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(caller.read_u8().await.unwrap());
                }
                let head =
                    String::from_utf8(head).unwrap().replace("Connection: keep-alive\r\n", "");
                let added = "X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";
                let head = format!("{}\r\n{added}", head.trim_end());
                let mut there = TcpStream::connect(gateway).await.unwrap();
                there.write_all(head.as_bytes()).await.unwrap();
                let _ = copy_bidirectional(&mut caller, &mut there).await;
            });
        }
    });
    port
}

/// Runs the client and returns what it saw.
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

fn went_well(seen: &Value) {
    assert_eq!(seen["login"], 200, "{seen}");
    assert_eq!(seen["cookie_sent"], true, "{seen}");
    let calls = seen["calls"].as_object().unwrap();
    assert!(calls.len() >= 10, "{seen}");
    for (path, status) in calls {
        // Without an active group or public workspace SimpleChat answers 400.
        let needs_choice = path.contains("/group_")
            || path.contains("/public_documents")
            || path.contains("/public_prompts");
        assert_eq!(*status, if needs_choice { 400 } else { 200 }, "{path}: {seen}");
    }
}

#[tokio::test]
async fn the_mcp_servers_conversation_works_over_http() {
    let world = World::start(Kind::Redis).await;
    let origin = format!("http://{}", world.gateway.address());
    went_well(&converse(origin, world.entra.token().build(), None).await);
}

#[tokio::test]
async fn the_mcp_servers_conversation_works_over_https() {
    let world = World::start(Kind::Redis).await;
    let certificate = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate.cert.pem()).unwrap();
    let port = tls_edge(world.gateway.address().to_owned(), &certificate).await;
    let origin = format!("https://localhost:{port}");
    let ca = Some(ca.display().to_string());
    went_well(&converse(origin, world.entra.token().build(), ca).await);
}
