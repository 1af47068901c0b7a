"""WebSockets are opened only to be closed with a reason.

fal's clients show why a WebSocket was closed. Of a refused handshake they show nothing but a status, or not even that.
"""

from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from keyreel.fal.hosts import NO_WEBSOCKETS, WEBSOCKET_CLOSED

LIMIT = 16 * 1024
"""Bytes of a message. Nothing is done with it."""


class ClosingWebSocket:
    """The server's side of one WebSocket, without input and output."""

    def __init__(self) -> None:
        self._protocol = ServerProtocol(max_size=LIMIT)

    def receive(self, data: bytes) -> list[bytes]:
        """Takes what the client sent, first the head of its request. Returns what to send; b"" ends the connection."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
                if self._protocol.state is State.OPEN:
                    self._protocol.send_close(WEBSOCKET_CLOSED, NO_WEBSOCKETS)
        return self._protocol.data_to_send()
