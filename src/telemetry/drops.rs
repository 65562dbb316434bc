//! Dropped telemetry: bounded queues of items, and counts of items that were dropped or not delivered, reported in
//! the log at most once a minute.
//!
//! The SDK's own processors drop items silently. So queued and exporting items are counted here, and a processor
//! never receives more items than its queue can hold.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry::{Context, InstrumentationScope, KeyValue, metrics::Meter};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord},
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{Span, SpanData, SpanExporter, SpanProcessor},
};

/// Minimum interval between two reports.
const REPORT_INTERVAL: Duration = Duration::from_mins(1);

/// Counts and pipelines of all exporters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Drops(Arc<All>);

#[derive(Debug, Default)]
struct All {
    counts: Mutex<Vec<Arc<Counts>>>,
    pipelines: Mutex<Vec<Arc<Pipeline>>>,
    retry_reported: Mutex<Option<Instant>>,
}

/// Numbers of lost items of one signal of one exporter, by reason.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) exporter: &'static str,
    pub(super) signal: &'static str,
    /// The queue was full.
    dropped: AtomicU64,
    /// Delivery failed.
    undelivered: AtomicU64,
}

impl Counts {
    pub(super) fn add_dropped(&self, items: usize) {
        self.dropped.fetch_add(items as u64, Ordering::Relaxed);
    }

    pub(super) fn add_undelivered(&self, items: usize) {
        self.undelivered.fetch_add(items as u64, Ordering::Relaxed);
    }

    /// Sum of both reasons.
    pub(super) fn sum(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) + self.undelivered.load(Ordering::Relaxed)
    }
}

/// Queue of one signal of one exporter.
#[derive(Debug)]
pub(super) struct Pipeline {
    counts: Arc<Counts>,
    /// Maximum of queued and exporting items.
    max: usize,
    waiting: AtomicUsize,
    report: Mutex<DropReport>,
}

#[derive(Debug, Default)]
struct DropReport {
    at: Option<Instant>,
    lost: u64,
    /// Error of the last undelivered batch; empty: there was none.
    error: String,
}

impl Drops {
    /// A pipeline for at most `max` queued items.
    pub(super) fn pipeline(
        &self,
        exporter: &'static str,
        signal: &'static str,
        max: usize,
    ) -> Arc<Pipeline> {
        let pipeline = Arc::new(Pipeline {
            counts: self.counts(exporter, signal),
            max,
            waiting: AtomicUsize::default(),
            report: Mutex::default(),
        });
        self.0.pipelines.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&pipeline));
        pipeline
    }

    /// Counters that are exported as metrics. The code that counts logs the drops itself.
    pub(super) fn counts(&self, exporter: &'static str, signal: &'static str) -> Arc<Counts> {
        let (dropped, undelivered) = (AtomicU64::default(), AtomicU64::default());
        let counts = Arc::new(Counts { exporter, signal, dropped, undelivered });
        let mut all = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&counts));
        counts
    }

    /// Exports the counts as a metric.
    pub(super) fn observe(&self, meter: &Meter) {
        let drops = self.clone();
        meter
            .u64_observable_counter("simplechat.gateway.telemetry.lost")
            .with_description(
                "Spans, log records, log lines and exports of metrics that were dropped or not delivered",
            )
            .with_callback(move |observer| {
                let all = drops.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
                for counts in &*all {
                    let of = |reason| {
                        [
                            KeyValue::new("exporter", counts.exporter),
                            KeyValue::new("signal", counts.signal),
                            KeyValue::new("reason", reason),
                        ]
                    };
                    observer.observe(counts.dropped.load(Ordering::Relaxed), &of("queue_full"));
                    let undelivered = counts.undelivered.load(Ordering::Relaxed);
                    observer.observe(undelivered, &of("undelivered"));
                }
            })
            .build();
    }

    /// Reports at the stop; items that are still queued count as undelivered.
    pub(super) fn report_remaining(&self) {
        for pipeline in self.pipelines() {
            pipeline.counts.add_undelivered(pipeline.waiting.swap(0, Ordering::Relaxed));
            pipeline.report().at = None;
            pipeline.report_if_due();
        }
    }

    /// Reports a failed delivery that will be retried.
    pub(super) fn report_retry(&self, exporter: &'static str, error: &dyn Error) {
        let mut report = self.0.retry_reported.lock().unwrap_or_else(PoisonError::into_inner);
        if report.is_some_and(|at| at.elapsed() < REPORT_INTERVAL) {
            return;
        }
        *report = Some(Instant::now());
        let _not_exported = Context::enter_telemetry_suppressed_scope();
        let error = super::chain(error);
        tracing::warn!(exporter, error, "telemetry cannot be delivered yet");
    }

    fn pipelines(&self) -> Vec<Arc<Pipeline>> {
        self.0.pipelines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Pipeline {
    /// Reserves a place in the queue, or counts a dropped item. True: reserved.
    fn reserve(&self) -> bool {
        let is_reserved = self.waiting.fetch_add(1, Ordering::Relaxed) < self.max;
        if !is_reserved {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.add_dropped(1);
        }
        is_reserved
    }

    fn exported(&self, count: usize, result: &OTelSdkResult) {
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            Some(waiting.saturating_sub(count))
        });
        self.delivered(count, result);
    }

    fn delivered(&self, count: usize, result: &OTelSdkResult) {
        if let Err(error) = result {
            self.counts.add_undelivered(count);
            self.report().error = error.to_string();
        }
        self.report_if_due();
    }

    fn report(&self) -> std::sync::MutexGuard<'_, DropReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports drops if due. Called on the exporter's thread: requests log nothing.
    fn report_if_due(&self) {
        let lost = self.counts.sum();
        let (more, error) = {
            let mut report = self.report();
            if lost == report.lost || report.at.is_some_and(|at| at.elapsed() < REPORT_INTERVAL) {
                return;
            }
            report.at = Some(Instant::now());
            (lost - std::mem::replace(&mut report.lost, lost), report.error.clone())
        };
        // On stderr only: an exporter would drop this record as well.
        let _not_exported = Context::enter_telemetry_suppressed_scope();
        let Counts { exporter, signal, .. } = *self.counts;
        tracing::warn!(exporter, signal, lost = more, in_all = lost, error, "telemetry was lost");
    }
}

/// Processor or exporter with counts: a processor takes no more items than its pipeline allows, an exporter counts
/// the results of exports.
#[derive(Debug)]
pub(super) struct Instrumented<T> {
    inner: T,
    pipeline: Arc<Pipeline>,
}

impl<T> Instrumented<T> {
    pub(super) fn new(inner: T, pipeline: &Arc<Pipeline>) -> Self {
        Self { inner, pipeline: Arc::clone(pipeline) }
    }
}

impl<T: SpanExporter> SpanExporter for Instrumented<T> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.inner.export(batch).await;
        self.pipeline.exported(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<T: SpanProcessor> SpanProcessor for Instrumented<T> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.pipeline.reserve() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<T: LogExporter> LogExporter for Instrumented<T> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let count = batch.iter().count();
        let result = self.inner.export(batch).await;
        self.pipeline.exported(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<T: LogProcessor> LogProcessor for Instrumented<T> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.pipeline.reserve() {
            self.inner.emit(record, scope);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<T: PushMetricExporter> PushMetricExporter for Instrumented<T> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        self.pipeline.delivered(1, &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
