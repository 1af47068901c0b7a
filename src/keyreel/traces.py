"""Traces for OpenTelemetry: a request is one trace, from its submit over its attempts and their stages to its webhook.

Nothing is recorded unless an OTLP endpoint is set. Spans hold ids and names, never prompts, URLs or keys.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from keyreel.errors import KeyreelError
from keyreel.version import __version__

HEADER = "traceparent"
"""Carries the id of a span to another process (W3C Trace Context)."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SERVICE = "keyreel"

_tracer = trace.get_tracer(_SERVICE, __version__)
_propagator = TraceContextTextMapPropagator()


@contextmanager
def exported() -> Iterator[None]:
    """Exports the spans of the block if an OTLP endpoint is set, as OpenTelemetry's own variables say.

    Raises KeyreelError when its packages are missing.
    """
    endpoint = next(filter(os.environ.get, _ENDPOINTS), None)
    if endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        message = f"{endpoint} is set, but OpenTelemetry is not installed: run pip install 'keyreel[otel]'."
        raise KeyreelError(message) from None
    name = os.environ.get("OTEL_SERVICE_NAME", _SERVICE)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: __version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


@contextmanager
def span(
    name: str, parent: str | None = None, kind: SpanKind = SpanKind.INTERNAL, **attributes: str | int
) -> Iterator[Span]:
    """Records the block as a span. An exception marks it as failed with its type; its message may hold secrets.

    parent: the `traceparent` of a span in another process; None means the span around the call.
    """
    named = {f"keyreel.{key}": value for key, value in attributes.items()}
    with _tracer.start_as_current_span(
        name, _context(parent), kind, named, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            fail(type(error).__name__)
            raise


def start(name: str) -> Span:
    """Starts a span that the caller ends."""
    return _tracer.start_span(name)


def record(name: str, began: float, parent: str | None) -> None:
    """Records a span that ends now. began: seconds since 1970."""
    _tracer.start_span(name, _context(parent), start_time=int(began * 1e9)).end()


def fail(reason: str) -> None:
    """Marks the current span as failed."""
    trace.get_current_span().set_status(StatusCode.ERROR, reason)


def headers() -> dict[str, str]:
    """Returns the header that names the current span to another program; none outside of a span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return {name: value for name, value in carrier.items() if name == HEADER}


def traceparent() -> str | None:
    """Returns the current span's id for `span(parent=...)`, or None outside of a span."""
    return headers().get(HEADER)


def _context(parent: str | None) -> Context | None:
    """Returns the parent's context. One that cannot be read is ignored: it comes from a client."""
    return None if parent is None else _propagator.extract({HEADER: parent}, Context())
