//! Exporters: OTLP collector, Application Insights, Prometheus. Each has its own queues and threads.

use std::{error::Error, path::Path, time::Duration};

use opentelemetry::KeyValue;
use opentelemetry_application_insights::Exporter as ApplicationInsights;
use opentelemetry_otlp::{
    LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    logs::{self, BatchLogProcessor, LoggerProviderBuilder, SdkLoggerProvider},
    metrics::{
        MeterProviderBuilder, PeriodicReader, SdkMeterProvider, exporter::PushMetricExporter,
    },
    trace::{self, BatchSpanProcessor, SdkTracerProvider, TracerProviderBuilder},
};
use prometheus::Registry;
use reqwest::{blocking::Client, redirect::Policy};
use secrecy::ExposeSecret;
use url::Url;
use uuid::Uuid;

use super::drops::{Drops, Instrumented};
use crate::{
    build_info,
    config::{OtlpConfig, Queue, Sampler, TelemetryConfig},
    tls,
};

/// Timeout of one request to Application Insights.
const INGESTION: Duration = Duration::from_secs(10);

/// Providers of the exported signals; `None`: the signal is not exported.
pub(super) struct Exporters {
    pub(super) traces: Option<SdkTracerProvider>,
    pub(super) logs: Option<SdkLoggerProvider>,
    pub(super) metrics: Option<SdkMeterProvider>,
    /// Registry that Prometheus reads.
    pub(super) scrape: Option<Registry>,
    pub(super) drops: Drops,
}

struct ExporterBuilder<'a> {
    config: &'a TelemetryConfig,
    resource: Resource,
    drops: Drops,
    traces: Option<TracerProviderBuilder>,
    logs: Option<LoggerProviderBuilder>,
    metrics: Option<MeterProviderBuilder>,
}

/// Builds the exporters of the settings. `is_scraped`: Prometheus can read metrics.
///
/// # Errors
/// When an exporter or its HTTP client cannot be built.
pub(super) fn build(
    config: &TelemetryConfig,
    is_scraped: bool,
) -> Result<Exporters, Box<dyn Error>> {
    let resource = resource(config);
    let drops = Drops::default();
    let mut building =
        ExporterBuilder { config, resource, drops, traces: None, logs: None, metrics: None };
    if let Some(otlp) = &config.otlp {
        building.add_otlp(otlp)?;
    }
    if let Some(connection_string) = &config.application_insights {
        building.add_application_insights(connection_string.expose_secret())?;
    }
    let scrape = is_scraped.then(Registry::new);
    if let Some(registry) = &scrape {
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let metrics = building.metrics();
        building.metrics = Some(metrics.with_reader(exporter));
    }
    let ExporterBuilder { drops, traces, logs, metrics, .. } = building;
    Ok(Exporters {
        traces: traces.map(TracerProviderBuilder::build),
        logs: logs.map(LoggerProviderBuilder::build),
        metrics: metrics.map(MeterProviderBuilder::build),
        scrape,
        drops,
    })
}

