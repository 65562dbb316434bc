//! Requests and answers pass byte for byte in both directions.

use std::time::{Duration, Instant};

use crate::{
    entra::Entra,
    world::{
        Kind, alone,
        scripted::{OK, Peer, QUIET, Scripted},
        settings,
    },
};

/// Header lines that the gateway adds to every request of these tests.
const ADDED: &str =
    "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n";

/// Sends a request and returns the bytes that reach upstream; the caller gets an answer.
async fn arrives(world: &Scripted, request: impl AsRef<[u8]>) -> String {
    let (asked, answer) = world.exchange(request.as_ref(), OK.as_bytes()).await;
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    asked
}

#[tokio::test]
async fn a_requests_header_arrives_in_its_case_order_and_repetition() {
    let world = Scripted::start(&[]).await;
    let sent = "GeT /x HTTP/1.1\r\nhOST: a\r\nX-b: 2\r\nACCEPT:*/*\r\nx-B:  1 \r\nX-B: 2\r\nEmpty:\r\n\
                Te-st: \"q, \\\" x\"\r\nX-Latin: fr\u{f6}hlich\r\nConnection: close\r\nVia: 1.0 x\r\n\r\n";
    let received = arrives(&world, sent).await;
    let expected = format!(
        "GeT /x HTTP/1.1\r\nhOST: a\r\nX-b: 2\r\nACCEPT: */*\r\nx-B: 1\r\nX-B: 2\r\nEmpty: \r\n\
         Te-st: \"q, \\\" x\"\r\nX-Latin: fr\u{f6}hlich\r\nVia: 1.0 x\r\n{ADDED}"
    );
    assert_eq!(received, expected);
}

#[tokio::test]
async fn targets_arrive_byte_for_byte() {
    let world = Scripted::start(&[]).await;
    let long = format!("/{}", "a".repeat(20_000));
    for target in [
        &b"/a%2Fb//c;d=1/../e?q=%20+&x"[..],
        b"/\"`{}|\\^[]~!$&'()*+,;=:@-._",
        b"/%zz%4?%",
        b"/?",
        b"/??a=b?c",
        b"//x//",
        b"/\xc3\xa4\xff\x80",
        long.as_bytes(),
    ] {
        let request =
            [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
        let received = arrives(&world, &request).await;
        let line = crate::world::scripted::text(&[b"GET ", target, b" HTTP/1.1"].concat());
        assert_eq!(received.split("\r\n").next(), Some(line.as_str()));
    }
    let absolute = "GET http://A/x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(arrives(&world, absolute).await.starts_with("GET /x?y HTTP/1.1\r\nHost: a\r\n"));
    let server = "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(arrives(&world, server).await.starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[tokio::test]
async fn an_answers_head_arrives_as_upstream_wrote_it() {
    let world = Scripted::start(&[]).await;
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for line in ["200 OK", "200 ", "200", "299 Fr\u{f6}hlich (sehr)", "418 I'm a teapot", "999 x"] {
        let answer = format!(
            "HTTP/1.1 {line}\r\nsErVer: x\r\nDate: never\r\nset-cookie: a=1\r\nX-Z: 1\r\nSet-Cookie: b=2\r\n\
             X-Hop: 1\r\nKeep-Alive: timeout=5\r\nConnection: x-hop, keep-alive\r\ncontent-length: 2\r\n\r\nok"
        );
        let (_, got) = world.exchange(get, answer.as_bytes()).await;
        let expected = format!(
            "HTTP/1.1 {line}\r\nsErVer: x\r\nDate: never\r\nset-cookie: a=1\r\nX-Z: 1\r\nSet-Cookie: b=2\r\n\
             content-length: 2\r\nConnection: close\r\n\r\nok"
        );
        assert_eq!(got, expected);
    }
    let (_, bare) = world.exchange(get, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(bare, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

#[tokio::test]
async fn bodies_arrive_in_their_own_frames_with_trailers_both_ways() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    let frames = "5;ext=1\r\nhello\r\n00a\r\n0123456789\r\n0\r\nX-Sum: 15\r\nx-Two:2\r\n\r\n";
    caller
        .send(format!("POST /x HTTP/1.1\r\nHost: a\r\ntransfer-ENCODING: Chunked\r\nTrailer: X-Sum\r\n\r\n{frames}"))
        .await;
    let mut upstream = world.upstream().await;
    let head = upstream.head().await;
    assert!(head.contains("transfer-ENCODING: chunked\r\nTrailer: X-Sum\r\n"), "{head}");
    assert!(!head.contains("ontent-"), "{head}");
    assert_eq!(upstream.bytes(frames.len()).await, frames);
    upstream.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{frames}")).await;
    assert_eq!(caller.head().await, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(caller.bytes(frames.len()).await, frames);

    // A body with a length on the same connection of the caller.
    let bytes = "\0\r\n\r\n0\r\n\r\n";
    let length = bytes.len();
    caller
        .send(format!("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{bytes}"))
        .await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.contains(&format!("Content-Length: {length}\r\n")));
    assert_eq!(upstream.bytes(length).await, bytes);
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{bytes}")).await;
    caller.head().await;
    assert_eq!(caller.bytes(length).await, bytes);
}

#[tokio::test]
async fn a_get_may_have_a_body() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.contains("Content-Length: 3\r\n"));
    assert_eq!(upstream.bytes(3).await, "abc");
}

#[tokio::test]
async fn answers_without_bodies_keep_their_length_and_the_connection_stays_open() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    let mut upstream: Option<Peer> = None;
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 232803\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n"),
        ("GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 232803\r\nETag: \"a\"\r\n\r\n"),
    ] {
        caller.send(format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let mut peer = match upstream.take() {
            Some(peer) => peer,
            None => world.upstream().await,
        };
        assert!(peer.head().await.starts_with(method));
        peer.send(answer).await;
        assert_eq!(caller.head().await, answer);
        upstream = Some(peer);
    }
    let part =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/9\r\nContent-Length: 2\r\n\r\n";
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\nRange: bytes=2-3\r\n\r\n").await;
    let mut upstream = upstream.unwrap();
    assert!(upstream.head().await.contains("Range: bytes=2-3\r\n"));
    upstream.send(format!("{part}cd")).await;
    assert_eq!(caller.head().await, part);
    assert_eq!(caller.bytes(2).await, "cd");
}

#[tokio::test]
async fn interim_answers_pass_at_once_to_callers_of_http_1_1() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    for interim in [
        "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n",
    ] {
        upstream.send(interim).await;
        assert_eq!(caller.head().await, interim);
    }
    upstream.send(OK).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    caller.bytes(2).await;

    let mut old = world.caller().await;
    old.send("GET /x HTTP/1.0\r\nHost: a\r\n\r\n").await;
    upstream.head().await;
    upstream.send(format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{OK}")).await;
    let got = old.rest().await;
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("ok"), "{got}");
}

