//! Tokens longer than upstream accepts (benoitc/gunicorn#1704, pgadmin-org/pgadmin4#5866): login
//! and `check` report them.

use crate::{
    entra::Entra,
    world::{
        API, Kind, WithSession as _, World, alone, client,
        gateway::{Gateway, run},
        json, session_in, try_login,
    },
};

/// Length of the `Authorization` line without its token, CRLF included, as gunicorn counts it.
const AROUND: usize = "Authorization: Bearer \r\n".len();

/// Valid token whose `Authorization` line has this length.
fn token_with_line_of(entra: &Entra, length: usize) -> String {
    let token = |header: usize, claim: usize| {
        entra.token().header("x", "x".repeat(header)).claim("groups", "x".repeat(claim)).build()
    };
    let missing = length - AROUND - token(0, 0).len();
    // In base64 one part alone cannot have every length.
    for header in 0..8 {
        for claim in (missing * 3 / 4).saturating_sub(16)..=missing * 3 / 4 {
            let token = token(header, claim);
            if token.len() + AROUND == length {
                return token;
            }
        }
    }
    panic!("no token of {length} bytes");
}

/// Logs in; returns the session, and whether the login warns of the token's length.
async fn login(gateway: &Gateway, token: &str) -> (String, bool) {
    let answer = try_login(gateway, token).await;
    assert_eq!(answer.status(), 200);
    let session = session_in(&answer);
    let warnings = json(answer).await["warnings"].as_array().cloned().unwrap_or_default();
    assert!(warnings.iter().all(|warning| warning == "token_too_long"), "{warnings:?}");
    (session, !warnings.is_empty())
}

/// Status of a call with both session and token.
async fn call(gateway: &Gateway, session: &str, token: &str) -> u16 {
    let call = client().get(gateway.url(API)).session(session).bearer_auth(token);
    call.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_login_warns_exactly_when_gunicorn_refuses_calls_with_its_token() {
    for (limit, lengths) in [
        (
            None,
            &[(6_400, false), (8_190, false), (8_191, true), (11_600, true), (8_190, false)][..],
        ),
        (Some("5000"), &[(5_001, true), (5_000, false), (8_190, true)]),
        // Set by the deployment files: the longest token of 16 KiB.
        (Some("16408"), &[(16_408, false)]),
        (Some("0"), &[(16_408, false)]),
    ] {
        let arguments = limit.map(|limit| format!("--limit-request-field_size={limit}"));
        let arguments = arguments.unwrap_or_default();
        let world = World::with(Kind::Redis, &[("GUNICORN_CMD_ARGS", &arguments)]).await;
        for (length, is_refused) in lengths {
            let token = token_with_line_of(&world.entra, *length);
            let (session, warns) = login(&world.gateway, &token).await;
            let case = format!("{length} bytes, {arguments}");
            assert_eq!(warns, *is_refused, "{case}");
            let expected = if *is_refused { 431 } else { 200 };
            assert_eq!(call(&world.gateway, &session, &token).await, expected, "{case}");
            let alone = client().get(world.gateway.url(API)).session(&session);
            assert_eq!(alone.send().await.unwrap().status(), 200, "the cookie alone, {case}");
        }
    }
}

#[tokio::test]
async fn while_upstream_is_unavailable_the_default_limit_of_gunicorn_applies() {
    let (gateway, entra, _store) = alone(Kind::Redis, &[]).await;
    gateway.wait_until_it_has_keys().await;
    for (length, is_refused) in [(8_190, false), (8_191, true), (16_408, true)] {
        let token = token_with_line_of(&entra, length);
        assert_eq!(login(&gateway, &token).await.1, is_refused, "{length} bytes");
    }
}

#[tokio::test]
async fn logins_with_long_tokens_measure_upstream_once() {
    let world = World::start(Kind::Redis).await;
    let tokens =
        [9_000, 9_000, 8_000, 8_000].map(|length| token_with_line_of(&world.entra, length));
    let probes = async || world.upstream_log().await.matches("/robots933456.txt").count();
    let before = probes().await;
    for token in &tokens {
        login(&world.gateway, token).await;
    }
    // 431 is not in gunicorn's access log; the accompanying probe and the one of 8,000 bytes are.
    assert_eq!(probes().await - before, 2);
}

#[tokio::test]
async fn check_and_doctor_measure_the_header_limit_of_upstream_and_name_the_setting() {
    const ADVICE: &str = "Add --limit-request-field_size=16408 to GUNICORN_CMD_ARGS for SimpleChat";
    for (limit, longest) in [("", Some(8190)), ("5000", Some(5000)), ("16408", None), ("0", None)] {
        let arguments = format!("--limit-request-field_size={limit}");
        let arguments = if limit.is_empty() { "" } else { &arguments };
        let world = World::with(Kind::Redis, &[("GUNICORN_CMD_ARGS", arguments)]).await;
        for command in ["check", "doctor"] {
            let ended = run(&world.settings_with(&[]), &[command]).await;
            let text = String::from_utf8_lossy(&ended.stdout).into_owned();
            assert_eq!(ended.status.code(), Some(0), "{text}");
            let line = text.lines().find(|line| line.contains("header field")).expect(&text);
            match longest {
                Some(longest) => {
                    let longest = format!("at most {longest} bytes");
                    assert!(line.starts_with("warning ") && line.contains(&longest), "{line}");
                    assert!(line.ends_with(ADVICE), "{line}");
                }
                None => assert!(line.starts_with("ok "), "{line}"),
            }
        }
    }
}
