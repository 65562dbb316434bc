//! Requests and answers are proxied in both directions, as streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    entra::Entra,
    tls_edge::TlsEdge,
    world::{Kind, Store, World, alone, client, gateway::Gateway, json, process::until, settings},
};

async fn echo(world: &World, request: &str) -> Value {
    let answer = world.gateway.raw(request).await;
    let body = answer.split_once("\r\n\r\n").expect("a head").1;
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn header(echo: &Value, name: &str) -> Option<String> {
    let headers = echo["headers"].as_array().unwrap();
    let found = headers.iter().find(|pair| pair[0] == name)?;
    Some(found[1].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn targets_methods_and_headers_arrive_as_sent() {
    let world = World::start(Kind::Files).await;
    for target in
        ["/test/echo/a%2Fb//c;d=1/../e?q=%20+%C3%A4&x", "/test/echo/%7Euser?a=b?c=d", "/test/echo?"]
    {
        let received = echo(&world, &format!("PURGE {target} HTTP/1.1\r\nHost: Chat.Example:99\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(received["target"], target);
        assert_eq!(received["method"], "PURGE");
        assert_eq!(header(&received, "host").as_deref(), Some("Chat.Example:99"));
        assert_eq!(header(&received, "x-a").as_deref(), Some("1,2"));
        assert_eq!(header(&received, "connection"), None, "hop by hop");
    }
    let absolute = echo(&world, "GET http://chat.example/test/echo?x HTTP/1.1\r\nHost: chat.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!(absolute["target"], "/test/echo?x");
}

#[tokio::test]
async fn callers_may_speak_http_1_0() {
    let world = World::start(Kind::Files).await;
    let received = echo(&world, "GET /test/echo HTTP/1.0\r\n\r\n").await;
    assert_eq!(received["protocol"], "HTTP/1.1", "each hop has its own version");
    let answer = world.gateway.raw("GET /test/bytes?n=100000 HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("chunked"), "{head}");
    assert!(body.len() >= 100_000, "{}", body.len());
}

#[tokio::test]
async fn forwarding_headers_are_set_by_the_gateway_and_spoofed_ones_dropped() {
    let world = World::with(Kind::Files, &[("GATEWAY_TRUSTED_PROXIES", "none")]).await;
    let received = echo(
        &world,
        "GET /test/echo HTTP/1.1\r\nHost: chat.example\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Ssl: on\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Original-URL: /external/login\r\n\
         SCRIPT_NAME: /test\r\nX_Forwarded_Proto: https\r\nKeep-Alive: 1\r\nTE: trailers\r\nX-Hop: 1\r\n\
         Connection: close, X-Hop\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
    )
    .await;
    assert_eq!(header(&received, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(header(&received, "x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(header(&received, "x-forwarded-host").as_deref(), Some("chat.example"));
    assert_eq!(header(&received, "cookie").as_deref(), Some("a=1; b=2"));
    assert_eq!(received["scheme"], "http");
    for forbidden in [
        "x-forwarded-ssl",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "keep-alive",
        "te",
        "x-hop",
        "script-name",
    ] {
        assert_eq!(header(&received, forbidden), None, "{forbidden}");
    }

    let behind_proxy = World::start(Kind::Files).await;
    let received = echo(
        &behind_proxy,
        "GET /test/echo HTTP/1.1\r\nHost: chat.example\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(header(&received, "x-forwarded-for").as_deref(), Some("198.51.100.7, 127.0.0.1"));
    assert_eq!(received["scheme"], "https", "gunicorn trusts the gateway");
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let world = World::start(Kind::Files).await;
    for (what, head) in [
        (
            "two lengths",
            "POST /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        ),
        ("a signed length", "POST /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc"),
        (
            "another coding",
            "POST /test/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks in HTTP/1.0",
            "POST /test/echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no host", "GET /test/echo HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET /test/echo HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("another scheme", "GET ftp://a/test/echo HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("no path", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        ("another authority", "GET http://b/test/echo HTTP/1.1\r\nHost: a\r\n\r\n"),
        (
            "a protected field nominated",
            "GET /test/echo HTTP/1.1\r\nHost: a\r\nConnection: Authorization\r\n\r\n",
        ),
        ("folding", "GET /test/echo HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
        ("TRACE", "TRACE /test/echo HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let answer = world.gateway.raw(head).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{what}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
    }
    let log = world.upstream_log().await;
    assert!(!log.contains("/test/echo"), "{log}");
}

#[tokio::test]
async fn uploads_are_streamed_and_arrive_complete() {
    let world = World::start(Kind::Files).await;
    let size: usize = 40 * 1024 * 1024;
    let chunk = vec![0x5a_u8; 64 * 1024];
    let mut digest = Context::new(&SHA256);
    for _ in 0..size / chunk.len() {
        digest.update(&chunk);
    }
    let hex: Vec<String> = digest.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();

    let memory_before = resident(&world.gateway);
    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    stream.write_all(b"POST /test/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").await.unwrap();
    for _ in 0..size / chunk.len() {
        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
        stream.write_all(&chunk).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(&hex.concat()), "{answer}");
    assert!(answer.contains(&format!("\"body_length\":{size}")), "{answer}");
    let grown = resident(&world.gateway).saturating_sub(memory_before);
    assert!(grown < 20 * 1024, "{grown} KiB");
}

/// Resident memory in KiB.
fn resident(gateway: &Gateway) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let world = World::start(Kind::Redis).await;
    let session = world.login(&world.entra.token().build()).await;
    let request = client().post(world.gateway.url("/api/chat/stream?events=4&interval=0.4"));
    let mut answer = request.header("cookie", format!("session={session}")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let mut arrivals = Vec::new();
    let begun = tokio::time::Instant::now();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        assert!(chunk.starts_with(b"data:"), "{chunk:?}");
        arrivals.push(begun.elapsed());
    }
    assert!(arrivals.len() >= 4, "{arrivals:?}");
    assert!(arrivals[2] > arrivals[0] + Duration::from_millis(500), "{arrivals:?}");
}

#[tokio::test]
async fn answers_without_bodies_keep_their_headers() {
    let world = World::start(Kind::Files).await;
    let head = client().head(world.gateway.url("/static/lines.txt")).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "4096");
    let tag = head.headers()["etag"].clone();
    let not_modified =
        client().get(world.gateway.url("/static/lines.txt")).header("if-none-match", tag);
    assert_eq!(not_modified.send().await.unwrap().status(), 304);
    let range = client().get(world.gateway.url("/static/lines.txt")).header("range", "bytes=16-31");
    let range = range.send().await.unwrap();
    assert_eq!(range.status(), 206);
    assert_eq!(range.text().await.unwrap().len(), 16);
    let to_login = client()
        .get(world.gateway.url("/chats"))
        .header("host", "chat.example")
        .send()
        .await
        .unwrap();
    assert_eq!(to_login.status(), 302, "redirects are passed on, not followed");
    assert_eq!(to_login.headers()["location"], "/login");
}

#[tokio::test]
async fn continue_is_sent_only_after_the_guard() {
    let world = World::start(Kind::Files).await;
    let head = "POST /external/public_documents HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let answer = world.gateway.raw(head).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");

    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    stream.write_all(b"POST /test/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut buffer = [0; 25];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"body_length\":3"),
        "{answer}"
    );
}

/// An upstream that counts connections and sends a fixed answer, up to `closes_after` times per
/// connection.
async fn scripted(
    answer: &'static str,
    closes_after: usize,
) -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&connections), Arc::clone(&requests));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.0.fetch_add(1, Ordering::SeqCst);
            let requests = Arc::clone(&counted.1);
            tokio::spawn(async move {
                let mut served = 0;
                let mut buffer = vec![0; 65536];
                while let Ok(read) = stream.read(&mut buffer).await {
                    if read == 0 {
                        return;
                    }
                    // Reads one more request than it answers: the connection closes during a
                    // request.
                    requests.fetch_add(1, Ordering::SeqCst);
                    if served == closes_after {
                        return;
                    }
                    served += 1;
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (url, connections, requests)
}

const OK: &str = "HTTP/1.1 200 Fine\r\nX-Case: Preserved\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok";

async fn in_front_of(url: &str) -> (Gateway, Entra, Store) {
    // Each worker thread has its own connection pool.
    let more = [("GATEWAY_UPSTREAM_URL", url), ("GATEWAY_WORKERS", "1")];
    let world = alone(Kind::Files, &more).await;
    until("upstream answered", async || world.0.is_ready().await).await;
    world
}

#[tokio::test]
async fn connections_to_upstream_are_reused() {
    let (url, connections, _) = scripted(OK, 1000).await;
    let (gateway, ..) = in_front_of(&url).await;
    let before = connections.load(Ordering::SeqCst);
    for _ in 0..10 {
        let answer = client().get(gateway.url("/x")).send().await.unwrap();
        assert_eq!(answer.headers().get_all("set-cookie").iter().count(), 2);
        for hop in ["x-hop", "keep-alive", "connection"] {
            assert!(!answer.headers().contains_key(hop), "{hop}");
        }
        assert_eq!(answer.text().await.unwrap(), "ok");
    }
    assert_eq!(connections.load(Ordering::SeqCst) - before, 1);
    let raw = gateway.raw("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(
        raw.starts_with("HTTP/1.1 200 Fine\r\n") && raw.contains("\r\nX-Case: Preserved\r\n"),
        "{raw}"
    );
}

#[tokio::test]
async fn a_get_is_retried_when_its_pooled_connection_closes() {
    let (url, _, requests) = scripted(OK, 1).await;
    let (gateway, ..) = in_front_of(&url).await;
    let before = requests.load(Ordering::SeqCst);
    assert_eq!(client().get(gateway.url("/1")).send().await.unwrap().status(), 200);
    assert_eq!(client().get(gateway.url("/2")).send().await.unwrap().status(), 200, "retried");
    assert_eq!(requests.load(Ordering::SeqCst) - before, 3);
    // A POST may have run, so it is never retried: it uses a new connection.
    assert_eq!(client().post(gateway.url("/3")).body("x").send().await.unwrap().status(), 200);
    assert_eq!(requests.load(Ordering::SeqCst) - before, 4);
}

#[tokio::test]
async fn a_truncated_answer_of_upstream_never_ends_cleanly() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nonly this";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(short.as_bytes()).await;
        }
    });
    let (gateway, ..) = in_front_of(&url).await;
    let answer = client().get(gateway.url("/x")).send().await.unwrap();
    assert!(answer.bytes().await.is_err());
}

#[tokio::test]
async fn upstream_may_be_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("upstream.sock").display().to_string();
    let world = World::with(Kind::Files, &[("GUNICORN_BIND", &format!("unix:{socket}"))]).await;
    let answer = client().get(world.gateway.url("/test/echo")).send().await.unwrap();
    assert_eq!(json(answer).await["path"], "/test/echo");
}

#[tokio::test]
async fn upstream_may_be_another_app_over_tls() {
    let world = World::start(Kind::Files).await;
    let edge = TlsEdge::start(world.flask.url().replace("http://", "")).await;
    let more = [
        ("GATEWAY_UPSTREAM_URL", edge.url()),
        ("GATEWAY_UPSTREAM_HOST", "simplechat.internal".to_owned()),
        ("SSL_CERT_FILE", edge.ca()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let gateway =
        Gateway::start(&settings(&world.entra, Some(&world.flask), &world.store, &more)).await;
    let answer = client().get(gateway.url("/test/echo")).send().await.unwrap();
    assert_eq!(header(&json(answer).await, "host").as_deref(), Some("simplechat.internal"));

    let mut untrusting = more.to_vec();
    untrusting.retain(|(name, _)| name != "SSL_CERT_FILE");
    // The same server under a name that its certificate does not have.
    let mut misnamed = more.to_vec();
    misnamed[0].1 = edge.url().replace("localhost", "127.0.0.1");
    for wrong in [untrusting, misnamed] {
        let settings = settings(&world.entra, Some(&world.flask), &world.store, &wrong);
        let gateway = Gateway::start(&settings).await;
        assert_eq!(client().get(gateway.url("/x")).send().await.unwrap().status(), 502);
    }
}

#[tokio::test]
async fn requests_in_flight_finish_after_sigterm() {
    let mut world = World::start(Kind::Files).await;
    let slow = client().get(world.gateway.url("/test/hang?seconds=1.5")).send();
    let slow = tokio::spawn(slow);
    until("the request hangs", async || world.flask.log().contains("a hanging request began"))
        .await;
    world.gateway.process.signal("TERM");
    assert_eq!(slow.await.unwrap().unwrap().status(), 200);
    assert_eq!(world.gateway.process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_slow_request_head_gets_408_and_an_idle_connection_stays_open() {
    let world = World::with(Kind::Files, &[("GATEWAY_TIMEOUT_HEAD", "1s")]).await;
    let begun = tokio::time::Instant::now();
    let answer = world.gateway.raw("GET /test/echo HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!((900..5000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());

    let mut stream = TcpStream::connect(world.gateway.address()).await.unwrap();
    let mut buffer = vec![0; 65536];
    for pause in [0, 1500, 1500] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        stream.write_all(b"GET /test/pid HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        while !answer.contains("initialized") {
            let read = stream.read(&mut buffer).await.unwrap();
            assert_ne!(read, 0, "closed after {pause} ms: {answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
}

#[tokio::test]
async fn a_get_may_have_a_body_of_unknown_length() {
    let world = World::start(Kind::Files).await;
    let request = "GET /test/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(echo(&world, request).await["body_length"], 3);
}

#[tokio::test]
async fn a_malformed_request_body_gets_400() {
    let world = World::start(Kind::Files).await;
    let head = "POST /test/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = world.gateway.raw(format!("{head}zz\r\nab\r\n0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn an_answer_with_two_framings_leaves_with_one() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let (url, ..) = scripted(both, 1000).await;
    let (gateway, ..) = in_front_of(&url).await;
    let answer = client().get(gateway.url("/x")).send().await.unwrap();
    assert!(!answer.headers().contains_key("content-length"), "{:?}", answer.headers());
    assert_eq!(answer.text().await.unwrap(), "a");
}

#[tokio::test]
async fn a_get_is_not_retried_once_an_answer_has_begun() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut buffer = vec![0; 65536];
                for answer in [OK, "HTTP/1.1 200 O"] {
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    let (gateway, ..) = in_front_of(&url).await;
    let before = requests.load(Ordering::SeqCst);
    assert_eq!(client().get(gateway.url("/1")).send().await.unwrap().status(), 200);
    assert_eq!(client().get(gateway.url("/2")).send().await.unwrap().status(), 502);
    assert_eq!(requests.load(Ordering::SeqCst) - before, 2);
}

#[tokio::test]
async fn an_upstream_that_reads_no_body_is_504_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut accepted = Vec::new();
        loop {
            accepted.push(listener.accept().await.unwrap());
        }
    });
    let more = [("GATEWAY_UPSTREAM_URL", url.as_str()), ("GATEWAY_TIMEOUT_RESPONSE", "1s")];
    let (gateway, ..) = alone(Kind::Files, &more).await;
    let upload = client().post(gateway.url("/upload")).body(vec![0; 60_000_000]);
    assert_eq!(upload.send().await.unwrap().status(), 504);
}
