"""fal's four hosts on one: which of our paths a request means, before any route is looked for."""

from dataclasses import dataclass
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from keyreel.server.errors import Json
from keyreel.server.proxy import PATH as PROXY_PATH
from keyreel.server.proxy import Target, target_of

PREFIXES = {
    "queue.fal.run": "/queue",
    "fal.run": "/run",
    "ws.fal.run": "/run",
    "rest.fal.ai": "",
    "rest.alpha.fal.ai": "",
    "v3.fal.media": "",
    "v3b.fal.media": "",
}
"""The same path means another thing on another host: submit on the queue's, run on the runner's."""
NO_WEBSOCKETS = "WebSockets are not spoken here. Submit to the queue and stream the status instead."


@dataclass(frozen=True, slots=True)
class HostDispatch:
    """ASGI middleware. Also answers for a proxy of fal's, by handing what is meant for fal to our own routes.

    Trailing slashes are taken off: fal's clients use both forms and not all follow redirects.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif Headers(scope=scope).get("upgrade", "").lower() == "websocket":
            # It is a GET, whose query could be taken for an input.
            await Json({"detail": NO_WEBSOCKETS}, 404)(scope, receive, send)
        elif _path(scope["path"]) == PROXY_PATH:
            await self._proxy(scope, receive, send)
        else:
            host = Headers(scope=scope).get("host", "").partition(":")[0].lower()
            await self.app(_redirected(scope, PREFIXES.get(host, ""), scope["raw_path"]), receive, send)

    async def _proxy(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = target_of(Headers(scope=scope))
        prefix = PREFIXES.get(target.host) if target else None
        if target is None or prefix is None:
            await Json("Invalid request", 400)(scope, receive, send)
            return
        await self.app(_aimed(scope, target, prefix), receive, send)


def _aimed(scope: Scope, target: Target, prefix: str) -> Scope:
    return _redirected(scope, prefix, target.path) | {"query_string": target.query}


def _redirected(scope: Scope, prefix: str, raw_path: bytes) -> dict[str, object]:
    path = prefix + _path(unquote(raw_path.decode("latin-1")))
    return {**scope, "path": path, "raw_path": prefix.encode() + raw_path}


def _path(path: str) -> str:
    return path.rstrip("/") or "/"
