//! Many slow, silent or abandoned connections: other callers are served meanwhile, and upstream's
//! threads stay free.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::world::{
    Kind, Store, World, client,
    gateway::binary,
    process::{Process, TEST_TIMEOUT, until},
    scripted::{OK, Scripted},
    settings,
};

/// Longest response time of sequential requests to upstream during `time`.
async fn slowest(world: &World, time: Duration) -> Duration {
    let http = client();
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < time {
        let asked = Instant::now();
        let request = http.get(world.gateway.url("/test/echo")).timeout(TEST_TIMEOUT);
        assert_eq!(request.send().await.unwrap().status(), 200);
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slowest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_slow_heads_and_bodies_do_not_delay_other_callers() {
    let world = World::with(Kind::Files, &[("GATEWAY_TIMEOUT_HEAD", "2s")]).await;
    let mut crowd = JoinSet::new();
    for number in 0..300 {
        let address = world.gateway.address().to_owned();
        crowd.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (begins, drips) = match number % 3 {
                0 => ("GET /slow-head HTTP/1.1\r\nHost: a\r\n", "X-a: b\r\n"),
                1 => {
                    ("POST /slow-body HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n", "aaaa")
                }
                _ => ("", ""),
            };
            stream.write_all(begins.as_bytes()).await.unwrap();
            let begun = Instant::now();
            let mut answer = Vec::new();
            // Until a response arrives.
            while begun.elapsed() < Duration::from_secs(4) {
                let read = stream.read_buf(&mut answer);
                if tokio::time::timeout(Duration::from_millis(300), read).await.is_ok() {
                    break;
                }
                let _ = stream.write_all(drips.as_bytes()).await;
            }
            (number % 3, String::from_utf8(answer).unwrap(), begun.elapsed())
        });
    }
    let slowest = slowest(&world, Duration::from_secs(3)).await;
    let mut answered = [0; 3];
    while let Some(one) = crowd.join_next().await {
        let (kind, answer, took) = one.unwrap();
        if kind == 0 {
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
            assert!(took < Duration::from_secs(10), "{took:?}");
        }
        answered[kind] += 1;
    }
    assert_eq!(answered, [100; 3]);
    assert!(!world.flask.log().contains("/slow-"), "a slow request reached upstream");
    println!("300 slow callers; others were served within {slowest:.0?}");
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_leave_upstream_threads_for_others() {
    // gunicorn also assigns connections to workers whose threads are all busy: upload slots are
    // fewer than the threads of one worker.
    let world = World::start(Kind::Files).await;
    let mut crowd = JoinSet::new();
    // More than upstream has threads: buffered bodies, and longer ones that share the upload slots.
    for number in 0..64 {
        let address = world.gateway.address().to_owned();
        crowd.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (length, first) = if number < 32 { (100_000, 0) } else { (2_000_000, 300_000) };
            let head =
                format!("POST /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'a'; first]).await.unwrap();
            loop {
                stream.write_all(&[b'a'; 250]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let slowest = slowest(&world, Duration::from_secs(3)).await;
    assert!(crowd.try_join_next().is_none(), "the uploads continue");
    println!("64 slow uploads; others were served within {slowest:.0?}");
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_survives_a_connection_storm_with_few_descriptors() {
    let (entra, store) = (crate::entra::Entra::start().await, Store::start(Kind::Redis).await);
    let settings = settings(&entra, None, &store, &[]);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256; exec \"$0\" serve"]).arg(binary());
    let mut process = Process::start(&mut command, &settings, "KILL");
    let address = process.stdout_after("listening on http://").await;
    let ask = "GET /gateway/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let begun = Instant::now();
    let mut wave = JoinSet::new();
    for _ in 0..4 {
        let address = address.clone();
        wave.spawn(async move {
            let (mut open, mut opened) = (Vec::new(), 0);
            while begun.elapsed() < Duration::from_secs(2) {
                let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
                opened += 1;
                match opened % 3 {
                    // Some connections stay open, silent or in the middle of a head; the others
                    // close at once.
                    0 if open.len() < 150 => open.push(stream),
                    1 if open.len() < 150 => {
                        let _ = stream.write_all(b"GET /x HT").await;
                        open.push(stream);
                    }
                    _ => {
                        let _ = stream.set_zero_linger();
                    }
                }
            }
            (open, opened)
        });
    }
    let live = async || {
        let asking = async {
            let mut stream = TcpStream::connect(&address).await.ok()?;
            stream.write_all(ask.as_bytes()).await.ok()?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.ok()?;
            Some(answer.starts_with(b"HTTP/1.1 200"))
        };
        tokio::time::timeout(Duration::from_secs(2), asking).await.ok().flatten() == Some(true)
    };
    until("health is answered during the storm", live).await;
    let (mut open, mut opened) = (Vec::new(), 0);
    while let Some(one) = wave.join_next().await {
        let (its, count) = one.unwrap();
        open.push(its);
        opened += count;
    }
    let calm = Instant::now();
    until("health is answered after it", live).await;
    println!("{opened} connections in 2 s; answered {:.0?} after them", calm.elapsed());
    assert!(calm.elapsed() < Duration::from_secs(3), "{:?}", calm.elapsed());
    assert!(opened > 100, "{opened}");
    assert!(process.is_running());
    assert!(!process.log().contains("panicked"), "{}", process.log());
}

#[tokio::test]
async fn upstream_connections_close_at_once_when_a_caller_disconnects() {
    let world = Scripted::start(&[("GATEWAY_REQUEST_HOLD", "1KiB")]).await;
    // During a download.
    let mut caller = world.caller().await;
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
    caller.head().await;
    let (begun, block) = (Instant::now(), vec![b'd'; 65_536]);
    caller.reset().await;
    while upstream.try_send(&block).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(3), "the download continues");
    }
    // During an upload.
    let mut caller = world.caller().await;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
    caller.send(format!("{head}{}", "u".repeat(2_000))).await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    upstream.bytes(2_000).await;
    let begun = Instant::now();
    caller.reset().await;
    upstream.is_closed().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn ten_thousand_events_reach_a_slow_reader_whole_and_in_order() {
    let world = Scripted::start(&[]).await;
    let mut caller = world.caller().await;
    caller.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = world.upstream().await;
    upstream.head().await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
    upstream.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
    caller.head().await;
    let event = |number: usize| format!("data: {number:0>50}\n\n");
    let sends = async {
        for number in 0..10_000 {
            let event = event(number);
            upstream.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        }
        upstream.send("0\r\n\r\n").await;
        upstream
    };
    let reads = async {
        let mut at = 0;
        while at < 10_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            for number in at..at + 100 {
                let event = event(number);
                let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                assert_eq!(caller.bytes(chunk.len()).await, chunk);
            }
            at += 100;
        }
        assert_eq!(caller.bytes(5).await, "0\r\n\r\n");
    };
    let (mut upstream, ()) = tokio::join!(sends, reads);
    // Both connections remain usable.
    caller.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.head().await;
    upstream.send(OK).await;
    assert!(caller.head().await.starts_with("HTTP/1.1 200 "));
}
