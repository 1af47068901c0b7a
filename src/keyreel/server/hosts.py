"""Serves fal's hosts from one server: rewrites the path of each request before it is routed."""

from dataclasses import dataclass
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from keyreel.fal.hosts import NO_WEBSOCKETS, PREFIXES
from keyreel.server.errors import Json
from keyreel.server.origins import mark
from keyreel.server.proxy import PATH as PROXY_PATH
from keyreel.server.proxy import Target, target_of


@dataclass(frozen=True, slots=True)
class HostDispatch:
    """ASGI middleware that prefixes each path according to the Host header.

    A call to fal's proxy route goes to our own route for the target. Trailing slashes are stripped: fal's clients use
    both forms, and not all of them follow redirects.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif Headers(scope=scope).get("upgrade", "").lower() == "websocket":
            # Half a handshake, as a proxy leaves it. It is a GET, so a route could take its query for an input.
            await Json({"detail": NO_WEBSOCKETS}, 404)(scope, receive, send)
        elif _stripped(scope["path"]) == PROXY_PATH:
            await self._proxy(scope, receive, send)
        else:
            host = Headers(scope=scope).get("host", "").partition(":")[0].lower()
            named = mark(scope) if host in PREFIXES else scope
            await self.app(_rewritten(named, PREFIXES.get(host, ""), scope["raw_path"]), receive, send)

    async def _proxy(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = target_of(Headers(scope=scope))
        prefix = PREFIXES.get(target.host) if target else None
        if target is None or prefix is None:
            await Json("Invalid request", 400)(scope, receive, send)
            return
        await self.app(_retargeted(scope, target, prefix), receive, send)


def _retargeted(scope: Scope, target: Target, prefix: str) -> Scope:
    return _rewritten(scope, prefix, target.path) | {"query_string": target.query}


def _rewritten(scope: Scope, prefix: str, raw_path: bytes) -> dict[str, object]:
    path = prefix + _stripped(unquote(raw_path.decode("latin-1")))
    return {**scope, "path": path, "raw_path": prefix.encode() + raw_path}


def _stripped(path: str) -> str:
    return path.rstrip("/") or "/"
