"""A TLS server on this machine that stands in for fal's hosts and hands each call to the Keyreel server."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from keyreel.fal.hosts import NO_WEBSOCKETS, PREFIXES, WEBSOCKET_CLOSED
from keyreel.wrap.calls import REFUSAL, Calls

CHUNK = 64 * 1024
_HOP_BY_HOP = ("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding")
"""Headers that belong to one connection (RFC 9110, 7.6.1)."""
_NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=30)


@dataclass(frozen=True, slots=True)
class StandIn:
    """`server` is where Keyreel listens. `identity` is the TLS context with the certificate for fal's hosts."""

    server: SplitResult
    identity: ssl.SSLContext
    calls: Calls

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listens on a port of the loopback interface during the block, and yields the port."""
        session = aiohttp.ClientSession(auto_decompress=False, timeout=_NO_LIMIT, cookie_jar=aiohttp.DummyCookieJar())
        async with session:
            answer = web.Server(lambda request: self._answer(session, request), handler_cancellation=True)
            runner = web.ServerRunner(answer, shutdown_timeout=0)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.identity).start()
                yield runner.addresses[0][1]
            finally:
                await runner.cleanup()

    async def _answer(self, session: aiohttp.ClientSession, request: web.BaseRequest) -> web.StreamResponse:
        host = request.host.partition(":")[0].lower()
        if host not in PREFIXES:
            self.calls.refused(host)
            return web.json_response({"detail": f"keyreel wrap: {REFUSAL.format(host=f'{host} is')}"}, status=403)
        if (socket := web.WebSocketResponse()).can_prepare(request):
            self.calls.answered(request.method, host, request.path, WEBSOCKET_CLOSED)
            await socket.prepare(request)
            await socket.close(code=WEBSOCKET_CLOSED, message=NO_WEBSOCKETS.encode())
            return socket
        try:
            return await self._forward(session, request, host)
        except (aiohttp.ClientError, OSError) as error:
            self.calls.failed(host, request.path)
            return web.json_response({"detail": f"keyreel wrap: {self.calls.server}: {error}"}, status=502)

    async def _forward(self, session: aiohttp.ClientSession, request: web.BaseRequest, host: str) -> web.StreamResponse:
        """Sends the call on with its Host header, by which the server tells fal's hosts apart."""
        url = URL(f"{self.calls.server}{request.raw_path}", encoded=True)
        body = request.content if request.can_read_body else None
        call = session.request(
            request.method, url, headers=_end_to_end(request.headers), data=body, allow_redirects=False
        )
        async with call as answer:
            self.calls.answered(request.method, host, request.path, answer.status)
            headers = _end_to_end(answer.headers)
            response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


async def connect(server: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to a Keyreel server. Raises OSError, also when the server's certificate is not trusted."""
    secure = server.scheme == "https"
    port = server.port or (443 if secure else 80)
    return await asyncio.open_connection(server.hostname, port, ssl=secure or None)
