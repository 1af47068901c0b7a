"""What connections may cost a server: their number, and the time that they keep it waiting."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from keyreel import metrics
from keyreel.server.connections import BODY_PIECE, STALL, TIMEOUTS, Doorman, Wait
from tests.server.live import ENDPOINT, TIMEOUT, LiveServer, live_server
from tests.server.queue_api import hold

SHORT = 0.6
"""Seconds. The server checks twice a second."""


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    """A server that waits only shortly."""
    for wait in (Wait.HEAD, Wait.BODY, Wait.READER, Wait.CLOSE):
        monkeypatch.setitem(TIMEOUTS, wait, SHORT)
    with live_server(tmp_path) as server:
        yield server


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[LiveServer]:
    """A server with room for four connections, two of each address."""
    with live_server(tmp_path, max_connections=4, max_connections_per_address=2) as server:
        yield server


def connect(server: LiveServer, source: str = "127.0.0.1") -> socket.socket:
    url = urlsplit(server.url)
    return socket.create_connection((str(url.hostname), url.port or 0), TIMEOUT, (source, 0))


def until_closed(connection: socket.socket) -> bytes:
    """Returns all that the server sends before it closes the connection. Fails if it stays open."""
    answer = b""
    try:
        while part := connection.recv(65536):
            answer += part
    except ConnectionResetError:
        pass
    return answer


def until_said(connection: socket.socket, text: bytes) -> bytes:
    said = b""
    while text not in said:
        part = connection.recv(65536)
        assert part, f"the server closed the connection after {said!r}"
        said += part
    return said


def is_open(connection: socket.socket) -> bool:
    """Returns whether the connection still answers."""
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    return until_said(connection, b'{"status":"ok"}').startswith(b"HTTP/1.1 200 OK\r\n")


def post(size: int) -> bytes:
    return f"POST /queue/{ENDPOINT} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n".encode()


def ended(reason: str) -> float:
    value = metrics.CONNECTIONS_ENDED.labels(reason)._value.get()
    assert isinstance(value, float)
    return value


def held(server: LiveServer) -> str:
    """Starts a request that runs until it is released. Returns the path of its stream."""
    with httpx.Client(base_url=server.url, headers=server.headers, trust_env=False) as http:
        return urlsplit(f"{hold(http)['status_url']}/stream").path


@contextmanager
def busy(server: LiveServer, path: str, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A connection with an open stream."""
    with connect(server, source) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {server.headers['Authorization']}\r\n\r\n"
        connection.sendall(head.encode())
        assert b"200 OK" in connection.recv(65536)
        yield connection


@pytest.mark.slow
def test_silence_and_a_dripping_head_end(impatient: LiveServer) -> None:
    before = ended("head")
    with connect(impatient) as silent, connect(impatient) as begun, connect(impatient) as second:
        begun.sendall(b"GET / HTTP/1.1\r\nHost:")
        assert is_open(second), "one request is no reason to drip the next"
        second.sendall(b"G")
        assert until_closed(silent) == b""
        for connection in (begun, second):
            answer = until_closed(connection)
            assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert b"The head of the request arrived too slowly." in answer
    assert ended("head") == before + 3


