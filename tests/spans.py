"""What code under test records as spans."""

from functools import cache

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@cache
def recorder() -> InMemorySpanExporter:
    """Returns the exporter that keeps all spans of this process from the first call on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def span_id(span: ReadableSpan) -> int:
    assert span.context
    identity: int = span.context.span_id
    return identity


def children(spans: list[ReadableSpan], parent: ReadableSpan) -> list[str]:
    """Returns the names of the spans below `parent`, in the order of their ends."""
    return [span.name for span in spans if span.parent and span.parent.span_id == span_id(parent)]
