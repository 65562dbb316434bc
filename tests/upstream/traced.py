"""SimpleChat's spans, as Azure Monitor's distribution or an operator would have Flask emit them."""

import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor


def instrument(app):
    """Export targets are in OTEL_*; the gateway's own service name is not upstream's."""
    name = {"service.name": os.environ["UPSTREAM_TRACED"]}
    provider = TracerProvider(resource=Resource.create(name))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    FlaskInstrumentor().instrument_app(app)
