//! A collector that is unavailable or does not answer: no request is delayed, dropped telemetry is
//! counted.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::world::{
    self, Kind, client, collector::WITHOUT_DELAY, gateway::Gateway, process::until,
};

/// Number of dropped items over all exporters and signals.
async fn dropped(gateway: &Gateway, reason: &str) -> f64 {
    let url = gateway.ops_url("/metrics").expect("an address");
    let text = client().get(url).send().await.unwrap().text().await.unwrap();
    let reason = format!("reason=\"{reason}\"");
    let lines = text.lines().filter(|line| {
        line.starts_with("simplechat_gateway_telemetry_lost_total") && line.contains(&reason)
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn assert_clean_stop(gateway: &mut Gateway) {
    let begun = Instant::now();
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let log = gateway.process.log();
    assert!(log.contains("telemetry was lost"), "{log}");
    assert!(!log.contains("ExportError"), "logged once in a while, not each time");
}

#[tokio::test]
async fn a_hanging_collector_delays_no_request_and_drops_are_counted() {
    // Accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut more = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "8"),
    ];
    more.extend(WITHOUT_DELAY);
    let (mut gateway, _entra, _store) = world::alone(Kind::Files, &more).await;
    let (client, url) = (client(), gateway.url("/gateway/health/live"));
    client.get(&url).send().await.unwrap();
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    }
    // Far less than the timeout of one export.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    until("drops are counted", async || dropped(&gateway, "queue_full").await >= 40.0).await;
    assert_clean_stop(&mut gateway).await;
    drop(silent);
}

#[tokio::test]
async fn unavailable_collectors_delay_no_request_and_drops_are_counted() {
    let mut more = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        (
            "APPLICATIONINSIGHTS_CONNECTION_STRING",
            "InstrumentationKey=00000000-0000-4000-8000-00000000c0de;IngestionEndpoint=https://127.0.0.1:1/",
        ),
    ];
    more.extend(WITHOUT_DELAY);
    let (mut gateway, _entra, _store) = world::alone(Kind::Files, &more).await;
    let url = gateway.url("/gateway/health/live");
    assert_eq!(client().get(&url).send().await.unwrap().status(), 200);
    until("drops are counted", async || dropped(&gateway, "undelivered").await >= 3.0).await;
    assert_clean_stop(&mut gateway).await;
}
