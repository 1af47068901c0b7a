"""A WebSocket is closed with a reason, which fal's clients show."""

import asyncio
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fal_client
import pytest
from fal_client import client as hosts
from fal_client.client import RealtimeError
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from keyreel.fal.hosts import NO_WEBSOCKETS, WEBSOCKET_CLOSED
from keyreel.server import connections
from tests.server.live import APP, ENDPOINT, TIMEOUT, LiveServer, live_server

HANDSHAKE = (
    f"GET /{ENDPOINT}?prompt=x HTTP/1.1\r\nHost: ws.fal.run\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\n"
)
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
LIMIT = 125
"""Bytes of a close: two of them are the code."""


def raw(server: LiveServer) -> socket.socket:
    url = urlsplit(server.url)
    return socket.create_connection((str(url.hostname), url.port or 0), TIMEOUT)


def all_of(connection: socket.socket) -> bytes:
    """Returns what the server sends until it ends the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def open_websocket(connection: socket.socket) -> None:
    """Makes the handshake, and reads the close."""
    connection.sendall(f"{HANDSHAKE}{KEY}\r\n".encode())
    received = b""
    while not received.endswith(NO_WEBSOCKETS.encode()):
        received += connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


def test_the_reason_fits_into_a_close() -> None:
    assert len(NO_WEBSOCKETS.encode()) <= LIMIT - 2


def test_it_is_closed_with_a_reason(server: LiveServer) -> None:
    before = len(server.worker.leases)
    url = f"{server.url.replace('http', 'ws', 1)}/{ENDPOINT}?prompt=x"
    with pytest.raises(ConnectionClosedError) as caught, connect(url, proxy=None) as websocket:
        websocket.recv(TIMEOUT)
    assert caught.value.rcvd
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (WEBSOCKET_CLOSED, NO_WEBSOCKETS)
    assert len(server.worker.leases) == before, "the query was not taken for an input"


def test_a_handshake_without_a_key_is_an_error(server: LiveServer) -> None:
    with raw(server) as connection:
        connection.sendall(f"{HANDSHAKE}\r\n".encode())
        assert all_of(connection).startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.slow
def test_a_client_that_goes_on_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is counted until then."""
    monkeypatch.setitem(connections.TIMEOUTS, connections.Wait.CLOSE, 0.6)
    with live_server(tmp_path, max_connections=1) as server, raw(server) as connection:
        open_websocket(connection)
        with raw(server) as second:
            assert all_of(second).startswith(b"HTTP/1.1 503 ")
        assert all_of(connection) == b""
        with raw(server) as third:
            third.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert all_of(third).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_server_ends_although_a_websocket_is_open(tmp_path: Path) -> None:
    with live_server(tmp_path) as server, raw(server) as connection:
        open_websocket(connection)
        server.loop.call_soon_threadsafe(server.stop.set)
        all_of(connection)


class TestPythonClient:
    @pytest.fixture(autouse=True)
    def pointed(self, server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hosts, "REALTIME_URL_FORMAT", f"{server.url.replace('http', 'ws', 1)}/run/")
        monkeypatch.setattr(hosts, "REST_URL", server.url)

    @pytest.mark.parametrize("use_jwt", [True, False])
    def test_realtime_shows_the_reason(self, server: LiveServer, use_jwt: bool) -> None:
        client = fal_client.SyncClient(key=server.credentials)
        with pytest.raises(RealtimeError, match=NO_WEBSOCKETS), client.realtime(APP, use_jwt=use_jwt) as connection:
            connection.recv()
        client._client.close()

    def test_asynchronous_realtime_shows_the_reason(self, server: LiveServer) -> None:
        async def receive() -> Any:
            client = fal_client.AsyncClient(key=server.credentials)
            async with client.realtime(APP, use_jwt=False) as connection:
                return await connection.recv()

        with pytest.raises(RealtimeError, match=NO_WEBSOCKETS):
            asyncio.run(receive())
