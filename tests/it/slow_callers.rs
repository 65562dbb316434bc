//! Upstream has few threads: slow, numerous or silent callers must not occupy them.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use crate::world::{
    Kind, alone, client,
    process::{Process, until},
    scripted::{OK, Peer, QUIET, Scripted},
};

#[tokio::test]
async fn a_small_body_is_buffered_until_it_is_complete() {
    let world = Scripted::start(&[]).await;
    for (fields, parts) in [
        ("Content-Length: 6", ["abc", "def"]),
        ("Transfer-Encoding: chunked", ["3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"]),
    ] {
        let mut caller = world.caller().await;
        caller.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n")).await;
        caller.send(parts[0]).await;
        world.expect_no_connection().await;
        caller.send(parts[1]).await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        let body = parts.concat();
        assert_eq!(upstream.bytes(body.len()).await, body);
        upstream.send(OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
    }
}

/// Starts an upload of a megabyte and sends its first `bytes` bytes.
async fn upload(world: &Scripted, bytes: usize) -> Peer {
    let mut caller = world.caller().await;
    caller.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    caller.send(vec![b'a'; bytes]).await;
    caller
}

#[tokio::test]
async fn a_longer_body_is_streamed_once_the_buffer_is_full() {
    let world = Scripted::start(&[("GATEWAY_REQUEST_HOLD", "64KiB")]).await;
    let mut caller = upload(&world, 65_535).await;
    world.expect_no_connection().await;
    caller.send("a").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    assert_eq!(upstream.bytes(65_536).await.len(), 65_536);
    for _ in 0..3 {
        caller.send("bcd").await;
        assert_eq!(upstream.bytes(3).await, "bcd");
    }
    drop(caller);
    upstream.is_closed().await;
}

#[tokio::test]
async fn the_total_of_buffered_bodies_is_limited() {
    let more = [("GATEWAY_REQUEST_HOLD", "64KiB"), ("GATEWAY_REQUEST_HOLD_TOTAL", "128KiB")];
    let world = Scripted::start(&more).await;
    let (first, mut second) = (upload(&world, 60_000).await, upload(&world, 60_000).await);
    world.expect_no_connection().await;
    let mut third = upload(&world, 60_000).await;
    let refused = third.head().await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: "), "{refused}");
    // Released memory is available again.
    drop(first);
    until("the memory of a disconnected caller is released", async || {
        let mut fourth = upload(&world, 60_000).await;
        let answer = tokio::time::timeout(QUIET, fourth.head()).await;
        answer.is_err()
    })
    .await;
    second.send(vec![b'a'; 6_000]).await;
    world.upstream().await.head().await;
}

#[tokio::test]
async fn the_number_of_streamed_uploads_is_limited() {
    let world = Scripted::start(&[
        ("GATEWAY_REQUEST_HOLD", "1KiB"),
        ("GATEWAY_STREAMING_UPLOADS", "2"),
        ("GATEWAY_TIMEOUT_SLOT", "1s"),
    ])
    .await;
    let mut uploads = Vec::new();
    for _ in 0..2 {
        let caller = upload(&world, 2_000).await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        uploads.push((caller, upstream));
    }
    let begun = Instant::now();
    let mut third = upload(&world, 2_000).await;
    world.expect_no_connection().await;
    let refused = third.head().await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: "), "{refused}");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    // Small bodies pass meanwhile, and the next upload starts when one has ended.
    let mut small = world.caller().await;
    small.send("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na").await;
    assert!(world.upstream().await.head().await.starts_with("POST /small "));
    let mut fourth = upload(&world, 2_000).await;
    world.expect_no_connection().await;
    uploads.pop();
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert!(fourth.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_body_slower_than_240_bytes_a_second_gets_408() {
    let world = Scripted::start(&[]).await;
    let begun = Instant::now();
    let drip = async |bytes: usize| {
        let mut caller = world.caller().await;
        caller.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n").await;
        let mut left = 3000_usize;
        while left > 0 {
            let now = bytes.min(left);
            if caller.try_send(vec![b'a'; now]).await.is_err() {
                break;
            }
            left -= now;
            tokio::time::sleep(Duration::from_millis(250)).await;
            if begun.elapsed() > Duration::from_secs(9) {
                break;
            }
        }
        caller
    };
    let (mut slow, mut steady) = tokio::join!(drip(20), async {
        let caller = drip(100).await;
        let mut upstream = world.upstream().await;
        upstream.head().await;
        upstream.send(OK).await;
        caller
    });
    let refused = slow.head().await;
    assert!(refused.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{refused}");
    assert!(refused.contains("connection: close\r\n"), "{refused}");
    assert!(steady.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_caller_that_reads_nothing_is_disconnected_and_upstream_released() {
    let world = Scripted::start(&[("GATEWAY_TIMEOUT_SEND", "1s")]).await;
    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    let begun = Instant::now();
    let mut sent = 0;
    let chunk = vec![b'a'; 65_536];
    // Far more than all socket buffers hold, and far less than the announced length.
    while upstream.try_send(&chunk).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 100_000_000, "upstream gets backpressure");
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(caller);
}

#[tokio::test]
async fn silence_times_out_everywhere_except_within_an_answers_body() {
    let world = Scripted::start(&[
        ("GATEWAY_TIMEOUT_HEAD", "500ms"),
        ("GATEWAY_TIMEOUT_IDLE", "2s"),
        ("GATEWAY_TIMEOUT_RESPONSE", "1s"),
    ])
    .await;
    let head = async {
        let mut caller = world.caller().await;
        caller.send("GET /x HT").await;
        caller.rest().await
    };
    let idle = async {
        let begun = Instant::now();
        world.caller().await.is_closed().await;
        begun.elapsed()
    };
    let (head, idle) = tokio::join!(head, idle);
    assert!(head.starts_with("HTTP/1.1 408 ") && head.contains("connection: close"), "{head}");
    assert!(idle >= Duration::from_secs(2) && idle < Duration::from_secs(5), "{idle:?}");

    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    assert!(caller.head().await.starts_with("HTTP/1.1 504 "));
    upstream.is_closed().await;

    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await;
    caller.head().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    upstream.send("ok").await;
    assert_eq!(caller.bytes(2).await, "ok");
}

#[tokio::test]
async fn a_callers_disconnect_is_detected_while_upstream_works() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    let begun = Instant::now();
    caller.reset().await;
    upstream.is_closed().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_upstream_with_a_full_accept_queue_is_502() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    // Fills the accept queue until the kernel accepts no more.
    while let Ok(filler) =
        tokio::time::timeout(QUIET, tokio::net::TcpStream::connect(address)).await
    {
        fillers.push(filler);
    }
    let url = format!("http://{address}");
    let more = [("GATEWAY_UPSTREAM_URL", url.as_str()), ("GATEWAY_TIMEOUT_CONNECT", "300ms")];
    let (gateway, ..) = alone(Kind::Files, &more).await;
    let begun = Instant::now();
    assert_eq!(client().get(gateway.url("/x")).send().await.unwrap().status(), 502);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn health_is_answered_without_free_file_descriptors() {
    let (entra, store) =
        (crate::entra::Entra::start().await, crate::world::Store::start(Kind::Files).await);
    let settings = crate::world::settings(&entra, None, &store, &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" serve"]).arg(crate::world::gateway::binary());
    let mut process = Process::start(&mut command, &settings, "KILL");
    let address = process.stdout_after("listening on http://").await;
    let mut crowd = Vec::new();
    for n in 0..200 {
        let mut one = Peer::connect(&address).await;
        // A third is silent, a third sends half a head, a third has been served.
        match n % 3 {
            0 => {}
            1 => drop(one.try_send("GET /x HT").await),
            _ => drop(one.try_send("GET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\n").await),
        }
        crowd.push(one);
    }
    let live = async || {
        let mut probe = Peer::connect(&address).await;
        let probing = async {
            probe.try_send("GET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\n").await.ok()?;
            Some(probe.rest_or_head().await.starts_with("HTTP/1.1 200 "))
        };
        tokio::time::timeout(Duration::from_secs(2), probing).await.ok().flatten() == Some(true)
    };
    let begun = Instant::now();
    until("health is answered", live).await;
    // Unfinished heads are closed before their timeout, because connections are scarce.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(process.is_running());
    drop(crowd);
    until("other requests are served again", async || {
        let mut one = Peer::connect(&address).await;
        let _ = one.try_send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        one.rest_or_head().await.starts_with("HTTP/1.1 502 ")
    })
    .await;
}
