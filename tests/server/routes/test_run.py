"""The synchronous run: its output, its errors, and what happens when the client disconnects."""

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.live import ENDPOINT, TIMEOUT, LiveServer
from tests.server.queue_api import events


def test_the_response_is_the_output_without_an_envelope(http: httpx.Client) -> None:
    for path in (f"/run/{ENDPOINT}", f"/run/{ENDPOINT}/"):
        answer = http.post(path, json={"prompt": "a fox", "seed": 3})
        assert answer.status_code == 200
        assert answer.json()["seed"] == 3
        assert answer.headers["x-fal-request-id"]


def test_an_invalid_request_is_not_queued(http: httpx.Client, server: LiveServer) -> None:
    before = len(server.worker.leases)
    answer = http.post(f"/run/{ENDPOINT}", json={"prompt": "a fox", "number_of_frames": 1000})
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert (problem["loc"], problem["type"], problem["ctx"]) == (
        ["body", "number_of_frames"],
        "less_than_equal",
        {"le": 161},
    )
    assert len(server.worker.leases) == before


def test_a_stream_shows_progress_and_ends_with_the_output(http: httpx.Client, server: LiveServer) -> None:
    with http.stream("POST", f"/run/{ENDPOINT}/stream", json={"prompt": "hold", "seed": 3}) as answer:
        assert answer.headers["x-fal-request-id"]
        updates = events(answer)
        held = next(event for event in updates if event.get("logs"))
        assert (held["status"], held["request_id"]) == ("IN_PROGRESS", answer.headers["x-fal-request-id"])
        server.release()
        *_, output = updates
    assert set(output) == {"prompt", "seed", "video"}


def test_a_stream_ends_with_the_error(http: httpx.Client) -> None:
    with http.stream("POST", f"/run/{ENDPOINT}/stream", json={"prompt": "refuse file_download_error"}) as answer:
        *_, last = events(answer)
    assert (last["status"], last["error_type"]) == ("COMPLETED", "file_download_error")
    assert last["detail"][0]["type"] == "file_download_error"
    invalid = http.post(f"/run/{ENDPOINT}/stream", json={})
    assert (invalid.status_code, invalid.json()["detail"][0]["type"]) == (422, "missing")


def test_a_streamed_request_is_cancelled_when_the_client_disconnects(http: httpx.Client, server: LiveServer) -> None:
    with http.stream("POST", f"/run/{ENDPOINT}/stream", json={"prompt": "hold"}) as answer:
        next(event for event in events(answer) if event["status"] == "IN_PROGRESS")
    status = server.call(server.services.snapshot.completed(answer.headers["x-fal-request-id"]))
    assert getattr(status.outcome, "type", None) == "client_cancelled"


def test_the_request_is_cancelled_when_the_client_disconnects(server: LiveServer) -> None:
    body = json.dumps({"prompt": "hold"})
    head = f"POST /run/{ENDPOINT} HTTP/1.1\r\nHost: x\r\nAuthorization: Key {server.credentials}\r\n"
    before = len(server.worker.leases)
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), TIMEOUT) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        server.wait_until(lambda: len(server.worker.leases) > before)
    status = server.call(server.services.snapshot.completed(server.worker.leases[-1].id))
    assert getattr(status.outcome, "type", None) == "client_cancelled"


@pytest.mark.parametrize("path", ["realtime", "requests", "x/y"])
def test_an_unknown_path_of_an_application_is_answered_with_404(http: httpx.Client, path: str) -> None:
    answer = http.post(f"/run/{ENDPOINT}/{path}", json={})
    assert (answer.status_code, answer.json()) == (404, {"detail": f"Path /multiconditioning/{path} not found"})
