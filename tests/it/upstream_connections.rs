//! Connections to upstream: pooled, checked when they die, and never a cause of errors for callers.

use std::{
    collections::HashMap,
    io::{Read, Write},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::world::{
    API, Kind, World, alone, client,
    flask::Flask,
    gateway::Gateway,
    login,
    process::{TEST_TIMEOUT, until},
    scripted::{OK, Peer, QUIET, Scripted, text},
    settings, status,
};

const CLOSING: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// Sends one request on the caller's connection, answered OK by upstream; returns the upstream
/// connection.
async fn prime(world: &Scripted, caller: &mut Peer) -> Peer {
    caller.send("GET /prime HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    caller.head().await;
    caller.bytes(2).await;
    upstream
}

#[tokio::test]
async fn a_connection_is_reused_by_all_callers_and_closed_when_idle() {
    let world = Scripted::start(&[]).await;
    let mut upstream = prime(&world, &mut world.caller().await).await;
    for _ in 0..3 {
        let mut caller = world.caller().await;
        caller.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
        assert!(upstream.head().await.starts_with("PUT /x "));
        upstream.send(OK).await;
        caller.head().await;
        assert_eq!(caller.bytes(2).await, "ok");
    }
    let begun = Instant::now();
    upstream.is_closed().await;
    let idle = begun.elapsed();
    assert!(idle > Duration::from_secs(4) && idle < Duration::from_secs(10), "{idle:?}");
}

#[tokio::test]
async fn a_connection_that_upstream_ends_is_not_reused() {
    let world = Scripted::start(&[]).await;
    for closes_by_header in [true, false] {
        let mut caller = world.caller().await;
        let first = if closes_by_header {
            caller.send("GET /prime HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let mut first = world.upstream().await;
            first.head().await;
            first.send(CLOSING).await;
            caller.head().await;
            caller.bytes(2).await;
            Some(first)
        } else {
            drop(prime(&world, &mut caller).await);
            // Nothing is sent twice, so the gateway must detect the close before it sends.
            tokio::time::sleep(QUIET).await;
            None
        };
        caller.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na").await;
        let mut second = world.upstream().await;
        assert!(second.head().await.starts_with("POST /x "));
        second.bytes(1).await;
        second.send(CLOSING).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
        if let Some(mut first) = first {
            first.is_closed().await;
        }
        world.expect_no_connection().await;
    }
}

/// benoitc/gunicorn#1698, #3038; conbench/conbench#1156. RFC 9110 §9.2.2.
#[tokio::test]
async fn a_retryable_request_is_retried_once_when_its_pooled_connection_dies() {
    let world = Scripted::start(&[]).await;
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for length in ["", "Content-Length: 0\r\n"] {
            let request = format!("{method} /x HTTP/1.1\r\nHost: a\r\n{length}\r\n");
            for is_answered in [true, false] {
                let mut caller = world.caller().await;
                let mut first = prime(&world, &mut caller).await;
                caller.send(&request).await;
                let asked = first.head().await;
                drop(first);
                let mut second = world.upstream().await;
                assert_eq!(second.head().await, asked);
                if is_answered {
                    second.send(CLOSING).await;
                } else {
                    // If a new connection dies too, upstream itself is failing.
                    drop(second);
                }
                let got = caller.head().await;
                let expected = if is_answered { "HTTP/1.1 200 " } else { "HTTP/1.1 502 " };
                assert!(got.starts_with(expected), "{request}: {got}");
                world.expect_no_connection().await;
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_is_not_retryable_is_sent_once_on_a_new_connection() {
    let world = Scripted::start(&[]).await;
    for (method, field, body) in [
        ("POST", "", ""),
        ("POST", "Content-Length: 0\r\n", ""),
        ("POST", "Content-Length: 1\r\n", "a"),
        ("PATCH", "", ""),
        ("PROPFIND", "", ""),
        ("get", "", ""),
        ("GET", "Content-Length: 1\r\n", "a"),
        ("PUT", "Content-Length: 1\r\n", "a"),
        ("DELETE", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ] {
        let mut caller = world.caller().await;
        // An idle connection without a known fault.
        let mut idle = prime(&world, &mut caller).await;
        caller.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\n{field}\r\n{body}")).await;
        let mut fresh = world.upstream().await;
        assert!(fresh.head().await.starts_with(&format!("{method} /x ")));
        drop(fresh);
        let got = caller.head().await;
        assert!(got.starts_with("HTTP/1.1 502 "), "{method} {field}: {got}");
        world.expect_no_connection().await;
        // After its answer the connection is closed.
        let mut caller = world.caller().await;
        caller.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\n{field}\r\n{body}")).await;
        let mut fresh = world.upstream().await;
        fresh.head().await;
        fresh.bytes(body.len()).await;
        fresh.send(OK).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
        fresh.is_closed().await;
        idle.is_quiet().await;
        world.expect_no_connection().await;
        drop(idle);
        tokio::time::sleep(QUIET).await;
    }
}

/// An upstream that closes each connection after 12 ms without a request, as a gunicorn worker does
/// when it is recycled: it does not read bytes of the last 2 ms. It counts the deliveries of each
/// target.
fn closing_when_idle(delivered: &Arc<Mutex<HashMap<String, usize>>>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let delivered = Arc::clone(delivered);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let delivered = Arc::clone(&delivered);
            std::thread::spawn(move || serve_until_idle(stream.unwrap(), &delivered));
        }
    });
    url
}

fn serve_until_idle(
    mut stream: std::net::TcpStream,
    delivered: &Mutex<HashMap<String, usize>>,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(TEST_TIMEOUT)).ok()?;
    let mut bytes = Vec::new();
    let read_more = |mut stream: &std::net::TcpStream, bytes: &mut Vec<u8>| {
        let mut buffer = [0; 4096];
        let Ok(read) = stream.read(&mut buffer) else {
            std::thread::sleep(Duration::from_millis(2));
            return None;
        };
        bytes.extend_from_slice(&buffer[..read]);
        (read > 0).then_some(())
    };
    loop {
        let end = loop {
            if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                break end + 4;
            }
            read_more(&stream, &mut bytes)?;
        };
        let head = text(&bytes[..end]);
        let length = usize::from(head.contains("Content-Length: 1\r\n"));
        while bytes.len() < end + length {
            read_more(&stream, &mut bytes)?;
        }
        bytes.drain(..end + length);
        let target = head.split(' ').nth(1)?.to_owned();
        *delivered.lock().unwrap().entry(target).or_default() += 1;
        let is_head = head.starts_with("HEAD ");
        stream.write_all(&OK.as_bytes()[..OK.len() - if is_head { 2 } else { 0 }]).ok()?;
        stream.set_read_timeout(Some(Duration::from_millis(12))).ok()?;
    }
}

#[tokio::test]
async fn no_request_fails_or_runs_twice_when_upstream_closes_idle_connections() {
    const REQUESTS: u32 = 480;
    let delivered = Arc::new(Mutex::new(HashMap::new()));
    let url = closing_when_idle(&delivered);
    let more = [("GATEWAY_UPSTREAM_URL", url.as_str()), ("GATEWAY_WORKERS", "1")];
    let (gateway, ..) = alone(Kind::Files, &more).await;
    until("upstream answered", async || gateway.is_ready().await).await;
    let address = gateway.address().to_owned();
    let methods = [
        ("GET", ""),
        ("HEAD", ""),
        ("OPTIONS", "Content-Length: 0\r\n"),
        ("PUT", "Content-Length: 0\r\n"),
        ("DELETE", ""),
        ("POST", "Content-Length: 0\r\n"),
        ("POST", "Content-Length: 1\r\n"),
        ("PATCH", ""),
    ];
    let asking = tokio::task::spawn_blocking(move || {
        let mut failed = Vec::new();
        let mut caller = std::net::TcpStream::connect(address).unwrap();
        caller.set_nodelay(true).unwrap();
        let mut buffer = [0; 4096];
        for n in 0..REQUESTS {
            // In pairs, so that requests that may not be retried also find an idle connection.
            let (method, field) = methods[n as usize / 2 % methods.len()];
            let (method, field) = if n % 2 == 0 { ("GET", "") } else { (method, field) };
            // About when upstream closes.
            std::thread::sleep(Duration::from_micros(11_000 + u64::from(n * 3_700 % 7_000)));
            let body = if field.ends_with("1\r\n") { "a" } else { "" };
            let request =
                format!("{method} /{method}-{n} HTTP/1.1\r\nHost: a\r\n{field}\r\n{body}");
            caller.write_all(request.as_bytes()).unwrap();
            let mut got = Vec::new();
            let end: &[u8] = if method == "HEAD" { b"\r\n\r\n" } else { b"\r\n\r\nok" };
            while !got.ends_with(end) && !got.starts_with(b"HTTP/1.1 5") {
                let read = caller.read(&mut buffer).unwrap();
                assert_ne!(read, 0, "{method}: {:?}", text(&got));
                got.extend_from_slice(&buffer[..read]);
            }
            if !got.starts_with(b"HTTP/1.1 200 ") {
                failed.push(format!("{method} {field:?}"));
                caller = std::net::TcpStream::connect(caller.peer_addr().unwrap()).unwrap();
            }
        }
        failed
    });
    let failed = asking.await.unwrap();
    assert!(failed.is_empty(), "{} of {REQUESTS} failed: {failed:?}", failed.len());
    let delivered = delivered.lock().unwrap();
    let twice: Vec<_> = delivered.iter().filter(|(_, times)| **times > 1).collect();
    let is_once = |target: &str| target.starts_with("/POST") || target.starts_with("/PATCH");
    assert!(!twice.iter().any(|(target, _)| is_once(target)), "{twice:?}");
    assert_eq!(delivered.keys().filter(|target| is_once(target)).count(), 90);
}

#[tokio::test]
async fn no_request_is_retried_once_an_answer_has_begun() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    let mut first = prime(&world, &mut caller).await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.head().await;
    first.send("H").await;
    tokio::time::sleep(QUIET).await;
    drop(first);
    assert!(caller.head().await.starts_with("HTTP/1.1 502 "));
    world.expect_no_connection().await;
}

#[tokio::test]
async fn no_request_is_retried_after_an_interim_answer() {
    let world = Scripted::start(&[]).await;
    let mut upstream = prime(&world, &mut world.caller().await).await;
    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    upstream.head().await;
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    assert!(caller.head().await.starts_with("HTTP/1.1 103 "));
    drop(upstream);
    assert!(caller.rest().await.starts_with("HTTP/1.1 502 "));
    world.expect_no_connection().await;
}

#[tokio::test]
async fn an_exchange_ends_with_its_answer_although_the_upload_continues() {
    let world = Scripted::start(&[("GATEWAY_STREAMING_UPLOADS", "1")]).await;
    for answer in [OK, "HTTP/1.1 200 OK\r\n\r\nok"] {
        let mut caller = world.caller().await;
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n";
        caller.send(format!("{head}{}", "x".repeat(300_000))).await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.bytes(300_000).await;
        upstream.send(answer).await;
        if answer != OK {
            upstream.finish().await;
        }
        let begun = Instant::now();
        assert!(caller.rest().await.ends_with("\r\n\r\nok"));
        upstream.is_closed().await;
        // The only slot is free for the next request.
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn upstream_may_be_a_unix_socket_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let world = Scripted::start_unix(&folder.path().join("s")).await;
    let mut upstream = prime(&world, &mut world.caller().await).await;
    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.0\r\nX-a: 1\r\n\r\n").await;
    assert_eq!(
        upstream.head().await,
        "GET /x HTTP/1.1\r\nX-a: 1\r\nHost: localhost\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\r\n"
    );
}

/// A gateway in front of a scripted upstream, and a minted session.
async fn with_session(more: &[(&str, &str)]) -> (Scripted, String) {
    let world = Scripted::start_with(Kind::Redis, more).await;
    world.gateway.wait_until_it_has_keys().await;
    let session = login(&world.gateway, &world.entra.token().build()).await;
    (world, session)
}

const ANONYMOUS: &str = "HTTP/1.1 401 UNAUTHORIZED\r\nContent-Length: 3\r\n\r\nwho";
const TO_LOGIN: &str =
    "HTTP/1.1 302 FOUND\r\nLocation: /login?next=x\r\nContent-Length: 2\r\n\r\nto";

#[tokio::test]
async fn an_anonymous_answer_with_an_active_session_is_retried_on_the_same_connection() {
    let (world, session) = with_session(&[]).await;
    for (method, first) in [("GET", ANONYMOUS), ("GET", TO_LOGIN)] {
        let mut caller = world.caller().await;
        let request =
            format!("{method} /x HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\n\r\n");
        caller.send(&request).await;
        let mut upstream = world.upstream().await;
        let asked = upstream.head().await;
        upstream.send(first).await;
        assert_eq!(upstream.head().await, asked);
        upstream.send(CLOSING).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 200 "));

        // A second anonymous answer is passed on.
        caller.send(&request).await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send(first).await;
        upstream.head().await;
        upstream
            .send(first.replace("\r\n\r\n", "\r\nConnection: close\r\nX-Second: 1\r\n\r\n"))
            .await;
        assert!(caller.head().await.contains("X-Second: 1\r\n"));
        caller.bytes(2).await;

        // If the retry breaks off, the first answer is passed on.
        let mut caller = world.caller().await;
        caller.send(&request).await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send(first).await;
        upstream.head().await;
        drop(upstream);
        let got = caller.rest().await;
        assert!(got.starts_with(&first[..first.find("\r\n").unwrap()]), "{got}");
        assert!(got.ends_with(&first[first.len() - 2..]), "{got}");
    }
}

#[tokio::test]
async fn other_answers_and_requests_are_not_retried() {
    let (world, session) = with_session(&[]).await;
    let with_cookie = ANONYMOUS.replace("\r\n\r\n", "\r\nSet-Cookie: session=; Max-Age=0\r\n\r\n");
    let elsewhere = TO_LOGIN.replace("/login?next=x", "/login/other");
    let anonymous = ANONYMOUS.to_owned();
    for (method, cookie, answer) in [
        ("POST", session.as_str(), &anonymous),
        ("GET", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &anonymous),
        ("GET", session.as_str(), &with_cookie),
        ("GET", session.as_str(), &elsewhere),
    ] {
        let answer = answer.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let mut caller = world.caller().await;
        caller
            .send(format!("{method} /x HTTP/1.1\r\nHost: a\r\nCookie: session={cookie}\r\nContent-Length: 0\r\n\r\n").replace(
                if method == "GET" { "Content-Length: 0\r\n" } else { "\0" },
                "",
            ))
            .await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send(&answer).await;
        let status = &answer[..12];
        assert!(caller.head().await.starts_with(status), "{method} {cookie} {answer}");
        world.expect_no_connection().await;
    }
}

#[tokio::test]
async fn a_request_with_a_body_is_never_retried() {
    let (world, session) = with_session(&[("GATEWAY_REQUEST_HOLD", "1KiB")]).await;
    // With the whole body sent, and with most of it pending.
    for sent in [20, 2_000] {
        let mut caller = world.caller().await;
        caller
            .send(format!(
                "GET /x HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\nContent-Length: {}\r\n\r\n{}",
                if sent == 20 { 20 } else { 60_000 },
                "b".repeat(sent)
            ))
            .await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.bytes(sent).await;
        upstream.send(ANONYMOUS).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 401 "));
        assert_eq!(caller.bytes(3).await, "who");
        upstream.is_closed().await;
        world.expect_no_connection().await;
    }
}

#[tokio::test]
async fn an_anonymous_answer_is_passed_on_when_the_retry_fails() {
    let (world, session) = with_session(&[]).await;
    let mut caller = world.caller().await;
    caller.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\n\r\n")).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send(ANONYMOUS.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    // The next connection is accepted and closed without an answer.
    let mut second = world.upstream().await;
    second.head().await;
    drop(second);
    let got = caller.rest().await;
    assert!(got.starts_with("HTTP/1.1 401 ") && got.ends_with("who"), "{got}");
}

#[tokio::test]
async fn the_retry_of_anonymous_answers_can_be_turned_off() {
    let (world, session) = with_session(&[("GATEWAY_RETRY_ANONYMOUS", "off")]).await;
    let mut caller = world.caller().await;
    caller.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nCookie: session={session}\r\n\r\n")).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send(ANONYMOUS).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn fresh_and_recycled_workers_cause_no_errors_for_callers() {
    let mut world = World::start(Kind::Redis).await;
    let session = world.login(&world.entra.token().build()).await;
    let mut environment = world.store.settings();
    environment.push(("UPSTREAM_MAX_REQUESTS".to_owned(), "25".to_owned()));
    let flask = Flask::start_unprimed(&environment).await;
    let settings = settings(&world.entra, Some(&flask), &world.store, &[]);
    world.gateway = Gateway::start(&settings).await;
    world.flask = flask;
    for n in 0..250 {
        assert_eq!(status(world.gateway.url(API), &session).await, 200, "request {n}");
        if n % 25 == 0 {
            let head = client().head(world.gateway.url("/test/echo")).send().await.unwrap();
            assert_eq!(head.status(), 200);
        }
    }
    assert!(world.flask.log().matches("Booting worker").count() > 5, "workers were recycled");
}

#[tokio::test]
async fn the_platforms_warm_up_waits_for_upstreams_first_answer() {
    let begun = Instant::now();
    let more = [("GATEWAY_WARMUP_WAIT", "1s")];
    let (gateway, ..) = crate::world::alone(Kind::Files, &more).await;
    let waited = client().get(gateway.url("/robots933456.txt")).send().await.unwrap();
    assert_eq!(waited.status(), 200);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    // Upstream has answered by now, so it gets the request itself.
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("GET /robots933456.txt HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 404 NOT FOUND\r\nContent-Length: 0\r\n\r\n").await;
    assert!(caller.head().await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_connection_that_carried_a_body_is_not_reused() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    for request in [
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "DELETE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ] {
        caller.send(request).await;
        // A new connection each time; it closes with its answer if it carried a body.
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send(OK).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
        caller.bytes(2).await;
        if !request.contains("Length: 0") {
            let rest = upstream.rest().await;
            assert!(request.ends_with(&rest), "{rest:?}");
        }
    }
}

/// gunicorn answers before it has read a body that Flask does not read. Bytes of a next request on
/// the same connection may be consumed with the rest of that body, and wait until gunicorn's
/// keep-alive ends (75 s).
#[tokio::test]
async fn bodies_that_upstream_does_not_read_delay_no_other_request() {
    let world = World::start(Kind::Files).await;
    let url = world.gateway.url("/nonexistent");
    let attackers: Vec<_> = (0..2)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let http = client();
                for _ in 0..60 {
                    let request = http.post(&url).body("a".repeat(9000)).send();
                    assert_eq!(request.await.unwrap().status(), 404);
                }
            })
        })
        .collect();
    let http = client();
    for _ in 0..60 {
        let request = http.get(world.gateway.url("/static/robots.txt")).send();
        let answer = tokio::time::timeout(Duration::from_secs(10), request).await;
        assert_eq!(answer.expect("an answer in time").unwrap().status(), 200);
    }
    for attacker in attackers {
        attacker.await.unwrap();
    }
}
