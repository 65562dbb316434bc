//! Telemetry receiver: a collector (OTLP over HTTP) and the ingestion API of Application Insights.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Uri},
};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;

/// One received request.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Decompressed.
    pub(crate) body: Vec<u8>,
}

/// Accepts and stores everything.
pub(crate) struct Collector {
    address: String,
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let batches = Arc::default();
        let router = Router::new().fallback(take).with_state(Arc::clone(&batches));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, batches }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Settings that make a gateway export to this receiver without delay.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())]
            .iter()
            .chain(&WITHOUT_DELAY)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    pub(crate) fn batches(&self) -> Vec<Batch> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn decoded<M: Message + Default>(&self, path: &str) -> Vec<M> {
        let batches = self.batches();
        let of_path = batches.iter().filter(|batch| batch.path == path);
        of_path.map(|batch| M::decode(batch.body.as_slice()).expect("protobuf")).collect()
    }

    /// All spans with the resource that sent them.
    pub(crate) fn spans(&self) -> Vec<(Resource, Span)> {
        let mut spans = Vec::new();
        for request in self.decoded::<ExportTraceServiceRequest>("/v1/traces") {
            for of_resource in request.resource_spans {
                let resource = of_resource.resource.unwrap_or_default();
                let of_scopes = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(of_scopes.map(|span| (resource.clone(), span)));
            }
        }
        spans
    }

    pub(crate) fn records(&self) -> Vec<LogRecord> {
        let requests = self.decoded::<ExportLogsServiceRequest>("/v1/logs");
        let scopes = requests.into_iter().flat_map(|request| request.resource_logs);
        scopes.flat_map(|of| of.scope_logs).flat_map(|scope| scope.log_records).collect()
    }

    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let requests = self.decoded::<ExportMetricsServiceRequest>("/v1/metrics");
        let scopes = requests.into_iter().flat_map(|request| request.resource_metrics);
        scopes.flat_map(|of| of.scope_metrics).flat_map(|scope| scope.metrics).collect()
    }

    /// Items received by the Application Insights endpoint.
    pub(crate) fn envelopes(&self) -> Vec<Value> {
        let batches = self.batches();
        let tracked = batches.iter().filter(|batch| batch.path == "/v2/track");
        tracked
            .flat_map(|batch| serde_json::from_slice::<Vec<Value>>(&batch.body).expect("a list"))
            .collect()
    }
}

/// Short export intervals, so that tests do not wait.
pub(crate) const WITHOUT_DELAY: [(&str, &str); 3] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ("OTEL_BLRP_SCHEDULE_DELAY", "50"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
];

async fn take(
    State(batches): State<Arc<Mutex<Vec<Batch>>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) {
    let body = if headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
        let mut unpacked = Vec::new();
        GzDecoder::new(&*body).read_to_end(&mut unpacked).expect("gzip");
        unpacked
    } else {
        body.to_vec()
    };
    let batch = Batch { path: uri.path().to_owned(), headers, body };
    batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch);
}

/// Value of an attribute as text.
pub(crate) fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?;
    Some(match value.value? {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        Any::BoolValue(flag) => flag.to_string(),
        Any::DoubleValue(number) => number.to_string(),
        _ => return None,
    })
}

/// An id in hexadecimal, as in `traceparent`.
pub(crate) fn hex(id: &[u8]) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
