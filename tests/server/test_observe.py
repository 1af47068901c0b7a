"""The response to an exception in our own code."""

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from keyreel import metrics
from tests.server.live import ENDPOINT, LiveServer


def test_an_exception_in_a_route_is_answered_with_500(
    http: httpx.Client, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(server.services.signer.__class__, "jwks", lambda _self: broken())
    answer = http.get("/.well-known/jwks.json", headers={"Origin": "https://app.example"})
    assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-fal-request-id"]


def test_a_client_that_leaves_in_the_middle_of_a_body_is_no_fault_of_the_server(server: LiveServer) -> None:
    left = metrics.HTTP_REQUESTS.labels("POST", "499")._value
    before = left.get()
    url = urlsplit(server.url)
    head = (
        f"POST /queue/{ENDPOINT} HTTP/1.1\r\nHost: {url.netloc}\r\nAuthorization: {server.headers['Authorization']}\r\n"
        "Content-Length: 500\r\n\r\n{"
    )
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(head.encode())
    for _ in range(100):
        httpx.get(f"{server.url}/health/live", trust_env=False)
        if left.get() > before:
            return
    pytest.fail("The call was not counted as one whose client left")