#[tokio::test]
async fn continue_is_sent_once_and_stays_on_its_hop() {
    let world = Scripted::start(&[]).await;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    let mut caller = world.caller().await;
    caller.send(head).await;
    assert_eq!(caller.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    caller.send("abc").await;
    let mut upstream = world.upstream().await;
    let received = upstream.head().await;
    assert!(!received.contains("xpect"), "{received}");
    upstream.bytes(3).await;
    upstream.send(OK).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
    caller.bytes(2).await;
    // A body sent together with the head does not wait.
    caller.send(format!("{head}abc")).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.bytes(3).await;
    upstream.send(OK).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));

    let mut refused = world.caller().await;
    refused.send(head.replace("/x", "/external/upload")).await;
    let answer = refused.rest().await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains(" 100 "), "{answer}");
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_only_after_101_from_upstream() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller
        .send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\nearly")
        .await;
    let mut upstream = world.upstream().await;
    let asked = upstream.head().await;
    assert!(asked.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), "{asked}");
    assert!(asked.contains("\r\nSec-WebSocket-Key: k\r\n"), "{asked}");
    upstream.is_quiet().await;
    let switched = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    upstream.send(format!("{switched}hello")).await;
    assert_eq!(caller.head().await, switched);
    assert_eq!(caller.bytes(5).await, "hello");
    assert_eq!(upstream.bytes(5).await, "early");
    for bytes in ["\x01\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", &"x".repeat(300_000)] {
        caller.send(bytes).await;
        assert_eq!(upstream.bytes(bytes.len()).await, bytes);
        upstream.send(bytes).await;
        assert_eq!(caller.bytes(bytes.len()).await, bytes);
    }
    caller.finish().await;
    upstream.is_closed().await;
    upstream.send("after the end").await;
    assert_eq!(caller.bytes(13).await, "after the end");
    drop(upstream);
    caller.is_closed().await;
}

