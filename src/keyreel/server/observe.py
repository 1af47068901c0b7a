"""Logs and counts each HTTP call, and answers 500 when our own code fails."""

import time
from dataclasses import dataclass
from http import HTTPStatus
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keyreel import metrics
from keyreel.server.errors import REQUEST_ID, Json

_DISCONNECTED = 499
"""The code, in logs and metrics only, of a call whose client left before its body was complete."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Call:
    """One HTTP call. Its response passes through `send`."""

    scope: Scope
    forward: Send
    request_id: str = ""
    code: int = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
            headers = MutableHeaders(raw=message["headers"])
            # Calls that concern no request get a new id, so that they can be found in the log.
            self.request_id = headers.setdefault(REQUEST_ID, self.request_id)
        await self.forward(message)


@dataclass(frozen=True, slots=True)
class Observe:
    """ASGI middleware that logs and counts each call."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call, start = _Call(scope, send, str(uuid4())), time.monotonic()
        try:
            await self.app(scope, receive, call.send)
        except ClientDisconnect:
            call.code = _DISCONNECTED  # nobody waits for an answer
        except Exception:
            _log.exception("failed", method=scope["method"], path=scope["path"], request_id=call.request_id)
            if call.code:
                raise  # the response has already begun
            await Json({"detail": "Internal Server Error"}, 500)(scope, receive, call.send)
        finally:
            _record(call, time.monotonic() - start)


def _record(call: _Call, seconds: float) -> None:
    method, path = call.scope["method"], call.scope["path"]
    metrics.HTTP_REQUESTS.labels(method, str(call.code)).inc()
    # Clients poll the status up to ten times a second, so successful reads are logged only for debugging.
    write = _log.debug if method == "GET" and call.code < HTTPStatus.BAD_REQUEST else _log.info
    write("answered", method=method, path=path, code=call.code, seconds=round(seconds, 4), request_id=call.request_id)
