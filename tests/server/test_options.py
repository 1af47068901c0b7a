"""The body, the headers and the query of a submit."""

import gzip
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from keyreel.store import Store, tables
from tests.server.live import ENDPOINT, LiveServer
from tests.server.queue_api import finish, hold, submit


@pytest.mark.slow
def test_priority_and_queue_length_are_respected(http: httpx.Client, server: LiveServer) -> None:
    hold(http)
    low = submit(
        http, "low", headers={"X-Fal-Queue-Priority": "low", "X-Fal-Runner-Hint": "warm", "X-Fal-No-Retry": "1"}
    )
    normal = submit(http, "normal", headers={"X-Fal-Queue-Priority": "urgent", "X-Fal-Store-IO": "0"})
    assert (low["queue_position"], normal["queue_position"]) == (0, 0)
    server.refresh()
    assert http.get(low["status_url"]).json()["queue_position"] == 1
    full = http.post(f"/queue/{ENDPOINT}?fal_max_queue_length=1", json={"prompt": "a fox"})
    assert full.status_code == 429
    assert "2 requests are waiting" in full.json()["detail"]
    server.release()
    finish(http, normal)
    finish(http, low)
    order = [lease.id for lease in server.worker.leases[-2:]]
    assert order == [normal["request_id"], low["request_id"]]


def test_headers_limit_retries_and_retention(http: httpx.Client, server: LiveServer) -> None:
    acl = {"default": "forbid", "rules": [{"user": "friend", "decision": "allow"}]}
    preference = json.dumps({"expiration_duration_seconds": 60, "initial_acl": acl})
    headers = {"X-Fal-Object-Lifecycle-Preference": preference, "X-Fal-Store-IO": "0", "X-Fal-No-Retry": "yes"}
    limited, usual = submit(http, "a fox", headers=headers), submit(http, "a fox")
    finish(http, limited)
    finish(http, usual)
    leases = [
        next(lease for lease in server.worker.leases if lease.id == answer["request_id"]) for answer in (limited, usual)
    ]
    assert [(lease.output_lifetime, lease.output_acl) for lease in leases] == [(60, acl), (None, None)]
    # One attempt and an hour, instead of three attempts and a day.
    assert server.call(failures_and_retention(server.services.store, limited)) == (1, 3600)
    assert server.call(failures_and_retention(server.services.store, usual)) == (3, 86_400)


async def failures_and_retention(store: Store, submitted: dict[str, Any]) -> tuple[int, float]:
    """Returns the failures that end a request, and the seconds for which its outcome is kept."""
    columns = tables.request.c
    statement = select(columns.max_failures, columns.expires_at - columns.finished)
    async with store.database.read() as connection:
        found = await connection.execute(statement.where(columns.id == submitted["request_id"]))
        failures, seconds = found.one()
    return failures, round(seconds)


def test_a_byte_order_mark_is_read(http: httpx.Client) -> None:
    body = b'\xef\xbb\xbf{"prompt": "a fox", "seed": 3}'
    assert http.post(f"/run/{ENDPOINT}", content=body).json()["seed"] == 3


@pytest.mark.parametrize("way", ["queue", "run"])
def test_an_encoded_body_is_refused_by_name(http: httpx.Client, way: str) -> None:
    body = gzip.compress(b'{"prompt": "a fox"}')
    answer = http.post(f"/{way}/{ENDPOINT}", content=body, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert "encoded with gzip" in answer.json()["detail"]


def test_headers_for_fals_own_fleet_are_ignored(http: httpx.Client) -> None:
    headers = {"X-Fal-Retry-Config": "{", "X-Fal-Tags": "a=b", "x-app-fal-disable-fallback": "true"}
    finish(http, submit(http, "a fox", headers=headers))


@pytest.mark.slow
def test_a_start_timeout_ends_a_waiting_request(http: httpx.Client, server: LiveServer) -> None:
    held = hold(http)
    # The newer header wins.
    late = submit(http, "late", headers={"X-Fal-Request-Start-Timeout": "0.11", "X-Fal-Request-Timeout": "600"})
    assert finish(http, late)[-1]["error_type"] == "request_timeout"
    result = http.get(late["response_url"])
    assert result.status_code == 504
    assert result.headers["x-fal-request-timeout-type"] == "user"
    assert result.headers["x-fal-error-type"] == "request_timeout"
    server.release()
    finish(http, held)


@pytest.mark.parametrize("value", ["soon", "0.1", "-3", "nan", "inf", ""])
def test_an_invalid_start_timeout_is_refused(http: httpx.Client, value: str) -> None:
    answer = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a"}, headers={"X-Fal-Request-Start-Timeout": value})
    if value:  # an empty header counts as absent
        assert answer.status_code == 400
        assert answer.json()["error_type"] == answer.headers["x-fal-error-type"] == "bad_request"


@pytest.mark.parametrize(
    "query",
    ["fal_webhook=ftp://example.com", "fal_webhook=nonsense", "fal_webhook=http://[", "fal_max_queue_length=many"],
)
def test_an_invalid_query_parameter_is_refused(http: httpx.Client, query: str) -> None:
    answer = http.post(f"/queue/{ENDPOINT}?{query}", json={"prompt": "a fox"})
    assert (answer.status_code, answer.json()["error_type"]) == (400, "bad_request")


def test_the_same_idempotency_key_gives_the_same_request(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "once"}
    first = submit(http, "a fox", headers=headers)
    assert submit(http, "a fox", headers=headers)["request_id"] == first["request_id"]
    finish(http, first)
    assert submit(http, "a fox", headers=headers)["request_id"] == first["request_id"]
    other = http.post(f"/queue/{ENDPOINT}", json={"prompt": "a cat"}, headers=headers)
    assert (other.status_code, other.json()["error_type"]) == (400, "bad_request")


BAD_BODIES = [
    "{",
    "[]",
    "3",
    '"a"',
    "nul",
    "NaN",
    '{"seed": 1e999}',
    '{"a": "\\ud800"}',
    "[" * 1000,
    "9" * 5000,
    "\xff",
]


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize("way", ["queue", "run"])
def test_a_body_that_is_no_json_object_is_refused(http: httpx.Client, way: str, body: str) -> None:
    answer = http.post(f"/{way}/{ENDPOINT}", content=body.encode("latin-1"))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body"]


@pytest.mark.slow
def test_a_body_that_is_too_large_is_refused(http: httpx.Client, server: LiveServer) -> None:
    limit = server.services.settings.max_body_bytes

    def endless() -> Any:
        yield from (bytes(1 << 16) for _ in range(limit // (1 << 16) + 1))

    answer = http.post(f"/queue/{ENDPOINT}", content=endless())
    assert answer.status_code == 413


def test_a_get_takes_the_input_from_the_query(http: httpx.Client) -> None:
    answer = http.get(f"/queue/{ENDPOINT}", params={"prompt": "a fox", "seed": "11"}).json()
    finish(http, answer)
    assert http.get(answer["response_url"]).json()["seed"] == 11


def test_the_fields_of_a_get_belong_to_its_idempotency_key(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "get"}
    first = http.get(f"/queue/{ENDPOINT}", params={"prompt": "a fox"}, headers=headers).json()
    same = http.get(f"/queue/{ENDPOINT}", params={"prompt": "a fox"}, headers=headers).json()
    other = http.get(f"/queue/{ENDPOINT}", params={"prompt": "a cat"}, headers=headers)
    assert first["request_id"] == same["request_id"]
    assert other.status_code == 400