impl ExporterBuilder<'_> {
    fn add_otlp(&mut self, otlp: &OtlpConfig) -> Result<(), Box<dyn Error>> {
        const NAME: &str = "otlp";
        let http = client(otlp.ca_file.as_deref(), otlp.timeout, Policy::none())?;
        if let Some(endpoint) = &otlp.traces {
            let exporter = over_http(SpanExporter::builder().with_http(), endpoint, &http, otlp);
            self.add_spans(NAME, exporter.build()?);
        }
        if let Some(endpoint) = &otlp.logs {
            let exporter = over_http(LogExporter::builder().with_http(), endpoint, &http, otlp);
            self.add_logs(NAME, exporter.build()?);
        }
        if let Some(endpoint) = &otlp.metrics {
            let exporter = over_http(MetricExporter::builder().with_http(), endpoint, &http, otlp);
            self.add_metrics(NAME, exporter.build()?);
        }
        Ok(())
    }

    fn add_application_insights(&mut self, connection_string: &str) -> Result<(), Box<dyn Error>> {
        const NAME: &str = "application_insights";
        let http = client(None, INGESTION, Policy::default())?;
        let drops = self.drops.clone();
        let exporter = || {
            let drops = drops.clone();
            // The exporter retries for half a minute before it gives up.
            ApplicationInsights::new_from_connection_string(connection_string, http.clone())
                .map(|it| it.with_retry_notify(move |error, _| drops.report_retry(NAME, error)))
                .map_err(|error| -> Box<dyn Error> { error })
        };
        self.add_spans(NAME, exporter()?);
        self.add_logs(NAME, exporter()?);
        self.add_metrics(NAME, exporter()?);
        Ok(())
    }

    fn add_spans(&mut self, name: &'static str, exporter: impl trace::SpanExporter + 'static) {
        let Queue { max, batch, delay } = self.config.spans;
        let pipeline = self.drops.pipeline(name, "traces", max);
        let queue = trace::BatchConfigBuilder::default()
            .with_max_queue_size(max)
            .with_max_export_batch_size(batch)
            .with_scheduled_delay(delay)
            .build();
        let processor = BatchSpanProcessor::builder(Instrumented::new(exporter, &pipeline));
        let processor = processor.with_batch_config(queue).build();
        let begun = || {
            SdkTracerProvider::builder()
                .with_resource(self.resource.clone())
                .with_sampler(sampler(self.config.sampler))
        };
        let traces = self.traces.take().unwrap_or_else(begun);
        self.traces = Some(traces.with_span_processor(Instrumented::new(processor, &pipeline)));
    }

    fn add_logs(&mut self, name: &'static str, exporter: impl logs::LogExporter + 'static) {
        let Queue { max, batch, delay } = self.config.records;
        let pipeline = self.drops.pipeline(name, "logs", max);
        let queue = logs::BatchConfigBuilder::default()
            .with_max_queue_size(max)
            .with_max_export_batch_size(batch)
            .with_scheduled_delay(delay)
            .build();
        let processor = BatchLogProcessor::builder(Instrumented::new(exporter, &pipeline));
        let processor = processor.with_batch_config(queue).build();
        let begun = || SdkLoggerProvider::builder().with_resource(self.resource.clone());
        let logs = self.logs.take().unwrap_or_else(begun);
        self.logs = Some(logs.with_log_processor(Instrumented::new(processor, &pipeline)));
    }

    fn add_metrics(&mut self, name: &'static str, exporter: impl PushMetricExporter) {
        let pipeline = self.drops.pipeline(name, "metrics", 1);
        let reader = PeriodicReader::builder(Instrumented::new(exporter, &pipeline));
        let reader = reader.with_interval(self.config.metric_interval).build();
        self.metrics = Some(self.metrics().with_reader(reader));
    }

    fn metrics(&mut self) -> MeterProviderBuilder {
        let begun = || SdkMeterProvider::builder().with_resource(self.resource.clone());
        self.metrics.take().unwrap_or_else(begun)
    }
}

/// Resource of all signals: service name, version, instance and configured attributes.
fn resource(config: &TelemetryConfig) -> Resource {
    let given =
        config.attributes.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder()
        .with_attribute(KeyValue::new("service.instance.id", Uuid::now_v7().to_string()))
        .with_attributes(given)
        .with_attributes([
            KeyValue::new("service.name", config.service_name.clone()),
            KeyValue::new("service.version", build_info::VERSION),
        ])
        .build()
}

fn sampler(sampler: Sampler) -> trace::Sampler {
    let root = match sampler.ratio {
        all if all >= 1.0 => trace::Sampler::AlwaysOn,
        none if none <= 0.0 => trace::Sampler::AlwaysOff,
        ratio => trace::Sampler::TraceIdRatioBased(ratio),
    };
    if sampler.is_parent_based { trace::Sampler::ParentBased(Box::new(root)) } else { root }
}

/// HTTP client of exporters. Blocking: exporters run on plain threads, without a runtime. Uses the proxies of the
/// environment.
fn client(
    ca_file: Option<&Path>,
    timeout: Duration,
    redirects: Policy,
) -> Result<Client, Box<dyn Error>> {
    Ok(Client::builder()
        .tls_backend_preconfigured(tls::client(ca_file)?)
        .redirect(redirects)
        .timeout(timeout)
        .build()?)
}

fn over_http<B: WithExportConfig + WithHttpConfig>(
    builder: B,
    endpoint: &Url,
    http: &Client,
    otlp: &OtlpConfig,
) -> B {
    builder
        .with_http_client(http.clone())
        .with_endpoint(endpoint.as_str())
        .with_timeout(otlp.timeout)
        .with_headers(otlp.exposed_headers())
}
