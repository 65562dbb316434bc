//! Telemetry about requests: traces, metrics and logs, by OTLP, Application Insights and
//! `/metrics`.

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use serde_json::Value;

use crate::{
    tls_edge::TlsEdge,
    world::{
        self, API, Kind, Store, WithSession, World, client,
        collector::{Collector, WITHOUT_DELAY, attribute, hex},
        gateway::{Gateway, run},
        process::until,
        recorder::Recorder,
        secrets::Secrets,
        try_login,
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

fn pairs(settings: &[(String, String)]) -> Vec<(&str, &str)> {
    settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

async fn world_with(collector: &Collector, more: &[(&str, &str)]) -> World {
    let settings = collector.settings();
    let mut all = pairs(&settings);
    all.extend_from_slice(more);
    World::with(Kind::Redis, &all).await
}

fn of_path(spans: &[Span], path: &str) -> Option<Span> {
    let is_it = |span: &&Span| attribute(&span.attributes, "url.path").as_deref() == Some(path);
    spans.iter().find(is_it).cloned()
}

fn spans(collector: &Collector) -> Vec<Span> {
    collector.spans().into_iter().map(|(_, span)| span).collect()
}

async fn scraped(gateway: &Gateway) -> String {
    let url = gateway.ops_url("/metrics").expect("an address");
    let answer = client().get(url).send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    answer.text().await.expect("text")
}

/// Value of the series with this name and all of these labels.
fn series(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has =
        |line: &str, (label, value): &(&str, &str)| line.contains(&format!("{label}=\"{value}\""));
    let is_it = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| has(line, label))
    };
    text.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn a_trusted_peers_trace_continues_through_the_gateway_to_upstream() {
    let collector = Collector::start().await;
    let world = world_with(&collector, &[]).await;
    let request = client()
        .get(world.gateway.url("/test/echo?secret=1"))
        .header("traceparent", traceparent())
        .header("tracestate", "vendor=x");
    let echoed = world::json(request.send().await.unwrap()).await.to_string();
    until("both spans are exported", async || {
        spans(&collector).iter().filter(|span| hex(&span.trace_id) == TRACE).count() == 2
    })
    .await;
    let all = spans(&collector);
    let server = of_path(&all, "/test/echo").expect("the request's span");
    let upstream = all.iter().find(|span| span.parent_span_id == server.span_id).unwrap();
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!((server.name.as_str(), server.kind), ("GET /*", SpanKind::Server as i32));
    assert_eq!((upstream.name.as_str(), upstream.kind), ("GET", SpanKind::Client as i32));
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/*"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(&server.attributes, name).as_deref(), Some(value), "{name}");
    }
    let sent_parent = format!("00-{TRACE}-{}-01", hex(&upstream.span_id));
    assert!(
        echoed.contains(&sent_parent) && echoed.contains("vendor=x"),
        "{sent_parent} in {echoed}"
    );
    let (resource, _) = &collector.spans()[0];
    assert_eq!(
        attribute(&resource.attributes, "service.name").as_deref(),
        Some("simplechat-gateway")
    );
    let version = attribute(&resource.attributes, "service.version").unwrap();
    let printed = run(&[], &["--version"]).await;
    assert!(String::from_utf8_lossy(&printed.stdout).contains(&version), "{version}");

    // Log records belong to the span, and the line on stderr names the trace.
    until("the record is exported", async || {
        collector.records().iter().any(|record| {
            record.span_id == server.span_id
                && attribute(&record.attributes, "url.path").as_deref() == Some("/test/echo")
        })
    })
    .await;
    let log = world.gateway.process.log();
    assert!(log.lines().any(|l| l.contains("\"/test/echo\"") && l.contains(TRACE)), "{log}");
}

#[tokio::test]
async fn an_untrusted_peers_trace_is_not_continued() {
    let collector = Collector::start().await;
    let settings = collector.settings();
    let mut more = pairs(&settings);
    let recorder = Recorder::start().await;
    more.extend([
        ("GATEWAY_TRUSTED_PROXIES", "none"),
        ("GATEWAY_UPSTREAM_URL", recorder.url.as_str()),
    ]);
    let (gateway, _entra, _store) = world::alone(Kind::Files, &more).await;
    let request = client().get(gateway.url("/x")).header("traceparent", traceparent());
    assert_eq!(request.send().await.unwrap().status(), 200);
    until("the span is exported", async || of_path(&spans(&collector), "/x").is_some()).await;
    let span = of_path(&spans(&collector), "/x").unwrap();
    assert!(span.parent_span_id.is_empty());
    assert_ne!(hex(&span.trace_id), TRACE);
}

#[tokio::test]
async fn a_trace_passes_through_when_nothing_is_exported() {
    let world = World::with(Kind::Files, &[]).await;
    let request =
        client().get(world.gateway.url("/test/echo")).header("traceparent", traceparent());
    let echoed = world::json(request.send().await.unwrap()).await.to_string();
    assert!(echoed.contains(&traceparent()), "{echoed}");
    until("the log names the trace", async || world.gateway.process.log().contains(TRACE)).await;
}

#[tokio::test]
async fn telemetry_settings_in_a_file_apply_and_unsampled_spans_are_not_exported() {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let text = format!(
        "OTEL_EXPORTER_OTLP_ENDPOINT = \"http://{}\"\nOTEL_SERVICE_NAME = \"named-in-a-file\"\n\
         OTEL_TRACES_SAMPLER = \"always_off\"\nOTEL_BLRP_SCHEDULE_DELAY = 50\n\
         OTEL_BSP_SCHEDULE_DELAY = 50\n",
        collector.address()
    );
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let mut world = World::with(Kind::Files, &[("GATEWAY_CONFIG", &file)]).await;
    let request =
        client().get(world.gateway.url("/test/echo")).header("traceparent", traceparent());
    let echoed = world::json(request.send().await.unwrap()).await["headers"].to_string();
    let rest_of_header = echoed.split(&format!("00-{TRACE}-")).nth(1).expect("the trace");
    assert!(
        !rest_of_header.starts_with(PARENT) && rest_of_header[16..].starts_with("-00"),
        "{rest_of_header}"
    );
    world.gateway.process.signal("TERM");
    assert_eq!(world.gateway.process.ended().await.code(), Some(0));
    let batches = collector.batches();
    let logs = batches.iter().find(|batch| batch.path == "/v1/logs").expect("logs");
    assert!(String::from_utf8_lossy(&logs.body).contains("named-in-a-file"));
    assert!(spans(&collector).is_empty());
}

#[tokio::test]
async fn no_secret_is_exported_and_nothing_is_when_disabled() {
    let collector = Collector::start().await;
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret%20key");
    let mut world = world_with(&collector, &[headers]).await;
    let token = world.entra.token().build();
    let session = world.login(&token).await;
    world::status(world.gateway.url(API), &session).await;
    let guarded = client().get(world.gateway.url("/external/x?token=hidden")).bearer_auth(&token);
    guarded.session(&session).send().await.unwrap();
    until("all three signals are exported", async || {
        let has_metric = |name: &str| collector.metrics().iter().any(|metric| metric.name == name);
        of_path(&spans(&collector), "/external/x").is_some()
            && has_metric("http.server.request.duration")
            && has_metric("simplechat.gateway.logins")
            && collector.records().iter().any(|record| {
                attribute(&record.attributes, "url.path").as_deref() == Some("/external/x")
            })
    })
    .await;
    let secrets = Secrets::of(&collector.settings());
    for batch in collector.batches() {
        assert_eq!(batch.headers["api-key"], "s3cret key");
        let text = String::from_utf8_lossy(&batch.body).into_owned();
        secrets.assert_absent_in(&text);
        for secret in [token.as_str(), &session, "token=hidden", "s3cret"] {
            assert!(!text.contains(secret), "{secret} in {}", batch.path);
        }
    }

    world.restart_gateway_with(&[("OTEL_SDK_DISABLED", "true")]).await;
    let before = collector.batches().len();
    world.login(&world.entra.token().build()).await;
    world.gateway.process.signal("TERM");
    assert_eq!(world.gateway.process.ended().await.code(), Some(0));
    assert_eq!(collector.batches().len(), before);
}

#[tokio::test]
async fn pending_telemetry_is_exported_at_shutdown() {
    let collector = Collector::start().await;
    let settings = collector.settings();
    let mut more = pairs(&settings);
    more.extend([("OTEL_BSP_SCHEDULE_DELAY", "600000"), ("OTEL_BLRP_SCHEDULE_DELAY", "600000")]);
    let (mut gateway, _entra, _store) = world::alone(Kind::Files, &more).await;
    client().get(gateway.url("/gateway/health/live")).send().await.unwrap();
    gateway.process.signal("TERM");
    assert_eq!(gateway.process.ended().await.code(), Some(0));
    assert!(of_path(&spans(&collector), "/gateway/health/live").is_some());
    let mentions_drain = |record: &opentelemetry_proto::tonic::logs::v1::LogRecord| {
        format!("{:?}", record.body).contains("draining")
    };
    assert!(collector.records().iter().any(mentions_drain));
}

#[tokio::test]
async fn prometheus_metrics_count_requests_logins_and_sessions() {
    let world = World::with(Kind::Redis, &[]).await;
    let gateway = &world.gateway;
    let session = world.login(&world.entra.token().build()).await;
    assert_eq!(world::status(gateway.url(API), &session).await, 200);
    assert_eq!(try_login(gateway, &world.entra.token().roles(&[]).build()).await.status(), 403);
    let guard = client().get(gateway.url("/external/x")).send().await.unwrap();
    assert_eq!(guard.status(), 401);
    let odd = client().request("BREW".parse().unwrap(), gateway.url("/api/a/b/c"));
    odd.send().await.unwrap();

    // The metrics are updated after the answer is sent.
    let unknown_method = [("http_request_method", "_OTHER")];
    let active = ("http_server_active_requests", Some(0.0));
    until("all requests are counted", async || {
        let text = scraped(gateway).await;
        let is_recorded =
            series(&text, "http_server_request_duration_seconds_count", &unknown_method).is_some();
        is_recorded && series(&text, active.0, &[]) == active.1
    })
    .await;
    let text = scraped(gateway).await;
    let route = |route: &'static str| ("http_route", route);
    let count = "http_server_request_duration_seconds_count";
    for (name, labels) in [
        (count, vec![route("/external/login"), ("http_response_status_code", "200")]),
        (count, vec![route("/api/*"), ("http_request_method", "GET")]),
        (count, vec![route("/api/*"), ("http_request_method", "_OTHER")]),
        ("simplechat_gateway_logins_total", vec![("error_type", "scope_missing")]),
        (
            "simplechat_gateway_refusals_total",
            vec![route("/external/*"), ("error_type", "no_credentials")],
        ),
        ("simplechat_gateway_token_verification_duration_seconds_count", vec![]),
        ("simplechat_gateway_signing_keys_refreshes_total", vec![]),
        (
            "simplechat_gateway_session_store_operation_duration_seconds_count",
            vec![("store", "redis"), ("operation", "add_note")],
        ),
        ("simplechat_gateway_upstream_connect_duration_seconds_count", vec![]),
        ("http_client_open_connections", vec![("http_connection_state", "idle")]),
    ] {
        assert!(
            series(&text, name, &labels).is_some_and(|n| n >= 1.0),
            "{name} {labels:?}\n{text}"
        );
    }
    assert!(series(&text, "simplechat_gateway_signing_keys_age_seconds", &[]).is_some(), "{text}");
    assert!(!text.contains("/api/a/b/c") && !text.contains("BREW"), "{text}");
    // Counted by the sweep.
    until("the session is counted", async || {
        series(&scraped(gateway).await, "simplechat_gateway_sessions_live", &[]) == Some(1.0)
    })
    .await;
}

#[tokio::test]
async fn a_failed_upstream_connection_is_an_error_type_in_metrics() {
    let (gateway, _entra, _store) = world::alone(Kind::Files, &[]).await;
    assert_eq!(client().get(gateway.url("/x")).send().await.unwrap().status(), 502);
    let text = scraped(&gateway).await;
    let connect = [("error_type", "upstream_connect")];
    for name in [
        "simplechat_gateway_refusals_total",
        "simplechat_gateway_upstream_connect_duration_seconds_count",
    ] {
        assert!(series(&text, name, &connect).is_some_and(|n| n >= 1.0), "{name}\n{text}");
    }
}

#[tokio::test]
async fn application_insights_gets_requests_dependencies_traces_and_metrics() {
    let (ingestion, recorder) = (Collector::start().await, Recorder::start().await);
    let edge = TlsEdge::start(ingestion.address()).await;
    let key = "00000000-0000-4000-8000-00000000c0de";
    let connection = format!(
        "InstrumentationKey={key};IngestionEndpoint={}/;LiveEndpoint=https://x/",
        edge.url()
    );
    let ca = edge.ca();
    let mut more = vec![
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", connection.as_str()),
        ("SSL_CERT_FILE", ca.as_str()),
        ("GATEWAY_UPSTREAM_URL", recorder.url.as_str()),
    ];
    more.extend(WITHOUT_DELAY);
    let (gateway, _entra, _store) = world::alone(Kind::Files, &more).await;
    let request = client().get(gateway.url("/x")).header("traceparent", traceparent());
    assert_eq!(request.send().await.unwrap().status(), 200);
    let of_type = |name: &str, is_it: &dyn Fn(&Value) -> bool| {
        let mut all = ingestion.envelopes().into_iter();
        all.find(|e| e["data"]["baseType"] == name && is_it(e))
    };
    let in_trace = |e: &Value| e["tags"]["ai.operation.id"] == TRACE;
    until("all kinds are exported", async || {
        of_type("RequestData", &in_trace).is_some()
            && of_type("RemoteDependencyData", &in_trace).is_some()
            && of_type("MessageData", &in_trace).is_some()
            && of_type("MetricData", &|e| e.to_string().contains("http.server.request.duration"))
                .is_some()
    })
    .await;
    let request = of_type("RequestData", &in_trace).unwrap();
    assert_eq!(request["iKey"], key);
    assert_eq!(request["data"]["baseData"]["responseCode"], "200");
    assert_eq!(request["tags"]["ai.cloud.role"], "simplechat-gateway");
}

#[tokio::test]
async fn invalid_telemetry_settings_exit_with_78_and_show_no_secret() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", "InstrumentationKey=hush;Authorization=aad"),
    ] {
        let (entra, store) = (crate::entra::Entra::start().await, Store::start(Kind::Files).await);
        let more = [(name.to_owned(), value.to_owned())];
        let ended = run(&world::settings(&entra, None, &store, &more), &["check"]).await;
        assert_eq!(ended.status.code(), Some(78));
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(stderr.contains(name) && !stderr.contains("hush"), "{stderr}");
    }
}

#[tokio::test]
async fn one_trace_holds_the_gateways_and_flasks_spans() {
    let collector = Collector::start().await;
    let packages = world::flask::in_repository("target/python/traced").display().to_string();
    let more = [
        ("UPSTREAM_TRACED", "simplechat"),
        ("PYTHONPATH", packages.as_str()),
        ("GATEWAY_TRUSTED_PROXIES", "private"),
    ];
    let world = world_with(&collector, &more).await;
    let session = world.login(&world.entra.token().build()).await;
    let request = client().get(world.gateway.url(API)).session(&session);
    let answer = request.header("traceparent", traceparent()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let of_trace = || {
        let all = collector.spans().into_iter();
        all.filter(|(_, span)| hex(&span.trace_id) == TRACE).collect::<Vec<_>>()
    };
    until("three spans are exported", async || of_trace().len() == 3).await;
    let mut parent = PARENT.to_owned();
    for depth in 0..3 {
        let all = of_trace();
        let (resource, span) =
            all.iter().find(|(_, span)| hex(&span.parent_span_id) == parent).expect("a child");
        let kind = SpanKind::try_from(span.kind).unwrap().as_str_name();
        let took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1000;
        let service = attribute(&resource.attributes, "service.name").unwrap_or_default();
        let library = attribute(&resource.attributes, "telemetry.sdk.language").unwrap_or_default();
        let indent = "  ".repeat(depth);
        println!("{indent}{} [{kind}] {took} µs, {service} ({library})", span.name);
        for key in span.attributes.iter().map(|attribute| &attribute.key) {
            println!(
                "{indent}    {key} = {}",
                attribute(&span.attributes, key).unwrap_or_default()
            );
        }
        let (is_flasks, flasks) = (depth == 2, ("simplechat", "python"));
        let expected = if is_flasks { flasks } else { ("simplechat-gateway", "rust") };
        assert_eq!((service.as_str(), library.as_str()), expected);
        parent = hex(&span.span_id);
    }
}