@pytest.mark.slow
def test_a_head_that_drips_gets_no_more_time_than_one_that_stops(impatient: LiveServer) -> None:
    with connect(impatient) as connection:
        start = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        connection.settimeout(0.02)
        answer = b""
        while not answer and time.monotonic() < start + TIMEOUT:
            connection.sendall(b"x")
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.slow
@pytest.mark.parametrize("path", [f"/queue/{ENDPOINT}", "/tokens"])
def test_a_body_that_stops_ends(impatient: LiveServer, path: str) -> None:
    with connect(impatient) as connection:
        authorization = f"Authorization: {impatient.headers['Authorization']}\r\n"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}{authorization}\r\n{{".encode())
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"The body of the request arrived too slowly." in answer


@pytest.mark.slow
def test_a_body_that_flows_may_take_its_time(impatient: LiveServer) -> None:
    """It takes several time limits, but brings a piece within each."""
    pieces = 8
    with connect(impatient) as connection:
        authorization = f"Authorization: {impatient.headers['Authorization']}\r\n\r\n"
        connection.sendall(post(pieces * BODY_PIECE) + authorization.encode())
        for _ in range(pieces):
            connection.sendall(b" " * BODY_PIECE)
            time.sleep(SHORT / 2)  # the pace of the client, not a wait for the server
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.slow
def test_a_client_that_takes_nothing_of_an_answer_ends(impatient: LiveServer) -> None:
    before = ended("reader")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(TIMEOUT)
        url = urlsplit(impatient.url)
        connection.connect((url.hostname, url.port))
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        deadline = time.monotonic() + TIMEOUT
        while ended("reader") == before and time.monotonic() < deadline:
            try:
                connection.sendall(request * 10)
            except (ConnectionError, TimeoutError):
                break
    while ended("reader") == before:
        assert time.monotonic() < deadline
    assert ended("reader") == before + 1


@pytest.mark.slow
def test_requests_that_take_long_and_idle_connections_stay(impatient: LiveServer) -> None:
    with busy(impatient, held(impatient)) as stream, connect(impatient) as idle, connect(impatient) as silent:
        assert is_open(idle)
        assert until_closed(silent) == b""
        assert is_open(idle)
        impatient.release()
        assert b"COMPLETED" in until_said(stream, b"COMPLETED")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_request_that_cannot_be_read_is_answered(server: LiveServer, method: str) -> None:
    head = f"{method} /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\n".encode()
    with connect(server) as connection:
        connection.sendall(head)
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b'{"detail": "Invalid HTTP request received."}')


def test_what_cannot_be_read_after_an_answer_ends_the_connection(server: LiveServer) -> None:
    """The server had already refused the rest of the body."""
    with connect(server) as connection:
        head = f"POST /queue/{ENDPOINT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n"
        connection.sendall(head.encode())
        answer = until_said(connection, b"}")
        connection.sendall(b"broken\r\n")
        answer += until_closed(connection)
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 401 ") == 1


def test_the_silent_make_room_for_others_of_their_address(crowded: LiveServer) -> None:
    before = ended("room")
    with ExitStack() as stack:
        idle = stack.enter_context(connect(crowded))
        assert is_open(idle)
        silent = [stack.enter_context(connect(crowded)) for _ in range(5)]
        assert all(until_closed(connection) == b"" for connection in silent[:-1])
        assert is_open(idle), "those that never sent a request go first"
        assert is_open(silent[-1])
        third = stack.enter_context(connect(crowded))
        assert is_open(third)
        assert until_closed(idle) == b""
    assert ended("room") == before + 5


def test_an_address_with_only_busy_connections_gets_no_more(crowded: LiveServer) -> None:
    path = held(crowded)
    with busy(crowded, path), busy(crowded, path):
        with connect(crowded) as third:
            answer = until_closed(third)
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert b"Your address has 2 connections open, as many as it may." in answer
        with connect(crowded, "127.0.0.2") as other:
            assert is_open(other)
    with connect(crowded) as later:
        assert is_open(later), "a closed connection no longer counts"


def test_a_full_server_says_so(crowded: LiveServer) -> None:
    path = held(crowded)
    with ExitStack() as stack:
        for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"):
            stack.enter_context(busy(crowded, path, source))
        with connect(crowded, "127.0.0.3") as fifth:
            answer = until_closed(fifth)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 5\r\n" in answer


def test_the_time_in_which_the_server_did_not_run_does_not_count() -> None:
    """After a stop, what the clients sent meanwhile is still to be read."""

    @dataclass(eq=False)
    class Watched:
        stalls: list[float] = field(default_factory=list)

        def check(self, _now: float, stalled: float) -> None:
            self.stalls.append(stalled)

    watched, doorman = Watched(), Doorman(1, 1)
    doorman._open[watched] = None  # type: ignore[index]
    for now in (100.0, 100.5, 110.5, 111.0):
        doorman.check(now)
    assert watched.stalls == [0.0, 0.0, 10.0 - STALL, 0.0]


def test_a_proxy_may_have_all_connections(tmp_path: Path) -> None:
    with (
        live_server(tmp_path, max_connections=4, max_connections_per_address=1, trusted_proxies="127.0.0.2") as server,
        ExitStack() as stack,
    ):
        connections = [stack.enter_context(connect(server, "127.0.0.2")) for _ in range(4)]
        assert all(map(is_open, connections))
