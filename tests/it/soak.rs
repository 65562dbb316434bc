//! Memory and threads under large, long and many transfers.
//!
//! `make test` runs reduced versions; `make soak` runs the full ones and prints figures.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    entra::Entra,
    world::{
        Kind, Store, alone, client,
        flask::Flask,
        gateway::Gateway,
        process::{TEST_TIMEOUT, until},
        settings,
    },
};

const MIB: usize = 1024 * 1024;

/// True in `make soak`.
pub(crate) fn is_full() -> bool {
    full_length().is_some()
}

/// Duration of open-ended tests in `make soak`.
pub(crate) fn full_length() -> Option<Duration> {
    let seconds = std::env::vars_os().find(|(name, _)| name == "SOAK")?.1;
    seconds.to_str()?.parse().ok().map(Duration::from_secs)
}

/// Full value in `make soak`, else the small one.
fn scaled<T>(full: T, small: T) -> T {
    if is_full() { full } else { small }
}

/// Private memory of the gateway in bytes. Pages of the program are excluded: other gateways share
/// them, and they would count more when those end.
fn memory(gateway: &Gateway) -> usize {
    let path = format!("/proc/{}/smaps_rollup", gateway.process.id());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Peak memory of the gateway during some work.
async fn peak<T>(gateway: &Gateway, work: impl Future<Output = T>) -> (T, usize) {
    let mut work = std::pin::pin!(work);
    let mut most = 0;
    loop {
        most = most.max(memory(gateway));
        if let Ok(done) = tokio::time::timeout(Duration::from_millis(50), &mut work).await {
            return (done, most.max(memory(gateway)));
        }
    }
}

/// Varied bytes, the same for the same number.
fn pattern(number: usize) -> Vec<u8> {
    (0..65_536_usize).map(|at| (at.wrapping_mul(31) ^ number).to_le_bytes()[0]).collect()
}

/// An upstream that hashes the request body, answers with as many bytes as the target names, and
/// appends the hash as the last 32 bytes.
async fn bulk_upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_bulk(stream));
        }
    });
    url
}

async fn serve_bulk(mut stream: TcpStream) -> Option<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
    let number = |text: &str| text.split("\r\n").next().and_then(|line| line.parse::<usize>().ok());
    let length = head.split("content-length: ").nth(1).and_then(number);
    let mut hash = Context::new(&SHA256);
    let mut taken = read.len() - end;
    hash.update(&read[end..]);
    let mut buffer = vec![0; 256 * 1024];
    while taken < length.unwrap_or(0) {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        hash.update(&buffer[..read]);
        taken += read;
    }
    if let Some(blocks) = head
        .strip_prefix("get /down/")
        .and_then(|rest| rest.split(' ').next().and_then(|blocks| blocks.parse::<usize>().ok()))
    {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.ok()?;
        for number in 0..blocks {
            let chunk = [b"10000\r\n".as_slice(), &pattern(number), b"\r\n"].concat();
            stream.write_all(&chunk).await.ok()?;
        }
        stream.write_all(b"0\r\n\r\n").await.ok()?;
    } else {
        let digest = hash.finish();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\nConnection: close\r\n\r\n";
        stream.write_all(&[head, digest.as_ref()].concat()).await.ok()?;
    }
    Some(())
}

