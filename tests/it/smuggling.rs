//! Payloads that have smuggled requests past other proxies.
//!
//! `CORPORA` names the folder of the corpora; `make test` sets it if they are available.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::world::{
    Kind, alone,
    process::until,
    recorder::Recorder,
    scripted::{Peer, text},
};

/// Statuses of a caller's answers without interim ones. `None`: not a sequence of complete answers.
fn statuses(mut got: &str) -> Option<Vec<u16>> {
    let mut found = Vec::new();
    while !got.is_empty() {
        let (head, rest) = got.split_once("\r\n\r\n")?;
        let status: u16 = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        got = rest;
        if status < 200 {
            continue;
        }
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1)?.split("\r\n").next()?.to_owned();
        let is_head = length.is_empty();
        got =
            if is_head { rest } else { rest.get(length.parse::<usize>().ok()?.min(rest.len())..)? };
        found.push(status);
    }
    Some(found)
}

/// Checks the answers to a payload.
fn check_answers(payload: &str, got: &str) -> Result<(), String> {
    let statuses =
        statuses(got).ok_or_else(|| format!("answers that cannot be separated: {got:?}"))?;
    // Bytes after the last request may be refused, because they are not a request.
    let is_refusal = |status: &u16| matches!(status, 400 | 408 | 414 | 431 | 501);
    let served = statuses.iter().filter(|status| !is_refusal(status)).count();
    let requests = payload.matches(" HTTP/").count();
    if served > requests {
        return Err(format!("{served} answers to {requests} requests"));
    }
    for (at, status) in statuses.iter().enumerate() {
        let is_last = at + 1 == statuses.len();
        match status {
            200 | 401 | 404 | 405 => {}
            status if is_last && is_refusal(status) => {}
            _ => return Err(format!("{status} as answer {at} of {}", statuses.len())),
        }
    }
    Ok(())
}

async fn replay(file: &Path) {
    let corpus: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let upstream = Recorder::start().await;
    let more = [("GATEWAY_UPSTREAM_URL", upstream.url.as_str()), ("GATEWAY_TIMEOUT_HEAD", "2s")];
    let (gateway, _entra, _store) = alone(Kind::Files, &more).await;
    gateway.wait_until_it_has_keys().await;
    until("upstream answered", async || gateway.is_ready().await).await;
    upstream.take();

    let mut replays = JoinSet::new();
    let mut problems: BTreeMap<String, String> = BTreeMap::new();
    let (mut count, mut refused) = (0, 0);
    for case in corpus["cases"].as_array().unwrap() {
        let payload = STANDARD.decode(case["raw_b64"].as_str().unwrap()).unwrap();
        let name = format!("{} {}", case["family"], case["name"]);
        let address = gateway.address().to_owned();
        if replays.len() >= 32 {
            note(replays.join_next().await.unwrap().unwrap(), &mut problems, &mut refused);
        }
        count += 1;
        replays.spawn(async move {
            let mut caller = Peer::connect(&address).await;
            // The gateway may refuse before the payload is sent completely.
            let _ = caller.try_send(&payload).await;
            let _ = caller.try_finish().await;
            (name, text(&payload), caller.rest().await)
        });
    }
    while let Some(replay) = replays.join_next().await {
        note(replay.unwrap(), &mut problems, &mut refused);
    }
    let record = upstream.take();
    for target in record.targets.iter().filter(|target| target.contains("CANARY")) {
        problems.insert(target.clone(), "reached upstream".to_owned());
    }
    assert!(record.malformed.is_empty(), "upstream got {:?}", record.malformed);
    assert!(problems.is_empty(), "{} of {count}: {problems:#?}", problems.len());
    println!("{count} payloads, {refused} refused, {} requests passed on", record.targets.len());
    assert!(refused * 2 > count, "{refused} of {count} refused: is it the right corpus?");
}

fn note(
    (name, payload, got): (String, String, String),
    problems: &mut BTreeMap<String, String>,
    refused: &mut usize,
) {
    *refused += usize::from(!got.contains("HTTP/1.1 200"));
    if let Err(problem) = check_answers(&payload, &got) {
        problems.insert(name, format!("{problem}: {payload:?} got {got:?}"));
    }
}

#[tokio::test]
async fn no_payload_smuggles_a_request_past_the_guard() {
    let folder = std::env::vars_os().find(|(name, _)| name == "CORPORA").map(|(_, folder)| folder);
    let Some(folder) = folder.filter(|folder| !folder.is_empty()) else {
        println!("skipped: CORPORA names no folder");
        return;
    };
    for name in ["smuggling.json", "smuggling_garden.json"] {
        replay(&Path::new(&folder).join("public").join(name)).await;
    }
}
