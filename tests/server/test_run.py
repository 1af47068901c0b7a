"""The synchronous run: the answer, the error, and the end of it when the client goes away."""

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from keyreel.server.hosts import NO_WEBSOCKETS
from tests.server.live import ENDPOINT, PATIENCE, LiveServer


def test_the_answer_is_the_bare_output(http: httpx.Client) -> None:
    for path in (f"/run/{ENDPOINT}", f"/run/{ENDPOINT}/"):
        answer = http.post(path, json={"prompt": "a fox", "seed": 3})
        assert answer.status_code == 200
        assert answer.json()["seed"] == 3
        assert answer.headers["x-fal-request-id"]


def test_a_request_that_is_wrong_is_not_queued(http: httpx.Client, server: LiveServer) -> None:
    before = len(server.worker.seen)
    answer = http.post(f"/run/{ENDPOINT}", json={"prompt": "a fox", "number_of_frames": 1000})
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert (problem["loc"], problem["type"], problem["ctx"]) == (
        ["body", "number_of_frames"],
        "less_than_equal",
        {"le": 161},
    )
    assert len(server.worker.seen) == before


def test_the_request_ends_when_the_client_goes_away(server: LiveServer) -> None:
    body = json.dumps({"prompt": "hold"})
    head = f"POST /run/{ENDPOINT} HTTP/1.1\r\nHost: x\r\nAuthorization: Key {server.credentials}\r\n"
    before = len(server.worker.seen)
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), PATIENCE) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        server.wait_until(lambda: len(server.worker.seen) > before)
    status = server.call(server.services.snapshot.completed(server.worker.seen[-1].id))
    assert getattr(status.outcome, "type", None) == "client_cancelled"


@pytest.mark.parametrize("path", ["stream", "realtime", "requests", "x/y"])
def test_paths_that_the_application_does_not_have(http: httpx.Client, path: str) -> None:
    answer = http.post(f"/run/{ENDPOINT}/{path}", json={})
    assert (answer.status_code, answer.json()) == (404, {"detail": f"Path /multiconditioning/{path} not found"})


@pytest.mark.parametrize(
    ("host", "path"),
    [("fal.run", f"/{ENDPOINT}/realtime"), ("ws.fal.run", f"/{ENDPOINT}?prompt=x"), ("localhost", f"/{ENDPOINT}")],
)
def test_a_websocket_is_refused(http: httpx.Client, server: LiveServer, host: str, path: str) -> None:
    before = len(server.worker.seen)
    handshake = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    answer = http.get(path, headers=handshake)
    assert (answer.status_code, answer.json()) == (404, {"detail": NO_WEBSOCKETS})
    assert len(server.worker.seen) == before
