//! Messages that two parsers could read differently are refused, and no part of them reaches
//! upstream.

use crate::world::scripted::{OK, Peer, Scripted};

/// Sends a request followed by a smuggled one, and returns everything that the caller receives.
async fn answers(world: &Scripted, request: &[u8]) -> String {
    let mut caller = world.caller().await;
    caller.send(request).await;
    caller.rest().await
}

async fn assert_refused(world: &Scripted, what: &str, request: &[u8]) {
    let smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = answers(world, &[request, smuggled].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{what}: {answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{what}: {answer}");
    assert!(answer.contains("application/problem+json"), "{what}: {answer}");
    let answers: usize = (2..=5).map(|n| answer.matches(&format!("HTTP/1.1 {n}")).count()).sum();
    assert_eq!(answers, 1, "{what}: {answer}");
}

#[tokio::test]
async fn ambiguous_lengths_are_refused() {
    let world = Scripted::start(&[]).await;
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -3",
        "Content-Length: 0x3",
        "Content-Length: 3 0",
        "Content-Length:",
        "Content-Length: 3;",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "X: 1\r\n Transfer-Encoding: chunked",
    ] {
        let request =
            format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_refused(&world, fields, request.as_bytes()).await;
    }
    let old = b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_refused(&world, "chunks in HTTP/1.0", old).await;
    world.expect_no_connection().await;
}

#[tokio::test]
async fn heads_that_parsers_split_differently_are_refused() {
    let world = Scripted::start(&[]).await;
    for (what, request) in [
        ("bare LF after the request line", &b"GET /x HTTP/1.1\nHost: a\r\n\r\n"[..]),
        ("bare LF after a field", b"GET /x HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n"),
        ("bare LF as the empty line", b"GET /x HTTP/1.1\r\nHost: a\r\n\n"),
        ("bare LF throughout", b"GET /x HTTP/1.1\nHost: a\n\n"),
        ("bare CR", b"GET /x HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n"),
        ("bare CR after the request line", b"GET /x HTTP/1.1\rXHost: a\r\n\r\n"),
        ("a folded field", b"GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        ("a field folded with a tab", b"GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n"),
        ("a space before the colon", b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("no colon", b"GET /x HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        ("an empty name", b"GET /x HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n"),
        ("a name with a space", b"GET /x HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n"),
        ("a name that is no token", b"GET /x HTTP/1.1\r\nHost: a\r\nX(: 1\r\n\r\n"),
        ("a name beyond ASCII", b"GET /x HTTP/1.1\r\nHost: a\r\nX\xe4: 1\r\n\r\n"),
        ("NUL in a value", b"GET /x HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
        ("a control byte in a value", b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
        ("DEL in a value", b"GET /x HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
        ("no Host", b"GET /x HTTP/1.1\r\n\r\n"),
        ("two Hosts", b"GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("two Hosts in HTTP/1.0", b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("a Host that is none", b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("another authority", b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an authority with a user", b"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("another scheme", b"GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a fragment", b"GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("< in the target", b"GET /<x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("> in the target", b"GET /x> HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a space in the target", b"GET /x y HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a tab in the target", b"GET /x\ty HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("NUL in the target", b"GET /x\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("DEL in the target", b"GET /x\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a target without a slash", b"GET external/login HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("* for a GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("two spaces", b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a space at the end", b"GET /x HTTP/1.1 \r\nHost: a\r\n\r\n"),
        ("a space at the beginning", b" GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a method that is no token", b"GE{T} /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("HTTP/0.9", b"GET /x\r\n\r\n"),
        ("HTTP/1.2", b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n"),
        ("HTTP/2.0", b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n"),
        ("http/1.1", b"GET /x http/1.1\r\nHost: a\r\n\r\n"),
        ("HTTP/1.10", b"GET /x HTTP/1.10\r\nHost: a\r\n\r\n"),
        ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        ("TRACE", b"TRACE /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        assert_refused(&world, what, request).await;
    }
    for name in
        ["Authorization", "cookie", "Host", "X-Forwarded-For", "Content-Length", "Forwarded"]
    {
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: {name}\r\n\r\n"
        );
        assert_refused(&world, name, request.as_bytes()).await;
    }
    world.expect_no_connection().await;
}

#[tokio::test]
async fn malformed_chunks_are_refused() {
    let world = Scripted::start(&[]).await;
    for body in [
        "x\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3,\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "\r\n3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: 1\nY: 2\r\n\r\n",
        "3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
        "3\r\nabc\r\n0\r\nHost: b\r\n\r\n",
        "3\r\nabc\r\n0\r\nX-Forwarded-For: b\r\n\r\n",
        "3\r\nabc\r\n0\r\n\n",
    ] {
        let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_refused(&world, body, format!("{head}{body}").as_bytes()).await;
    }
    let endless = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;{}\r\nabc\r\n0\r\n\r\n",
        "a".repeat(2000)
    );
    assert_refused(&world, "an endless extension", endless.as_bytes()).await;
    world.expect_no_connection().await;
}

#[tokio::test]
async fn a_body_found_malformed_while_forwarding_never_appears_complete_to_upstream() {
    let world = Scripted::start(&[("GATEWAY_REQUEST_HOLD", "1KiB")]).await;
    let mut caller = world.caller().await;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    caller.send(format!("{head}800\r\n{}\r\n", "a".repeat(0x800))).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    caller.send("zz\r\n0\r\n\r\n").await;
    let received = upstream.rest().await;
    assert!(
        received.ends_with("aaa\r\n") && !received.contains("zz"),
        "{}",
        &received[received.len() - 20..]
    );
    assert!(caller.rest().await.starts_with("HTTP/1.1 400 "));
}

#[tokio::test]
async fn a_truncated_request_is_not_forwarded() {
    let world = Scripted::start(&[]).await;
    for request in [
        "GET /x HTTP/1.1\r\nHost: a\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ] {
        let mut caller = world.caller().await;
        caller.send(request).await;
        caller.finish().await;
        assert!(caller.rest().await.starts_with("HTTP/1.1 400 "), "{request}");
    }
    world.expect_no_connection().await;
}

#[tokio::test]
async fn empty_lines_before_a_request_are_skipped() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    assert!(upstream.head().await.starts_with("GET /x HTTP/1.1\r\n"));
    upstream.send(OK).await;
    assert!(caller.rest().await.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn a_truncated_response_reaches_the_caller_as_truncated() {
    let world = Scripted::start(&[]).await;
    let get = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let closing = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (_, sized) = world.exchange(get, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").await;
    assert!(sized.contains("Content-Length: 5\r\n") && sized.ends_with("\r\n\r\nabc"), "{sized}");
    let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    let (_, chunked) = world.exchange(get, cut).await;
    assert!(chunked.ends_with("\r\n\r\n3\r\nabc\r\n"), "{chunked}");
    let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n";
    let (_, chunked) = world.exchange(get, cut).await;
    assert!(!chunked.contains("0\r\n\r\n"), "{chunked}");
    let spoiled =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n0\r\n\r\n";
    let mut caller = world.caller().await;
    caller.send(get).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    let (good, bad) = spoiled.split_at(spoiled.len() - b"zz\r\n0\r\n\r\n".len());
    upstream.send(good).await;
    let begun = caller.head().await;
    assert!(begun.starts_with("HTTP/1.1 200 "), "{begun}");
    upstream.send(bad).await;
    assert_eq!(caller.rest().await, "3\r\nabc\r\n");
    let (_, at_once) = world.exchange(closing, spoiled).await;
    assert!(at_once.starts_with("HTTP/1.1 502 "), "{at_once}");
}

#[tokio::test]
async fn body_bytes_that_upstream_does_not_read_never_become_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let world = Scripted::start_unix(&folder.path().join("flask.sock")).await;
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(7_000);
    let mut caller = world.caller().await;
    let length = body.len();
    caller
        .send(format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"))
        .await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    drop(upstream);
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(caller.bytes(2).await, "ok");
    // Whether or not the connection remains usable.
    if caller.try_send("GET /after HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok() {
        let _ = caller.try_finish().await;
    }
    let mut next = world.caller().await;
    next.send("GET /after HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let asked = world.upstream().await.head().await;
    assert!(asked.starts_with("GET /after "), "{asked}");
}

#[tokio::test]
async fn a_close_delimited_response_that_breaks_ends_in_a_connection_error() {
    let world = Scripted::start(&[]).await;
    let mut caller = tokio::net::TcpStream::connect(world.gateway.address()).await.unwrap();
    let request = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut caller, request).await.unwrap();
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\n\r\nabc").await;
    upstream.reset().await;
    let mut read = Vec::new();
    let ended = tokio::io::AsyncReadExt::read_to_end(&mut caller, &mut read).await;
    assert!(ended.is_err(), "{ended:?} {read:?}");
}

#[tokio::test]
async fn a_malformed_response_gets_502_and_its_connection_is_not_reused() {
    let world = Scripted::start(&[]).await;
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX Y: 1\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        &long,
    ] {
        let mut caller = world.caller().await;
        caller.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        // The gateway may close the connection before all of it is sent.
        let _ = upstream.try_send(answer).await;
        let got = caller.rest().await;
        let shown = &answer[..answer.len().min(80)];
        assert!(got.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{shown}: {got}");
        upstream.is_closed().await;
    }
}

#[tokio::test]
async fn unsolicited_bytes_of_upstream_are_not_part_of_any_response() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut first = world.upstream().await;
    first.head().await;
    first.send(format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(caller.bytes(2).await, "ok");
    caller.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second: Peer = world.upstream().await;
    assert!(second.head().await.starts_with("GET /2 "));
    second.send(OK).await;
    caller.head().await;
    assert_eq!(caller.bytes(2).await, "ok");
    // Also bytes that arrive while the connection is idle in the pool.
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await;
    tokio::time::sleep(crate::world::scripted::QUIET).await;
    caller.send("POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    let mut third = world.upstream().await;
    third.head().await;
    third.send(OK).await;
    caller.head().await;
    assert_eq!(caller.bytes(2).await, "ok");
}
