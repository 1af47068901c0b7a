import sys

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from keyreel import traces
from keyreel.errors import KeyreelError
from tests.spans import children, recorder

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_span_continues_the_trace_of_its_parent() -> None:
    recorder().clear()
    with traces.span("submit", CLIENT, SpanKind.SERVER, request_id="a", attempt=1):
        parent = traces.traceparent()
    with traces.span("attempt", parent):
        traces.record("queue", 1.5, parent)
    submit, queue, attempt = recorder().get_finished_spans()[0], *recorder().get_finished_spans()[1:]
    assert (submit.name, queue.name, attempt.name) == ("submit", "queue", "attempt")
    assert {f"{span.context.trace_id:032x}" for span in (submit, queue, attempt) if span.context} == {CLIENT[3:35]}
    assert children([queue, attempt], submit) == ["queue", "attempt"]
    assert submit.attributes == {"keyreel.request_id": "a", "keyreel.attempt": 1}
    assert queue.start_time == 1_500_000_000


def test_a_failed_span_tells_the_type_of_the_error_but_not_its_message() -> None:
    recorder().clear()
    with pytest.raises(ValueError, match="secret"), traces.span("attempt"):
        raise ValueError("secret")
    (span,) = recorder().get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert not span.events


@pytest.mark.parametrize("parent", ["", "nonsense", CLIENT.replace("0af", "xyz"), "00-" + 32 * "0" + CLIENT[35:]])
def test_an_invalid_parent_begins_a_new_trace(parent: str) -> None:
    recorder().clear()
    with traces.span("submit", parent):
        pass
    (span,) = recorder().get_finished_spans()
    assert span.parent is None


def test_outside_of_a_span_there_is_nothing_to_pass_on() -> None:
    assert traces.traceparent() is None
    assert traces.headers() == {}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(KeyreelError, match=r"ENDPOINT is set, .* run pip install 'keyreel\[otel\]'"), traces.exported():
        pass
