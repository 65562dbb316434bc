//! The gateway's interpretation of a target equals that of real gunicorn and Werkzeug.

use std::process::Command;

use tokio::task::JoinSet;

use crate::{
    dice::Dice,
    flask_path::{Target, upstream_path},
    world::{
        flask::{in_repository, python},
        process::Process,
        scripted::Peer,
    },
};

/// Total number of targets, and number of connections.
const TARGETS: usize = 8000;
const CONNECTIONS: usize = 4;

const PIECES: &[&str] = &[
    "/",
    "//",
    "///",
    "external",
    "/external/",
    "login",
    "api",
    "%2f",
    "%2F",
    "%65",
    "%78ternal",
    "exter",
    "nal",
    "%25",
    "%2565",
    ".",
    "..",
    "%2e",
    "%2E%2E",
    "\\",
    "%5C",
    "%09",
    "%0d",
    "%0A",
    "%00",
    "%20",
    "%",
    "%2",
    "%zz",
    "%C3%A4",
    "%ff",
    ";",
    ";a=b",
    ":",
    "@",
    "?",
    "?x=/external/",
    "%3F",
    "%23",
    "&",
    "=",
    "+",
    "~",
    "External",
    "EXTERNAL",
    "|",
    "\"",
    "`",
    "{",
    "^",
    "[",
    "]",
    "x",
];

fn target(dice: &mut Dice) -> String {
    let mut target = ["/", "//", "/external", "/%65xternal"][dice.below(4)].to_owned();
    for _ in 0..dice.below(7) {
        target.push_str(PIECES[dice.below(PIECES.len())]);
    }
    target
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// Sends targets on one connection. Returns how many were routed or redirected to `/external/`.
async fn compare(address: String, seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let mut peer = Peer::connect(&address).await;
    let mut external = 0;
    for _ in 0..TARGETS / CONNECTIONS {
        let target = target(&mut dice);
        peer.send(format!("GET {target} HTTP/1.1\r\nHost: gw.example\r\n\r\n")).await;
        let head = peer.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
        let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split('\r').next());
        let body = peer.bytes(length.unwrap().parse().unwrap()).await;
        let [_, matched, verdict] = body.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{body}")
        };
        let expected = upstream_path(target.as_bytes());
        assert_eq!(
            bytes(matched).escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{target}"
        );
        if verdict != "open" {
            let path = target.split('?').next().unwrap();
            assert_ne!(Target::read(path), Target::Open, "{target} is {verdict}");
            external += 1;
        }
    }
    external
}

#[tokio::test]
async fn generated_targets_are_parsed_as_by_gunicorn_and_werkzeug() {
    let mut command = Command::new(python());
    command.args(["-m", "gunicorn", "-c"]).arg(in_repository("tests/upstream/gunicorn.conf.py"));
    command.arg("reading:app");
    let environment = [
        ("GUNICORN_BIND", "127.0.0.1:0"),
        ("UPSTREAM_MAX_REQUESTS", "1000000"),
        ("UPSTREAM_ACCESS_LOG", "/dev/null"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut gunicorn = Process::start(&mut command, &environment, "INT");
    let address = gunicorn.stdout_after("upstream listening on ").await;
    let connections: JoinSet<usize> =
        (0..CONNECTIONS).map(|seed| compare(address.clone(), seed as u64 + 1)).collect();
    let external: usize = connections.join_all().await.into_iter().sum();
    println!("{TARGETS} generated targets read alike, {external} of them under /external/");
    assert!(external > TARGETS / 20, "{external}: too few to show anything");
}
