//! Spans: one per request, one per exchange with upstream. They use OpenTelemetry's API, not spans of `tracing`,
//! which would cost every request time even if no traces are exported.

use std::{borrow::Cow, future::poll_fn, pin::pin};

use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceId, Tracer},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{SdkTracer, Span},
};

use super::endpoint::{Endpoint, method};
use crate::{
    authz::client_info::ClientInfo,
    config::{UpstreamConfig, UpstreamTarget},
    h1::message::{Fields, RequestHead},
};

/// Span of a request, or the trace to which it belongs.
#[derive(Debug, Default)]
pub(crate) struct RequestSpan {
    /// Contains the request's span, if traces are exported.
    context: Option<Context>,
    /// Trace id from a trusted peer, if traces are not exported.
    from_peer: Option<TraceId>,
}

impl RequestSpan {
    /// Begins a request's span: in the trace of a trusted peer, else in a new trace.
    pub(crate) fn begin(
        tracer: Option<&SdkTracer>,
        head: &RequestHead,
        path: &str,
        endpoint: Endpoint,
        client_info: &ClientInfo,
    ) -> Self {
        let has_parent = client_info.peer_is_trusted && head.fields.has("traceparent");
        if tracer.is_none() && !has_parent {
            return Self::default();
        }
        let parent = if has_parent {
            let empty = Context::new();
            TraceContextPropagator::new().extract_with_context(&empty, &Carrier(&head.fields))
        } else {
            Context::new()
        };
        let Some(tracer) = tracer else {
            let id = parent.span().span_context().trace_id();
            return Self {
                context: None,
                from_peer: Some(id).filter(|id| *id != TraceId::INVALID),
            };
        };
        let method = method(head.method());
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", endpoint.route()),
            KeyValue::new("url.scheme", client_info.scheme.as_str()),
            KeyValue::new("url.path", endpoint.redact(path).to_owned()),
            KeyValue::new("client.address", client_info.client.to_string()),
        ];
        if let Some(host) = client_info.public_host() {
            attributes.push(KeyValue::new("server.address", host.host().to_owned()));
        }
        let span = tracer
            .span_builder(span_name(method, endpoint))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        let span = tracer.build_with_context(span, &parent);
        Self { context: Some(parent.with_span(span)), from_peer: None }
    }

    /// Trace id, for the log.
    pub(crate) fn id(&self) -> Option<TraceId> {
        let own = self.context.as_ref().map(|context| context.span().span_context().trace_id());
        own.or(self.from_peer)
    }

    /// Runs a future so that its log records belong to the request's span.
    pub(crate) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            let _entered = self.context.clone().map(Context::attach);
            work.as_mut().poll(context)
        })
        .await
    }

    /// Ends the request's span.
    pub(crate) fn end(&self, status: u16, reason: Option<&'static str>) {
        let Some(context) = &self.context else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        if let Some(reason) = reason {
            span.set_attribute(KeyValue::new("error.type", reason));
        } else if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
        }
        span.end();
    }
}

fn span_name(method: &str, endpoint: Endpoint) -> Cow<'static, str> {
    let method = if method == "_OTHER" { "HTTP" } else { method };
    format!("{method} {}", endpoint.route()).into()
}

/// Span of an exchange with upstream; it ends on drop.
#[derive(Debug)]
pub(crate) struct UpstreamSpan(Option<Span>);

impl UpstreamSpan {
    /// Begins the span as a child of the request's span.
    pub(crate) fn begin(
        tracer: Option<&SdkTracer>,
        head: &RequestHead,
        config: &UpstreamConfig,
    ) -> Self {
        let Some(tracer) = tracer else { return Self(None) };
        let method = method(head.method());
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        match &config.target {
            UpstreamTarget::Tcp { host, port, .. } => {
                attributes.push(KeyValue::new("server.address", host.clone()));
                attributes.push(KeyValue::new("server.port", i64::from(*port)));
            }
            UpstreamTarget::Unix(path) => {
                attributes.push(KeyValue::new("server.address", path.display().to_string()));
            }
        }
        let name = if method == "_OTHER" { "HTTP" } else { method };
        let span =
            tracer.span_builder(name).with_kind(SpanKind::Client).with_attributes(attributes);
        Self(Some(tracer.build_with_context(span, &Context::current())))
    }

    /// Trace context for upstream; `None`: the trace context of a trusted peer is forwarded.
    pub(crate) fn context(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(Span::span_context).filter(|context| context.is_valid())
    }

    /// Records a retry.
    pub(crate) fn resent(&mut self) {
        if let Some(span) = &mut self.0 {
            span.add_event("sent again", Vec::new());
        }
    }

    pub(crate) fn answered(&mut self, status: u16) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 400 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
    }

    pub(crate) fn failed(&mut self, kind: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(kind));
        }
    }
}

/// Trace context in request fields. A repeated field is ignored.
struct Carrier<'a>(&'a Fields);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut values =
            Fields::all(self.0, if key == "tracestate" { "tracestate" } else { "traceparent" });
        let value = values.next().filter(|_| matches!(key, "traceparent" | "tracestate"))?;
        values.next().is_none().then(|| std::str::from_utf8(value).ok()).flatten()
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}
