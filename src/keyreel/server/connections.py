"""Limits how many connections a client may hold, and for how long one may keep the server waiting.

Without a reverse proxy, nothing else stands between strangers and this process. When there is no room, a connection
that is still waiting for a request makes place for a new one: whoever opens connections and stays silent pushes out its
own.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from itertools import chain
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from keyreel import metrics
from keyreel.net.clients import Network, client_of, is_within
from keyreel.server.websockets import ClosingWebSocket

BODY_PIECE = 16 * 1024
"""Bytes of a body that must arrive within each of its time limits."""
STALL = 1.0
"""Seconds between two checks from which the process was stopped, or had no processor."""
RETRY_AFTER = 5
"""Seconds after which a refused client may connect again."""


class Wait(StrEnum):
    """What a connection is waiting for."""

    HEAD = "head"
    BODY = "body"
    READER = "reader"
    CLOSE = "close"
    NOTHING = "nothing"
    """It is idle between two requests, which uvicorn limits, or the server is at work."""


TIMEOUTS = {Wait.HEAD: 15.0, Wait.BODY: 30.0, Wait.READER: 60.0, Wait.CLOSE: 10.0, Wait.NOTHING: math.inf}
"""Seconds for the head of a request, from its first byte or from the connection; for each piece of a body; for a client
to take anything of an answer; and for the end of a connection."""


class Connection(H11Protocol):
    """A connection of uvicorn's that is counted and watched by a `Doorman`."""

    def __init__(self, doorman: "Doorman", **options: Any) -> None:
        super().__init__(**options)
        self.peer = ""
        self._doorman = doorman
        self._received = 0
        self._watched: tuple[Any, ...] = ()
        self._since = math.inf
        self._websocket: ClosingWebSocket | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._since = self.loop.time()
        self._doorman.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._doorman.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._websocket:
            self._answer(self._websocket.receive(data))
        else:
            super().data_received(data)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """uvicorn calls this with a handshake. Stays the transport's protocol, so that the doorman goes on counting."""
        self._websocket = ClosingWebSocket()
        headers = b"".join(b"%b: %b\r\n" % header for header in self.headers)
        self._answer(self._websocket.receive(b"%b %b HTTP/1.1\r\n%b\r\n" % (event.method, event.target, headers)))

    def _should_upgrade_to_ws(self) -> bool:
        return True

    def _answer(self, chunks: list[bytes]) -> None:
        for chunk in filter(None, chunks):
            self.transport.write(chunk)
        if b"" in chunks:
            self.transport.close()

    def shutdown(self) -> None:
        """uvicorn calls this when the server ends."""
        if self._websocket:
            self.transport.close()
        else:
            super().shutdown()

    @property
    def waits_for(self) -> Wait:
        if self.transport.is_closing() or self._websocket:
            return Wait.CLOSE
        if self.flow.write_paused:
            return Wait.READER
        if self.cycle is None or self.cycle.response_complete:
            return Wait.NOTHING if self.timeout_keep_alive_task else Wait.HEAD
        return Wait.BODY if self.cycle.more_body and not self.flow.read_paused else Wait.NOTHING

    @property
    def is_idle(self) -> bool:
        """Whether all that came has been answered."""
        return self.waits_for is Wait.NOTHING and self.timeout_keep_alive_task is not None

    def check(self, now: float, stalled: float) -> None:
        """Ends the connection if it has waited too long for the same thing. Call it about once a second.

        stalled: seconds since the last call in which this process did not run, so that nothing could arrive.
        """
        self._since += stalled
        wait = self.waits_for
        watched = (wait, self.cycle, self._progress(wait))
        if watched != self._watched:
            # The very first wait began with the connection.
            self._since = now if self._watched else self._since
            self._watched = watched
        elif now - self._since >= TIMEOUTS[wait]:
            metrics.CONNECTIONS_ENDED.labels(wait.value).inc()
            self._end(wait)

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls this when h11 cannot read a request. Its own raises when an answer has begun, and for HEAD."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.refuse(HTTPStatus.BAD_REQUEST, msg)
        else:
            self.transport.close()

    def refuse(self, status: HTTPStatus, message: str, headers: str = "") -> None:
        """Answers with an error and closes the connection."""
        body = json.dumps({"detail": message}).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _progress(self, wait: Wait) -> int:
        match wait:
            case Wait.BODY:
                return self._received // BODY_PIECE
            case Wait.READER:
                return self.transport.get_write_buffer_size()
        return 0

    def _end(self, wait: Wait) -> None:
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if wait in (Wait.READER, Wait.CLOSE) or begun:
            self.transport.abort()
        elif not self._received:
            self.transport.close()
        else:
            what = "head" if wait is Wait.HEAD else "body"
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, f"The {what} of the request arrived too slowly.")


@dataclass(slots=True)
class Doorman:
    """Counts the connections of a server.

    proxies: the operator's reverse proxies. The many clients behind one share its address, so there is no limit per
    address for it.
    """

    in_all: int
    per_address: int
    proxies: tuple[Network, ...] = ()
    _checked: float = math.inf
    _open: dict[Connection, None] = field(default_factory=dict)
    """In the order in which they came."""
    _by_client: defaultdict[str, dict[Connection, None]] = field(default_factory=lambda: defaultdict(dict))

    def admit(self, connection: Connection) -> None:
        """Lets a connection in, if need be in place of one that waits for a request; else refuses it."""
        if not is_within(connection.peer, self.proxies):
            own = self._by_client[client_of(connection.peer)]
            if len(own) >= self.per_address and not self._clear(own):
                message = f"Your address has {self.per_address} connections open, as many as it may."
                self._refuse(connection, HTTPStatus.TOO_MANY_REQUESTS, message)
                return
            own[connection] = None
        if len(self._open) >= self.in_all and not self._clear(self._open):
            self.forget(connection)
            self._refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, "The server has no connection left. Try again.")
            return
        self._open[connection] = None

    def forget(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        client = client_of(connection.peer)
        if client in self._by_client:
            self._by_client[client].pop(connection, None)
            if not self._by_client[client]:
                del self._by_client[client]

    def check(self, now: float) -> None:
        """Ends the connections whose time is over. Call it about once a second."""
        stalled = max(0.0, now - self._checked - STALL)
        self._checked = now
        for connection in tuple(self._open):
            connection.check(now, stalled)

    def _clear(self, connections: Collection[Connection]) -> bool:
        """Closes the oldest that is waiting for a request, better one that has never sent any. False: none waits."""
        silent = (connection for connection in connections if connection.waits_for is Wait.HEAD)
        idle = (connection for connection in connections if connection.is_idle)
        chosen = next(chain(silent, idle), None)
        if chosen is None:
            return False
        metrics.CONNECTIONS_ENDED.labels("room").inc()
        chosen.transport.close()
        self.forget(chosen)
        return True

    def _refuse(self, connection: Connection, status: HTTPStatus, message: str) -> None:
        metrics.CONNECTIONS_ENDED.labels("refused").inc()
        connection.refuse(status, message, f"Retry-After: {RETRY_AFTER}\r\n")
