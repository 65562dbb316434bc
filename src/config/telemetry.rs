//! Telemetry settings: destinations, sampling and queues, with the names and forms of the OpenTelemetry
//! specification.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};
use opentelemetry_application_insights::Exporter;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    Reader,
    reader::{at_least_one, flag, word},
};
use crate::tls;

/// Destinations, sampling and queues of telemetry.
#[derive(Debug)]
pub(crate) struct TelemetryConfig {
    pub(crate) service_name: String,
    /// Additional resource attributes.
    pub(crate) attributes: Vec<(String, String)>,
    /// OpenTelemetry collector.
    pub(crate) otlp: Option<OtlpConfig>,
    /// Connection string of Application Insights.
    pub(crate) application_insights: Option<SecretString>,
    pub(crate) sampler: Sampler,
    pub(crate) spans: Queue,
    pub(crate) records: Queue,
    pub(crate) metric_interval: Duration,
}

/// A collector that receives OTLP over HTTP.
#[derive(Debug)]
pub(crate) struct OtlpConfig {
    /// URL for each signal; `None`: the signal is not exported.
    pub(crate) traces: Option<Url>,
    pub(crate) metrics: Option<Url>,
    pub(crate) logs: Option<Url>,
    /// Headers of every request; the values are secrets.
    pub(crate) headers: Vec<(String, SecretString)>,
    /// Timeout of one export.
    pub(crate) timeout: Duration,
    /// PEM certificates trusted in addition to the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

impl OtlpConfig {
    /// The headers in the exporter's form, in clear text.
    pub(crate) fn exposed_headers(&self) -> HashMap<String, String> {
        let expose = |(name, value): &(String, SecretString)| {
            (name.clone(), value.expose_secret().to_owned())
        };
        self.headers.iter().map(expose).collect()
    }
}

/// Sampling of traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampler {
    /// True if a parent's sampling decision is followed.
    pub(crate) is_parent_based: bool,
    /// Share of the other traces that is recorded: 0.0 to 1.0.
    pub(crate) ratio: f64,
}

/// Export queue of one signal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    /// Capacity; items beyond it are dropped.
    pub(crate) max: usize,
    pub(crate) batch: usize,
    pub(crate) delay: Duration,
}

pub(super) fn read(reader: &mut Reader) -> TelemetryConfig {
    let is_disabled = reader.read("OTEL_SDK_DISABLED", flag).unwrap_or_default();
    let otlp = otlp(reader);
    let application_insights =
        reader.read("APPLICATIONINSIGHTS_CONNECTION_STRING", connection_string);
    TelemetryConfig {
        service_name: reader.text("OTEL_SERVICE_NAME").unwrap_or_default(),
        attributes: reader.list("OTEL_RESOURCE_ATTRIBUTES", pair),
        otlp: otlp.filter(|_| !is_disabled),
        application_insights: application_insights.filter(|_| !is_disabled),
        sampler: sampler(reader),
        spans: queue(
            reader,
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "OTEL_BSP_SCHEDULE_DELAY",
        ),
        records: queue(
            reader,
            "OTEL_BLRP_MAX_QUEUE_SIZE",
            "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
            "OTEL_BLRP_SCHEDULE_DELAY",
        ),
        metric_interval: reader.read("OTEL_METRIC_EXPORT_INTERVAL", millis).unwrap_or_default(),
    }
}

fn otlp(reader: &mut Reader) -> Option<OtlpConfig> {
    let base = reader.read("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    let mut signal = |own: &str, exporter: &str, path: &str| {
        let own = reader.read(own, endpoint);
        let below = base.clone().map(|mut base| {
            base.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
            base
        });
        own.or(below).filter(|_| {
            let is_otlp = reader.is_word(exporter, "otlp");
            if !is_otlp && !reader.is_word(exporter, "none") {
                reader.warn(
                    exporter,
                    "is neither otlp nor none: this signal is not exported to the collector",
                );
            }
            is_otlp
        })
    };
    let traces = signal("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER", "/v1/traces");
    let metrics =
        signal("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_METRICS_EXPORTER", "/v1/metrics");
    let logs = signal("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_LOGS_EXPORTER", "/v1/logs");
    let headers = reader.list("OTEL_EXPORTER_OTLP_HEADERS", header);
    let timeout = reader.read("OTEL_EXPORTER_OTLP_TIMEOUT", millis).unwrap_or_default();
    let ca_file = reader.read("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates);
    let has_endpoint = traces.is_some() || metrics.is_some() || logs.is_some();
    let is_exported = has_endpoint && uses_http_protobuf(reader);
    is_exported.then_some(OtlpConfig { traces, metrics, logs, headers, timeout, ca_file })
}

/// True if the protocol is `http/protobuf`; only that is supported. Another one is a warning, because the agent
/// of a Container Apps environment sets its endpoint and `grpc` in every container.
fn uses_http_protobuf(reader: &mut Reader) -> bool {
    const NAME: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
    let is_http = reader.is_word(NAME, "http/protobuf");
    if !is_http {
        reader.warn(NAME, "only http/protobuf is supported: nothing is exported to the collector");
    }
    is_http
}

fn certificates(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    tls::client(Some(&path))
        .map(|_| path)
        .map_err(|error| format!("expected a file of PEM certificates: {error}"))
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "expected a URL".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("expected http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("expected no user in the URL; use OTEL_EXPORTER_OTLP_HEADERS".to_owned());
    }
    if url.query().is_some() {
        return Err("expected no query in the URL, because it would be logged; use OTEL_EXPORTER_OTLP_HEADERS".to_owned());
    }
    Ok(url)
}

/// One entry of `name=value,…`, percent-encoded (W3C Baggage, without properties).
fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "expected name=value".to_owned())?;
    let value = percent_decode_str(value.trim()).decode_utf8();
    let value = value.map_err(|_| "expected percent-encoded UTF-8".to_owned())?;
    match name.trim() {
        "" => Err("expected a name before =".to_owned()),
        name => Ok((name.to_owned(), value.into_owned())),
    }
}

