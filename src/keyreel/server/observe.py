"""What is seen of each call: a line in the log with the request's id, a count, and an answer even to our own faults."""

import time
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyreel.server.errors import REQUEST_ID, Json
from keyreel.server.measures import CALLS

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Call:
    """One call, whose answer passes through `send`."""

    scope: Scope
    forward: Send
    request_id: str = ""
    code: int = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            # Calls that are about no request get an id of their own, to be found in the log.
            self.request_id = headers.setdefault(REQUEST_ID, self.request_id)
        await self.forward(message)


@dataclass(frozen=True, slots=True)
class Observe:
    """ASGI middleware."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call, start = _Call(scope, send, str(uuid4())), time.monotonic()
        try:
            await self.app(scope, receive, call.send)
        except Exception:
            _log.exception("failed", method=scope["method"], path=scope["path"], request_id=call.request_id)
            if call.code:
                raise  # too late for another answer
            await Json({"detail": "Internal Server Error"}, 500)(scope, receive, call.send)
        finally:
            _record(call, time.monotonic() - start)


def _record(call: _Call, seconds: float) -> None:
    method, path = call.scope["method"], call.scope["path"]
    CALLS.labels(method, str(call.code)).inc()
    # Clients ask for the status up to ten times a second: that is for whoever debugs.
    write = _log.debug if method == "GET" and call.code < HTTPStatus.BAD_REQUEST else _log.info
    write("answered", method=method, path=path, code=call.code, seconds=round(seconds, 4), request_id=call.request_id)
