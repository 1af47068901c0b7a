"""What strangers write into headers, queries and bodies is read, or refused with a code below 500."""

import json
from typing import Any

from fastapi import HTTPException
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request

from keyreel.errors import KeyreelError, RequestError
from keyreel.net.clients import client_of, is_within, parse_networks
from keyreel.server.lifecycle import Lifecycle, parse_lifecycle
from keyreel.server.options import Options, parse_json
from keyreel.server.proxy import target_of

READ = (
    "x-fal-queue-priority",
    "x-fal-request-start-timeout",
    "x-fal-request-timeout",
    "x-fal-no-retry",
    "x-fal-store-io",
    "x-fal-object-lifecycle-preference",
    "idempotency-key",
    "traceparent",
)
QUERY = ("fal_webhook", "fal_max_queue_length")
latin = st.text(st.characters(max_codepoint=255))
header_values = latin | st.sampled_from(["1e400", "nan", "-1", "0.2", "[]", "{}", '{"initial_acl": 1}', "https://["])
query_values = st.text() | st.sampled_from(["http://[", "http://a:b/", "٣", "9" * 30])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def request_with(headers: dict[str, str], query: dict[str, str]) -> Request:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": raw, "query_string": b""})
    request._query_params = query  # type: ignore[assignment]
    return request


@given(st.dictionaries(st.sampled_from(READ), header_values), st.dictionaries(st.sampled_from(QUERY), query_values))
def test_any_headers_and_query_are_read_or_refused(headers: dict[str, str], query: dict[str, str]) -> None:
    try:
        options = Options.of(request_with(headers, query))
    except HTTPException as error:
        assert 400 <= error.status_code < 500
        return
    assert options.start_timeout is None or 0 < options.start_timeout < float("inf")
    assert options.max_queue_length is None or 0 <= options.max_queue_length < 10**9
    json.dumps(options.video.acl, allow_nan=False)


@example('{"expiration_duration_seconds": 1e999}')
@example('{"initial_acl": {"rules": [{"user": "\\ud800", "decision": "hide"}]}}')
@given(st.text() | values.map(json.dumps))
def test_any_lifecycle_is_read_or_refused(header: str) -> None:
    try:
        lifecycle = parse_lifecycle(header)
    except HTTPException as error:
        assert error.status_code == 400
        return
    assert isinstance(lifecycle, Lifecycle)
    assert lifecycle.lifetime is None or 0 < lifecycle.lifetime < float("inf")


@example(b"[" * 100_000)
@example(b"1" * 5000)
@example(b'{"a": 1e400}')
@example(b'"\\ud800"')
@given(st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_read_or_refused(raw: bytes) -> None:
    try:
        value: Any = parse_json(raw)
    except RequestError:
        return
    # What was read can be stored and sent again.
    json.dumps(value, allow_nan=False)


@given(header_values)
def test_any_target_is_read_or_refused(value: str) -> None:
    target = target_of(Headers({"x-fal-target-url": value}))
    assert target is None or target.host


@given(st.ip_addresses().map(str))
def test_any_address_has_one_client(host: str) -> None:
    client = client_of(host)
    assert client_of(client.partition("/")[0]) == client
    assert is_within(host, parse_networks(client, "NAME"))


@given(st.text())
def test_what_is_no_address_is_a_client_of_its_own(host: str) -> None:
    assert client_of(f"{host}!") == f"{host}!"
    assert not is_within(f"{host}!", parse_networks("0.0.0.0/0, ::/0", "NAME"))


@given(st.text())
def test_any_networks_are_read_or_named(text: str) -> None:
    try:
        parse_networks(text, "NAME")
    except KeyreelError as error:
        assert str(error).startswith("NAME: ")
