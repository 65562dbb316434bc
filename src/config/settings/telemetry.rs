//! Logs, traces and metrics.

use super::{Setting, secret, setting, tuning};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "RUST_LOG",
        "filter",
        "info",
        "Log filter for stderr, in the syntax of tracing-subscriber's EnvFilter",
    )
    .live(),
    setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://, https://",
        "",
        "OpenTelemetry collector (OTLP over HTTP): traces, metrics and logs are sent to /v1/… below this URL; empty: none",
    ),
    secret(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "name=value, comma-separated",
        "Headers sent to the collector, for example an API key; values are percent-encoded",
    ),
    setting("OTEL_SERVICE_NAME", "name", "simplechat-gateway", "Resource attribute service.name"),
    setting(
        "OTEL_RESOURCE_ATTRIBUTES",
        "name=value, comma-separated",
        "",
        "Additional resource attributes; values are percent-encoded",
    ),
    setting(
        "OTEL_TRACES_SAMPLER",
        "always_on, always_off, traceidratio, parentbased_…",
        "parentbased_always_on",
        "Trace sampler; parentbased_: follows the decision in the traceparent of a trusted peer",
    ),
    setting(
        "OTEL_TRACES_SAMPLER_ARG",
        "0.0 to 1.0",
        "1.0",
        "Share of traces that traceidratio records",
    ),
    setting(
        "OTEL_SDK_DISABLED",
        "true, false",
        "false",
        "Switch that disables all exporters, regardless of other settings",
    ),
    secret(
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "InstrumentationKey=…;IngestionEndpoint=https://…",
        "Connection string of Application Insights, which then also receives traces, metrics and logs; empty: none",
    ),
];

/// Standard OpenTelemetry variables that few operators set: read with the specification's meaning and
/// default, and not listed in the table.
pub(crate) static TUNING: &[Setting] = &[
    tuning("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
    tuning("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", ""),
    tuning("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", ""),
    tuning("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    tuning("OTEL_EXPORTER_OTLP_TIMEOUT", "10000"),
    tuning("OTEL_EXPORTER_OTLP_CERTIFICATE", ""),
    tuning("OTEL_TRACES_EXPORTER", "otlp"),
    tuning("OTEL_METRICS_EXPORTER", "otlp"),
    tuning("OTEL_LOGS_EXPORTER", "otlp"),
    tuning("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
    tuning("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512"),
    tuning("OTEL_BSP_SCHEDULE_DELAY", "5000"),
    tuning("OTEL_BLRP_MAX_QUEUE_SIZE", "2048"),
    tuning("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "512"),
    tuning("OTEL_BLRP_SCHEDULE_DELAY", "1000"),
    tuning("OTEL_METRIC_EXPORT_INTERVAL", "60000"),
];
