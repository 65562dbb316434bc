//! Requests that gunicorn and Werkzeug were observed to route under `/external/`, in every spelling
//! tried, never reach upstream without a decision of the guard.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::world::{Kind, World, flask::in_repository};

/// Request, and how the real upstream routed it when it was sent directly.
#[derive(Deserialize)]
struct Spelling {
    target_b64: String,
    method: String,
    /// `None`: as in HTTP/0.9.
    version: Option<String>,
    headers: Vec<(String, String)>,
    family: String,
    /// Upstream routed it under `/external/`.
    must_guard: bool,
    /// Upstream did so because of a header that the gateway drops.
    needs_header_strip: bool,
}

impl Spelling {
    fn target(&self) -> Vec<u8> {
        STANDARD.decode(&self.target_b64).unwrap()
    }

    fn request(&self) -> Vec<u8> {
        let mut bytes = format!("{} ", self.method).into_bytes();
        bytes.extend(self.target());
        let Some(version) = &self.version else { return [&bytes, &b"\r\n\r\n"[..]].concat() };
        bytes.extend(format!(" {version}\r\nHost: gw.example\r\n").as_bytes());
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend(b"Connection: close\r\n\r\n");
        bytes
    }

    /// True if the request needs no token.
    fn is_open(&self) -> bool {
        let is_probe =
            matches!(&*self.method, "GET" | "HEAD") && self.target() == b"/external/healthcheck";
        !self.must_guard || self.needs_header_strip || is_probe
    }
}

#[tokio::test]
async fn no_path_spelling_reaches_external_routes_without_a_decision_of_the_guard() {
    let file = std::fs::read(in_repository("tests/data/spellings.json")).unwrap();
    let spellings: Vec<Spelling> = serde_json::from_slice(&file).unwrap();
    let world = World::start(Kind::Files).await;
    let mut open = HashSet::new();
    let (mut refused, mut passed) = (0, 0);
    for spelling in &spellings {
        let answer = world.gateway.raw(spelling.request()).await;
        // Encoding of gunicorn's log: Latin-1.
        let shown: String = spelling.target().into_iter().map(char::from).collect();
        let status = answer.get(9..12).unwrap_or("none");
        if spelling.is_open() {
            open.insert(shown);
            passed += 1;
        } else {
            let is_refused = ["400", "401", "404", "405", "414", "431", "501"].contains(&status);
            assert!(is_refused, "{} {shown}: {answer}", spelling.family);
            refused += 1;
        }
    }
    for line in world.upstream_log().await.lines().filter(|line| line.contains("external")) {
        let target = line.split(' ').nth(1).unwrap_or_default();
        assert!(open.contains(target), "reached upstream: {line}");
    }
    println!("{} spellings: {refused} refused, {passed} open", spellings.len());
}
