"""A CONNECT proxy that redirects fal's hosts to a Keyreel server and lets everything else through."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from keyreel.errors import KeyreelError
from keyreel.fal.hosts import PREFIXES

CHUNK = 64 * 1024
MAX_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """`server` is where Keyreel listens. `identity` is the TLS context with the certificate for fal's hosts.

    `upstream` is the proxy that the environment names, if any. Connections to other hosts go through it.
    """

    server: SplitResult
    identity: ssl.SSLContext
    upstream: SplitResult | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listens on a port of the loopback interface during the block, and yields the port."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", limit=MAX_HEAD)
        async with listener:
            yield listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
            if method != "CONNECT":
                writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            elif target.removesuffix(":443") in PREFIXES:
                await self._answer(reader, writer)
            else:
                await self._pass_through(target, head, reader, writer)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Terminates TLS and forwards to the server, which tells fal's hosts apart by the Host header."""
        remote = await _connected(writer, connect(self.server))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await writer.start_tls(self.identity)
        await _relay((reader, writer), remote)

    async def _pass_through(
        self, target: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Opens a tunnel to the target, through the upstream proxy if there is one."""
        if self.upstream:
            proxy = asyncio.open_connection(self.upstream.hostname, self.upstream.port or 8080)
            remote = await _connected(writer, proxy)
            remote[1].write(head)
        else:
            host, _, port = target.rpartition(":")
            remote = await _connected(writer, asyncio.open_connection(host.strip("[]"), int(port)))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _relay((reader, writer), remote)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: SplitResult) -> Connection:
    """Connects to a Keyreel server. Raises OSError, also when the server's certificate is not trusted."""
    secure = server.scheme == "https"
    port = server.port or (443 if secure else 80)
    return await asyncio.open_connection(server.hostname, port, ssl=secure or None)


async def _connected(writer: asyncio.StreamWriter, connecting: Coroutine[Any, Any, Connection]) -> Connection:
    """Awaits a connection. Answers the program with 502 when it fails."""
    try:
        return await connecting
    except OSError:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        raise


async def _relay(local: Connection, remote: Connection) -> None:
    """Copies bytes in both directions until both sides have ended."""
    try:
        await asyncio.gather(_copy(local[0], remote[1]), _copy(remote[0], local[1]))
    finally:
        remote[1].close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
            await sink.drain()
    finally:
        with suppress(OSError):
            if sink.can_write_eof():
                sink.write_eof()
            else:
                sink.close()


def parse_server(url: str) -> SplitResult:
    """Parses the address of a server. Raises KeyreelError when it is invalid or has a path."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.path.strip("/")
    except ValueError:
        valid = False
    if not valid:
        raise KeyreelError(f"{url!r} is not the address of a server. It should look like http://127.0.0.1:8000.")
    return parts
