//! Logs, traces and metrics.

use super::{Setting, secret, setting, tuning};

pub(super) static SETTINGS: &[Setting] = &[
    setting(
        "RUST_LOG",
        "filter",
        "info",
        "What is logged to stderr, as tracing-subscriber's EnvFilter reads it",
    )
    .live(),
    setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://, https://",
        "",
        "An OpenTelemetry collector (OTLP over HTTP): traces, metrics and logs go to /v1/… below it; empty: none",
    ),
    secret(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "name=value, comma-separated",
        "Headers sent to the collector, values percent-encoded: a key, perhaps",
    ),
    setting("OTEL_SERVICE_NAME", "name", "simplechat-gateway", "service.name of what is exported"),
    setting(
        "OTEL_RESOURCE_ATTRIBUTES",
        "name=value, comma-separated",
        "",
        "Further attributes of what is exported, percent-encoded",
    ),
    setting(
        "OTEL_TRACES_SAMPLER",
        "always_on, always_off, traceidratio, parentbased_…",
        "parentbased_always_on",
        "Which traces are recorded; parentbased: as the trusted peer decided, where it sent a traceparent",
    ),
    setting(
        "OTEL_TRACES_SAMPLER_ARG",
        "0.0 to 1.0",
        "1.0",
        "For traceidratio: the share that is recorded",
    ),
    setting(
        "OTEL_SDK_DISABLED",
        "true, false",
        "false",
        "Turns all exporters off, whatever else is set",
    ),
    secret(
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "InstrumentationKey=…;IngestionEndpoint=https://…",
        "Application Insights: traces, metrics and logs go there as well; empty: none",
    ),
];

/// Standard OpenTelemetry variables that few operators need: honoured with the specification's
/// meaning and default, and not listed in the table.
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