fn header(text: &str) -> Result<(String, SecretString), String> {
    let (name, value) = pair(text)?;
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| "expected a header name before =".to_owned())?;
    HeaderValue::from_str(&value).map_err(|_| "expected a header value after =".to_owned())?;
    Ok((name, value.into()))
}

/// A connection string: `name=value;…`. Empty parts and white space around `;` and `=` are removed, as in the
/// SDKs of .NET and Node.js; the exporter validates the rest.
fn connection_string(text: &str) -> Result<SecretString, String> {
    let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    let parts: Vec<String> = parts
        .map(|part| match part.split_once('=') {
            Some((name, value)) => format!("{}={}", name.trim_end(), value.trim_start()),
            None => part.to_owned(),
        })
        .collect();
    let text = parts.join(";");
    Exporter::new_from_connection_string(&text, ())
        .map(|_| text.into())
        .map_err(|error| format!("expected a connection string of Application Insights: {error}"))
}

fn sampler(reader: &mut Reader) -> Sampler {
    let kind = reader.read(
        "OTEL_TRACES_SAMPLER",
        word(&[
            ("always_on", (false, Some(1.0))),
            ("always_off", (false, Some(0.0))),
            ("traceidratio", (false, None)),
            ("parentbased_always_on", (true, Some(1.0))),
            ("parentbased_always_off", (true, Some(0.0))),
            ("parentbased_traceidratio", (true, None)),
        ]),
    );
    let ratio = reader.read("OTEL_TRACES_SAMPLER_ARG", |text| {
        let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        ratio.ok_or_else(|| "expected a number from 0.0 to 1.0".to_owned())
    });
    let (is_parent_based, fixed) = kind.unwrap_or((true, Some(1.0)));
    Sampler { is_parent_based, ratio: fixed.or(ratio).unwrap_or(1.0) }
}

fn queue(reader: &mut Reader, max: &str, batch: &str, delay: &str) -> Queue {
    let max = reader.read(max, count).unwrap_or(1);
    Queue {
        max,
        batch: reader.read(batch, count).unwrap_or(1).min(max),
        delay: reader.read(delay, millis).unwrap_or_default(),
    }
}

/// At most a million: memory for all entries is allocated at start.
fn count(text: &str) -> Result<usize, String> {
    let count = at_least_one(text)?;
    if count <= 1_000_000 { Ok(count) } else { Err("expected at most 1000000".to_owned()) }
}

fn millis(text: &str) -> Result<Duration, String> {
    let millis = text.parse().ok().filter(|millis| *millis > 0);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a number of milliseconds, 1 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn malformed_endpoints_headers_and_connection_strings_are_refused() {
        for bad in
            ["collector:4318", "ftp://c", "http://", "http://u:p@collector", "http://c/?key=x"]
        {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        assert!(endpoint("https://collector:4318/otlp").is_ok());
        for bad in ["api-key", "=x", "a b=c", "key=%ff", "key=a%0ab"] {
            assert!(header(bad).is_err(), "{bad}");
        }
        let (name, value) = header("api-key=a%20b").unwrap();
        assert_eq!((name.as_str(), value.expose_secret()), ("api-key", "a b"));
        assert!(connection_string("IngestionEndpoint=https://x").is_err());
        assert!(connection_string("InstrumentationKey=x;Authorization=aad").is_err());
        assert!(connection_string("InstrumentationKey=x;IngestionEndpoint=https://x/").is_ok());
        // Azure/data-api-builder#2046.
        for spelling in [
            "InstrumentationKey=x;IngestionEndpoint=https://x/;",
            ";;InstrumentationKey = x ; IngestionEndpoint = https://x/ ;\r\n",
            "InstrumentationKey=x;;IngestionEndpoint=https://x/",
        ] {
            let read = connection_string(spelling).expect(spelling);
            assert_eq!(
                read.expose_secret(),
                "InstrumentationKey=x;IngestionEndpoint=https://x/",
                "{spelling:?}"
            );
        }
    }
}