#[tokio::test]
async fn an_upgrade_declined_by_upstream_is_an_ordinary_request() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    let ask = "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    caller.send(format!("{ask}GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.starts_with("GET /1 "));
    upstream.is_quiet().await;
    upstream
        .send(
            "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
    assert_eq!(caller.head().await, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    caller.bytes(2).await;
    let second = upstream.head().await;
    assert!(second.starts_with("GET /2 ") && !second.contains("pgrade"), "{second}");
    upstream.send(OK).await;
    caller.head().await;
    caller.bytes(2).await;
    for asked in ["Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x", "Upgrade: websocket"]
    {
        caller.send(format!("GET /3 HTTP/1.1\r\nHost: a\r\n{asked}\r\n\r\n")).await;
        let received = upstream.head().await;
        assert!(!received.contains("pgrade") && !received.contains("HTTP2"), "{received}");
        upstream.send(OK).await;
        caller.head().await;
        caller.bytes(2).await;
    }
}

#[tokio::test]
async fn an_upgrade_needs_http_1_1_and_a_protocol_name() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    let ask = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    caller.send(format!("GET /1 HTTP/1.0\r\n{ask}")).await;
    let mut upstream = world.upstream().await;
    let received = upstream.head().await;
    assert!(!received.contains("pgrade"), "{received}");
    upstream.send(OK).await;
    assert!(caller.rest().await.ends_with("ok"));

    let mut caller = world.caller().await;
    caller.send(format!("GET /2 HTTP/1.1\r\n{ask}")).await;
    upstream.head().await;
    upstream.send("HTTP/1.1 101 Switching Protocols\r\n\r\nraw").await;
    assert!(caller.head().await.starts_with("HTTP/1.1 502 "));
    upstream.is_closed().await;
}

#[tokio::test]
async fn a_half_closed_tunnel_ends_after_the_idle_timeout() {
    let world = Scripted::start(&[("GATEWAY_TIMEOUT_IDLE", "1s")]).await;
    let mut caller = world.caller().await;
    let ask = "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    caller.send(ask).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
    caller.head().await;
    // With both sides open, silence does not end the tunnel.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    upstream.finish().await;
    caller.is_closed().await;
    // The caller keeps its side open.
    let begun = Instant::now();
    upstream.is_closed().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn events_pass_one_by_one() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.send(head).await;
    assert_eq!(caller.head().await, head, "the head does not wait for an event");
    for event in ["b\r\ndata: one\n\n\r\n", "b\r\ndata: two\n\n\r\n", "1\r\n:\r\n"] {
        upstream.send(event).await;
        assert_eq!(caller.bytes(event.len()).await, event);
    }
    // A caller's disconnect is detected and passed to upstream although no event arrives.
    caller.reset().await;
    upstream.is_closed().await;
}

#[tokio::test]
async fn a_caller_that_closes_its_sending_side_still_gets_its_answer() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc").await;
    caller.finish().await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.bytes(3).await;
    tokio::time::sleep(QUIET).await;
    upstream.send(OK).await;
    assert!(caller.rest().await.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn callers_of_http_1_0_get_answers_that_http_1_0_permits() {
    let world = Scripted::start(&[]).await;
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n";
    let (asked, got) = world.exchange(b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n", chunked).await;
    assert!(asked.starts_with("GET /x HTTP/1.1\r\n"), "each hop has its own version: {asked}");
    assert_eq!(got, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde");

    let (asked, _) = world.exchange(b"GET /x HTTP/1.0\r\n\r\n", OK.as_bytes()).await;
    assert!(asked.contains("\r\nHost: 127.0.0.1:"), "upstream's own where there is none: {asked}");

    let mut caller = world.caller().await;
    for _ in 0..2 {
        caller.send("GET /x HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n").await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        let head = caller.head().await;
        assert!(head.contains("\r\nConnection: keep-alive\r\n"), "{head}");
        caller.bytes(2).await;
    }
}

#[tokio::test]
async fn an_upstream_of_http_1_0_is_understood() {
    let world = Scripted::start(&[]).await;
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let (_, got) = world.exchange(get, b"HTTP/1.0 200 OK\r\nX: 1\r\n\r\nuntil the end").await;
    assert_eq!(got, "HTTP/1.1 200 OK\r\nX: 1\r\nConnection: close\r\n\r\nuntil the end");
    let (_, got) = world
        .exchange(
            b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
    assert!(got.ends_with("\r\n\r\nok"), "{got}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller
        .send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /4")
        .await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.starts_with("POST /1 "));
    assert_eq!(upstream.bytes(3).await, "abc");
    upstream.is_quiet().await;
    let numbered = |n: u8| format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}");
    upstream.send(numbered(1)).await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.starts_with("POST /2 "));
    assert_eq!(upstream.bytes(5).await, "0\r\n\r\n");
    upstream.send(numbered(2)).await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.starts_with("GET /3 "));
    upstream.send(numbered(3)).await;
    let got = caller.rest().await;
    let order: Vec<_> = ["\r\n\r\n1HTTP", "{\"status\":\"ok\"}HTTP", "\r\n\r\n2HTTP", "\r\n\r\n3"]
        .iter()
        .map(|part| got.find(part))
        .collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} {got}");
    assert_eq!(got.matches("HTTP/1.1 200").count(), 4, "{got}");
}

