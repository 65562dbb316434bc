//! SIGTERM at any time, with unavailable dependencies: the process ends within the documented time.
//!
//! decocms/studio#3975.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{
    entra::Entra,
    world::{
        self, Kind, Store,
        collector::WITHOUT_DELAY,
        gateway::binary,
        process::Process,
        settings,
        stopping::{AFTER_DRAIN, handles_sigterm},
    },
};

/// Delays of SIGTERM in ms, from the moment its handler exists: during the start, between retries
/// of database work, and after the outage is detected.
const DELAYS: [u64; 5] = [0, 400, 1500, 4500, 12_000];

/// Accepts connections and never answers.
async fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Stops a gateway with these settings after each delay.
async fn stops_in_time(kind: Kind, more: &[(&str, &str)]) {
    let (entra, store) = (Entra::start().await, Store::start(kind).await);
    let more: Vec<_> =
        more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut stops = JoinSet::new();
    for delay in DELAYS {
        let settings = settings(&entra, None, &store, &more);
        stops.spawn(async move {
            let mut process = Process::start(&mut Command::new(binary()), &settings, "KILL");
            handles_sigterm(&process).await;
            sleep(Duration::from_millis(delay)).await;
            let begun = Instant::now();
            process.signal("TERM");
            let status = process.ended().await;
            let took = begun.elapsed();
            println!("SIGTERM after {delay} ms: ended after {took:.1?}");
            assert_eq!(status.code(), Some(0), "{delay} ms: {}", process.log());
            assert!(took < AFTER_DRAIN, "{delay} ms: {took:?}\n{}", process.log());
        });
    }
    while let Some(stop) = stops.join_next().await {
        stop.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_database_refuses_connections_stops_in_time() {
    let url = "postgres://gateway:x@127.0.0.1:1/gateway";
    stops_in_time(Kind::Files, &[("DATABASE_URL", url)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_dependencies_are_all_silent_stops_in_time() {
    let (_database, database) = silent().await;
    let (_redis, redis) = silent().await;
    let (_collector, collector) = silent().await;
    let (_ingestion, ingestion) = silent().await;
    let key = "00000000-0000-4000-8000-00000000c0de";
    let insights = format!("InstrumentationKey={key};IngestionEndpoint=https://{ingestion}/");
    let mut more = vec![
        ("DATABASE_URL", format!("postgres://gateway:x@{database}/gateway")),
        ("REDIS_URL", format!("redis://{redis}/0")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", insights),
        ("GATEWAY_UPSTREAM_URL", format!("http://{collector}")),
        ("GATEWAY_CANARY_INTERVAL", "1s".to_owned()),
    ];
    more.extend(WITHOUT_DELAY.map(|(name, value)| (name, value.to_owned())));
    let more: Vec<_> = more.iter().map(|(name, value)| (*name, value.as_str())).collect();
    stops_in_time(Kind::Redis, &more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_redis_refuses_connections_stops_in_time() {
    stops_in_time(Kind::Redis, &[("REDIS_URL", "redis://127.0.0.1:1/0")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_whose_upstream_never_answered_stops_without_waiting_for_it() {
    let more = [("GATEWAY_CANARY_INTERVAL", "1s")];
    let (mut gateway, _entra, _store) = world::alone(Kind::Files, &more).await;
    let begun = Instant::now();
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    // Less than the timeouts of the canary and of activity records.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// An endless event stream: sends the first event only.
async fn stream(mut connection: TcpStream) -> std::io::Result<()> {
    let mut head = [0; 4096];
    while connection.read(&mut head).await? > 0 {
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n";
        connection.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_drain_although_the_database_is_unavailable() {
    let (listener, address) = silent().await;
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(stream(connection));
        }
    });
    let url = format!("http://{address}");
    let more = [
        ("GATEWAY_UPSTREAM_URL", url.as_str()),
        ("GATEWAY_WORKERS", "1"),
        ("GATEWAY_DRAIN_TIMEOUT", "1s"),
        ("DATABASE_URL", "postgres://gateway@127.0.0.1:1/gateway"),
    ];
    let (mut gateway, _entra, _store) = world::alone(Kind::Files, &more).await;
    let mut caller = TcpStream::connect(gateway.address()).await.unwrap();
    caller.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"event\r\n") {
        answer.push(caller.read_u8().await.unwrap());
    }
    let begun = Instant::now();
    gateway.process.signal("TERM");
    let _ = caller.read_to_end(&mut answer).await;
    let cut_off = begun.elapsed();
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    let drain = Duration::from_secs(1);
    assert!(cut_off >= drain && cut_off < drain * 3, "{cut_off:?}");
    assert!(begun.elapsed() < drain + AFTER_DRAIN, "{:?}", begun.elapsed());
}
