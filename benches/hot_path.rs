//! Cost of every request before a byte is forwarded: heads, targets, tokens, sessions.
//!
//! The measured modules import nothing of the crate, so they are included unchanged. `cargo bench
//! --bench hot_path`.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]
#![allow(dead_code, unreachable_pub, unused_imports, reason = "the gateway uses all of it")]

#[path = "../src/authz"]
mod authz {
    pub mod client_info;
    pub mod token;
}
#[path = "../tests/entra/mod.rs"]
mod entra;
#[path = "../src/h1"]
mod h1 {
    pub mod message;
}
#[path = "../src/http"]
mod routing {
    pub mod endpoint;
    pub mod metrics;
}

#[path = "../src/flask"]
mod flask {
    pub mod path;
}

mod telemetry {
    pub(crate) fn meter() -> opentelemetry::metrics::Meter {
        opentelemetry::global::meter("bench")
    }
}

use authz::{
    client_info::{EdgePolicy, Forwarding, TrustedProxies},
    token::{BearerToken, ExpectedClaims, Issuers, SigningKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use divan::{Bencher, black_box};
use flask::path::Target;
use h1::message::{self, Body, Length, RequestHead};
use opentelemetry::{
    Context, KeyValue, global,
    trace::{SpanKind, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    metrics::SdkMeterProvider,
    trace::{BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter},
};
use routing::{
    endpoint::{self, Endpoint},
    metrics::ServerMetrics,
};

fn main() {
    divan::main();
}

/// Head as Chromium sends it.
const HEAD: &str = "GET /api/get_conversations?limit=50 HTTP/1.1\r\nHost: chat.example\r\nConnection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"142\"\r\nsec-ch-ua-mobile: ?0\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\nAccept: application/json\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nReferer: https://chat.example/chats\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\nCookie: session=AAAAAAAAAAAAAAAAAAAAAA.1795384800; theme=dark\r\n\r\n";

#[divan::bench]
fn a_heads_end_is_found(bencher: Bencher) {
    bencher.bench(|| message::find_end(black_box(HEAD.as_bytes()), 0));
}

#[divan::bench]
fn a_head_is_read(bencher: Bencher) {
    bencher
        .with_inputs(|| Bytes::from_static(HEAD.as_bytes()))
        .bench_values(|bytes| RequestHead::parse(black_box(bytes)));
}

#[divan::bench]
fn a_requests_length_is_judged(bencher: Bencher) {
    let head = RequestHead::parse(Bytes::from_static(HEAD.as_bytes())).unwrap();
    bencher.bench(|| Length::of_request(black_box(&head)));
}

#[divan::bench]
fn a_megabyte_in_chunks_is_followed(bencher: Bencher) {
    let chunk = [b"4000\r\n".as_slice(), &vec![b'a'; 0x4000], b"\r\n"].concat();
    let body = [chunk.repeat(64), b"0\r\n\r\n".to_vec()].concat();
    bencher.bench(|| Body::new(Length::Chunked, |_| true).take(black_box(&body)));
}

#[divan::bench(args = ["/api/get_conversations", "/external/public_documents/3f2a", "/static/a%20b.css"])]
fn a_target_is_read(path: &str) -> bool {
    Target::read(black_box(path)) == Target::Open
}

#[divan::bench]
fn a_request_is_placed(bencher: Bencher) {
    let edge =
        EdgePolicy { public_urls: Vec::new(), trusted: TrustedProxies::Private, front_door: None };
    let forwarding = Forwarding {
        host: Some("chat.example"),
        x_for: vec!["198.51.100.7"],
        x_proto: vec!["https"],
        ..Forwarding::default()
    };
    let peer = "10.0.0.2".parse().unwrap();
    bencher.bench(|| edge.resolve(black_box(peer), &forwarding));
}

#[divan::bench]
fn a_token_is_verified_with_a_key_that_was_parsed_once(bencher: Bencher) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (token, keys, issuers) = runtime.block_on(async {
        let entra = entra::Entra::start().await;
        let keys = reqwest::get(format!("{}/common/discovery/keys", entra.url())).await.unwrap();
        let keys: serde_json::Value = keys.json().await.unwrap();
        let issuers = Issuers { v2: Some(entra.issuer_v2()), v1: Some(entra.issuer_v1()) };
        (entra.token().build(), keys, issuers)
    });
    let number =
        |name: &str| URL_SAFE_NO_PAD.decode(keys["keys"][0][name].as_str().unwrap()).unwrap();
    let key = SigningKey::new(&number("n"), &number("e"), None).unwrap();
    let (tenant, client) = (entra::TENANT.parse().unwrap(), entra::CLIENT.parse().unwrap());
    let expected =
        ExpectedClaims { tenant, client_id: client, audiences: vec![entra::CLIENT.to_owned()] };
    let now = std::fs::metadata("/proc/self").and_then(|started| started.modified()).unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let token = BearerToken::parse(&token).unwrap();
    assert!(token.verify(&key, &issuers, &expected, now).is_ok());
    bencher.bench(|| black_box(&token).verify(&key, &issuers, &expected, now));
}

#[divan::bench]
fn a_session_is_encoded_as_flask_session_has_it(bencher: Bencher) {
    let user = serde_json::json!({
        "aud": "11111111-2222-3333-4444-555555555555", "exp": 1_795_384_800, "name": "Ada Lovelace",
        "oid": "00000000-0000-0000-0000-0000000000aa", "roles": ["User", "ExternalApi"],
        "preferred_username": "ada@contoso.example", "tid": "11111111-2222-3333-4444-555555555555"
    });
    let session = serde_json::json!({
        "_permanent": true, "user": user, "last_activity_epoch": 1_795_381_200
    });
    bencher.bench(|| rmp_serde::to_vec_named(black_box(&session)));
}

/// Instruments, with the exporter of `/metrics`.
fn measured() -> ServerMetrics {
    static STARTED: std::sync::Once = std::sync::Once::new();
    STARTED.call_once(|| {
        let reader = opentelemetry_prometheus::exporter().build().unwrap();
        global::set_meter_provider(SdkMeterProvider::builder().with_reader(reader).build());
    });
    ServerMetrics::new()
}

/// A thousand counts, on one thread and on two that share the instruments.
#[divan::bench(threads = [1, 2])]
fn a_thousand_requests_are_counted() {
    thread_local!(static MEASURES: ServerMetrics = measured());
    MEASURES.with(|metrics| (0..1000).for_each(|_| count(metrics)));
}

fn count(metrics: &ServerMetrics) {
    let _active = metrics.begin();
    let own_metadata = endpoint::OwnMetadata { is_on: true, has_root: true };
    let endpoint = Endpoint::of(black_box("/api/get_conversations"), own_metadata);
    let took = std::time::Duration::from_micros(700);
    metrics.answered(endpoint, endpoint::method(black_box("GET")), 200, took, None);
}

#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, _batch: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

/// Two spans with as many attributes as those of a proxied request, queued for export.
#[divan::bench]
fn a_requests_spans_are_made(bencher: Bencher) {
    let processor = BatchSpanProcessor::builder(Nowhere).build();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let tracer = provider.tracer("bench");
    bencher.bench(|| {
        let text = |name: &'static str| {
            KeyValue::new(name, black_box("/api/get_conversations").to_owned())
        };
        let known = |name: &'static str| KeyValue::new(name, "GET");
        let server =
            tracer.span_builder("GET /api/*").with_kind(SpanKind::Server).with_attributes(vec![
                known("a"),
                known("b"),
                known("c"),
                text("d"),
                text("e"),
                text("f"),
            ]);
        let context = Context::new().with_span(tracer.build_with_context(server, &Context::new()));
        let client = tracer.span_builder("GET").with_kind(SpanKind::Client).with_attributes(vec![
            known("a"),
            text("b"),
            known("c"),
        ]);
        drop(tracer.build_with_context(client, &context));
        context.span().set_attribute(KeyValue::new("http.response.status_code", 200));
        context.span().end();
    });
}
