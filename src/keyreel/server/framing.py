"""Refuses requests whose body could have two lengths."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from keyreel.server.errors import Json

_LENGTHS = {b"content-length", b"transfer-encoding"}


@dataclass(frozen=True, slots=True)
class Framing:
    """ASGI middleware. A proxy that reads such a request differently could take the rest of its body for the next one.

    See RFC 9112, section 6.3.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and {name for name, _ in scope["headers"]} >= _LENGTHS:
            message = "A request must not have both Content-Length and Transfer-Encoding."
            await Json({"detail": message}, 400, {"Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, receive, send)