#[tokio::test]
async fn heads_pass_up_to_64_kib_and_256_fields() {
    let world = Scripted::start(&[]).await;
    let cookie = format!("Cookie: {}\r\n", "c".repeat(16_000));
    let numbered = |count: usize, value: &str| {
        let fields: Vec<String> = (0..count).map(|n| format!("X-{n}: {value}\r\n")).collect();
        fields.concat()
    };
    let fields = numbered(6, &"f".repeat(7_000));
    let request = |more: &str| {
        format!("GET /x HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\n\r\n").into_bytes()
    };
    let received = arrives(&world, request(&format!("{cookie}{fields}"))).await;
    assert!(received.contains(&cookie) && received.contains(&fields));
    let many = numbered(250, "1");
    assert!(arrives(&world, request(&many)).await.contains(&many), "upstream decides beyond 100");
    for (more, status) in
        [(numbered(260, "1"), "431"), (format!("X: {}\r\n", "a".repeat(70_000)), "431")]
    {
        let mut caller = world.caller().await;
        caller.send(request(&more)).await;
        let got = caller.rest().await;
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{got}");
    }
    let mut caller = world.caller().await;
    caller.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000))).await;
    assert!(caller.rest().await.starts_with("HTTP/1.1 414 "));
    world.expect_no_connection().await;
}

#[tokio::test]
async fn an_early_answer_arrives_complete() {
    let world = Scripted::start(&[("GATEWAY_REQUEST_HOLD", "1KiB")]).await;
    let mut caller = world.caller().await;
    caller.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    caller.send(vec![b'a'; 100_000]).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        .await;
    assert_eq!(
        caller.head().await,
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(caller.bytes(3).await, "big");
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let (gateway, ..) = alone(Kind::Files, &[]).await;
    let mut caller = Peer::connect(gateway.address()).await;
    let length = 3_000_000;
    let head =
        format!("POST /external/upload HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    caller.send(head).await;
    caller.send(vec![b'a'; length]).await;
    let answer = caller.rest().await;
    assert!(
        answer.starts_with("HTTP/1.1 401 ") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test]
async fn bytes_of_a_refused_body_are_never_read_as_a_request() {
    let (gateway, ..) = alone(Kind::Files, &[]).await;
    let mut caller = Peer::connect(gateway.address()).await;
    let smuggled = "GET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = |close: &str| {
        format!(
            "POST /external/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{close}\r\n",
            smuggled.len()
        )
    };
    caller.send(format!("{}{smuggled}{}{smuggled}", head(""), head("Connection: close\r\n"))).await;
    let got = caller.rest().await;
    assert_eq!(got.matches("HTTP/1.1 401 ").count(), 2, "{got}");
    assert_eq!(got.matches("HTTP/1.1 ").count(), 2, "{got}");
}

#[tokio::test]
async fn a_second_gateway_on_the_same_address_exits_with_69() {
    let (gateway, entra, store) = alone(Kind::Files, &[]).await;
    let more = [("GATEWAY_LISTEN".to_owned(), gateway.address().to_owned())];
    let settings = settings(&entra as &Entra, None, &store, &more);
    let second = crate::world::gateway::run(&settings, &["serve"]).await;
    assert_eq!(second.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&second.stderr).contains("GATEWAY_LISTEN"));
}