#[tokio::test]
async fn bulk_transfers_arrive_complete_in_both_directions_without_memory_growth() {
    let blocks = scaled(5 * 1024 * 16, 96 * 16);
    let url = bulk_upstream().await;
    let more = [("GATEWAY_UPSTREAM_URL", url.as_str())];
    let (gateway, _entra, _store) = alone(Kind::Files, &more).await;
    let before = memory(&gateway);
    let mut expected = Context::new(&SHA256);
    for number in 0..blocks {
        expected.update(&pattern(number));
    }
    let expected = expected.finish();

    let up = async {
        let mut caller = TcpStream::connect(gateway.address()).await.unwrap();
        let length = blocks * 65_536;
        let head = format!(
            "PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        caller.write_all(head.as_bytes()).await.unwrap();
        for number in 0..blocks {
            caller.write_all(&pattern(number)).await.unwrap();
        }
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let begun = Instant::now();
    let (answer, most) = peak(&gateway, up).await;
    assert!(answer.ends_with(expected.as_ref()), "{}", String::from_utf8_lossy(&answer));
    let (up_took, up_grew) = (begun.elapsed(), most.saturating_sub(before));

    let down = async {
        let mut answer =
            client().get(gateway.url(&format!("/down/{blocks}"))).send().await.unwrap();
        let mut hash = Context::new(&SHA256);
        while let Some(chunk) = answer.chunk().await.unwrap() {
            hash.update(&chunk);
        }
        hash.finish()
    };
    let begun = Instant::now();
    let (digest, most) = peak(&gateway, down).await;
    assert_eq!(digest.as_ref(), expected.as_ref());
    let (down_took, down_grew) = (begun.elapsed(), most.saturating_sub(before));
    println!(
        "{} MiB up in {up_took:.1?}, {} KiB more memory; down in {down_took:.1?}, {} KiB more",
        blocks / 16,
        up_grew / 1024,
        down_grew / 1024
    );
    assert!(up_grew.max(down_grew) < 64 * MIB, "{up_grew} {down_grew}");
}

#[tokio::test]
async fn slow_readers_cost_little_memory_and_slow_upstream_down() {
    let readers = scaled(200, 20);
    let sent = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let counted = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let gib = 1024 * MIB;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {gib}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let block = vec![b'x'; 65_536];
                while let Ok(written @ 1..) = stream.write(&block).await {
                    counted.fetch_add(written, Ordering::Relaxed);
                }
            });
        }
    });
    let more = [("GATEWAY_UPSTREAM_URL", url.as_str())];
    let (gateway, _entra, _store) = alone(Kind::Files, &more).await;
    let before = memory(&gateway);
    sent.store(0, Ordering::Relaxed);
    let mut callers = Vec::new();
    for _ in 0..readers {
        let mut caller = TcpStream::connect(gateway.address()).await.unwrap();
        caller.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        callers.push(caller);
    }
    // First until all buffers are full, then a little from each for a while.
    let last = AtomicUsize::new(usize::MAX);
    until("upstream gets backpressure", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = sent.load(Ordering::Relaxed);
        last.swap(now, Ordering::Relaxed) == now && now > 0
    })
    .await;
    let (taken, most) = peak(&gateway, async {
        let mut taken = 0;
        let mut bytes = [0; 1024];
        for _ in 0..scaled(20, 3) {
            for caller in &mut callers {
                taken += caller.read(&mut bytes).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        taken
    })
    .await;
    let grew = most.saturating_sub(before);
    let in_transit = (sent.load(Ordering::Relaxed) - taken) / readers;
    println!(
        "{readers} slow readers: {} KiB more memory, {} KiB on the way to each",
        grew / 1024,
        in_transit / 1024
    );
    assert!(grew < readers * 256 * 1024 + 16 * MIB, "{grew}");
    // Sockets on both hops buffer some megabytes each; the rest of the gigabyte is not requested.
    assert!(in_transit < 16 * MIB, "{in_transit}");
}

#[tokio::test]
async fn idle_connections_cost_little_memory_and_delay_no_request() {
    let many = scaled(10_000, 1_000);
    let (gateway, _entra, _store) = alone(Kind::Files, &[]).await;
    let ask = b"GET /gateway/health/live HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut buffer = [0; 4096];
    let before = memory(&gateway);
    let mut idle = Vec::new();
    for n in 0..many {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Another loopback address for every 5,000 connections, because ports are limited.
        socket.bind(format!("127.0.0.{}:0", 2 + n / 5_000).parse().unwrap()).unwrap();
        let mut caller = socket.connect(gateway.address().parse().unwrap()).await.unwrap();
        caller.write_all(ask).await.unwrap();
        assert!(caller.read(&mut buffer).await.unwrap() > 0);
        idle.push(caller);
    }
    // Until the gateway treats them as idle.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let each = memory(&gateway).saturating_sub(before) / many;
    let begun = Instant::now();
    assert_eq!(
        client().get(gateway.url("/gateway/health/live")).send().await.unwrap().status(),
        200
    );
    let answered = begun.elapsed();
    // All of them are still open.
    for caller in &mut idle {
        caller.write_all(ask).await.unwrap();
        assert!(caller.read(&mut buffer).await.unwrap() > 0);
    }
    println!("{many} idle connections: {each} bytes each; another was answered in {answered:.1?}");
    assert!(each < 13 * 1024, "{each}");
    assert!(answered < Duration::from_secs(1), "{answered:?}");
}

#[tokio::test]
async fn no_request_runs_twice_while_upstream_is_killed_repeatedly() {
    let (kills, pause) = (scaled(12, 2), scaled(Duration::from_secs(5), Duration::from_secs(3)));
    let (entra, store) = (Entra::start().await, Store::start(Kind::Files).await);
    let journal = store.folder().parent().unwrap().join("journal");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut environment = store.settings();
    environment.push(("GUNICORN_BIND".to_owned(), format!("127.0.0.1:{port}")));
    environment.push(("UPSTREAM_JOURNAL".to_owned(), journal.display().to_string()));
    let mut flask = Some(Flask::start_unprimed(&environment).await);
    let settings = settings(&entra, flask.as_ref(), &store, &[]);
    let gateway = Gateway::start(&settings).await;
    until("upstream answered", async || gateway.is_ready().await).await;

    let ends = Arc::new(AtomicBool::new(false));
    let mut load = Vec::new();
    for worker in 0..8 {
        let (url, ends) = (gateway.url(""), Arc::clone(&ends));
        load.push(tokio::spawn(async move {
            let client = client();
            let mut statuses: HashMap<(&str, u16), usize> = HashMap::new();
            let mut number = 0;
            while !ends.load(Ordering::Relaxed) {
                number += 1;
                let (method, request) = if number % 2 == 0 {
                    ("GET", client.get(format!("{url}/test/pid")))
                } else {
                    (
                        "POST",
                        client.post(format!("{url}/test/journal?id={worker}-{number}")).body("x"),
                    )
                };
                let status = match request.timeout(TEST_TIMEOUT).send().await {
                    Ok(answer) => answer.status().as_u16(),
                    Err(error) => panic!("{method}: {error:?}"),
                };
                *statuses.entry((method, status)).or_default() += 1;
                if status >= 500 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            statuses
        }));
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        tokio::time::sleep(pause).await;
        flask.take().unwrap().kill();
        let revived = Flask::start_unprimed(&environment).await;
        until("upstream itself answers", async || {
            let answer = client().get(format!("{}/test/pid", revived.url())).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        flask = Some(revived);
        let begun = Instant::now();
        until("requests are served again", async || {
            let answer = client().get(gateway.url("/test/pid")).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        slowest = slowest.max(begun.elapsed());
    }
    ends.store(true, Ordering::Relaxed);
    let mut statuses: HashMap<(&str, u16), usize> = HashMap::new();
    for worker in load {
        for (answer, count) in worker.await.unwrap() {
            *statuses.entry(answer).or_default() += count;
        }
    }
    let journal = std::fs::read_to_string(journal).unwrap();
    let mut done: HashMap<&str, usize> = HashMap::new();
    for id in journal.lines() {
        *done.entry(id).or_default() += 1;
    }
    let repeated: Vec<_> = done.iter().filter(|(_, times)| **times > 1).collect();
    let count = done.len();
    println!("{kills} kills: {statuses:?}, {count} POSTs done, recovered within {slowest:.1?}");
    assert!(repeated.is_empty(), "ran twice: {repeated:?}");
    assert!(done.len() >= statuses[&("POST", 200)], "every answered POST ran");
    assert!(
        statuses.keys().all(|(_, status)| matches!(status, 200 | 502 | 503 | 504)),
        "{statuses:?}"
    );
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}
