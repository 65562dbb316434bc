//! SIGTERM under every kind of load at once: requests in progress complete, or are visibly cut off.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::world::{Kind, alone, process::until};

/// Size of each slow download in bytes.
const DOWNLOAD: usize = 20 * 1024;

/// Upstream with endless event streams, downloads of two seconds, echoing tunnels and short
/// responses.
async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    url
}

async fn serve(mut stream: TcpStream) -> Option<()> {
    loop {
        let head = head(&mut stream).await?;
        let target = head.split(' ').nth(1)?;
        match target {
            "/events" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                loop {
                    stream.write_all(b"9\r\ndata: x\n\n\r\n").await.ok()?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            "/download" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {DOWNLOAD}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok()?;
                for _ in 0..20 {
                    stream.write_all(&[b'd'; DOWNLOAD / 20]).await.ok()?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            "/socket" => {
                let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
                stream.write_all(head.as_bytes()).await.ok()?;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                return None;
            }
            _ => {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer).await.ok()?;
            }
        }
    }
}

/// Reads a head. `None`: the connection ended before or in it.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(bytes).ok()
}

async fn ask(address: &str, target: &str, more: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Repeats requests on one connection until a response announces its end; returns the number of
/// responses.
async fn repeat_requests(address: String) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for answered in 0.. {
        let request = "GET /short HTTP/1.1\r\nHost: a\r\n\r\n";
        // The connection may end unannounced between two requests (RFC 9112 §9.5), but not within a
        // response.
        let mut first = [0];
        let begins = stream.write_all(request.as_bytes()).await.is_ok()
            && stream.read_exact(&mut first).await.is_ok();
        if !begins {
            return answered;
        }
        let head = head(&mut stream).await.expect("a whole head").to_lowercase();
        assert!(head.starts_with("ttp/1.1 200 "), "{head}");
        stream.read_exact(&mut [0; 2]).await.expect("a whole body");
        if head.contains("\r\nconnection: close\r\n") {
            return answered + 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_sigterm_requests_in_progress_complete_or_are_visibly_cut_off() {
    let url = upstream().await;
    let (delay, drain_timeout) = (Duration::from_secs(1), Duration::from_secs(4));
    let more = [
        ("GATEWAY_UPSTREAM_URL", url.as_str()),
        ("GATEWAY_DRAIN_DELAY", "1s"),
        ("GATEWAY_DRAIN_TIMEOUT", "4s"),
    ];
    let (mut gateway, _entra, _store) = alone(Kind::Redis, &more).await;
    until("upstream has answered", async || gateway.is_ready().await).await;
    let address = gateway.address().to_owned();

    let (mut events, mut downloads, mut tunnels) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let mut load = JoinSet::new();
    for _ in 0..4 {
        load.spawn(repeat_requests(address.clone()));
    }
    for _ in 0..30 {
        let mut stream = ask(&address, "/events", "").await;
        head(&mut stream).await.unwrap();
        events.spawn(async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            all
        });
    }
    for _ in 0..15 {
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        let mut stream = ask(&address, "/socket", upgrade).await;
        assert!(head(&mut stream).await.unwrap().starts_with("HTTP/1.1 101 "));
        tunnels.spawn(async move {
            let mut echoed = 0;
            while stream.write_all(b"frame").await.is_ok() {
                if stream.read_exact(&mut [0; 5]).await.is_err() {
                    break;
                }
                echoed += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (echoed, Instant::now())
        });
    }
    for _ in 0..30 {
        let mut stream = ask(&address, "/download", "Connection: close\r\n").await;
        head(&mut stream).await.unwrap();
        downloads.spawn(async move {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.map(|_| all.len())
        });
    }

    let signalled = Instant::now();
    gateway.process.signal("TERM");
    until("the gateway is not ready", async || !gateway.is_ready().await).await;
    let not_ready = signalled.elapsed();
    assert!(not_ready < delay, "{not_ready:?}");
    // The platform has not noticed yet: new requests are still served.
    let mut late = ask(&address, "/short", "Connection: close\r\n").await;
    assert!(head(&mut late).await.unwrap().starts_with("HTTP/1.1 200 "));

    let mut whole = 0;
    while let Some(download) = downloads.join_next().await {
        assert_eq!(
            download.unwrap().unwrap(),
            DOWNLOAD,
            "a download within the drain timeout was cut"
        );
        whole += 1;
    }
    until("new connections are refused", async || TcpStream::connect(&address).await.is_err())
        .await;
    let mut served = 0;
    while let Some(asked) = load.join_next().await {
        served += asked.unwrap();
    }
    let status = gateway.process.ended().await;
    let took = signalled.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < delay + drain_timeout + Duration::from_secs(2), "{took:?}");
    assert!(took >= delay + drain_timeout, "streams get the whole drain timeout: {took:?}");
    while let Some(stream) = events.join_next().await {
        let all = stream.unwrap();
        assert!(all.len() > 20 && !all.ends_with(b"0\r\n\r\n"), "a cut stream looks complete");
    }
    while let Some(tunnel) = tunnels.join_next().await {
        let (echoed, ended) = tunnel.unwrap();
        assert!(echoed > 10 && ended >= signalled + delay, "{echoed}");
    }
    println!(
        "not ready within {not_ready:.0?}; {whole} downloads whole, {served} short ones; {took:.1?} in all"
    );
}
