"""A CONNECT proxy that answers for fal's hosts and lets everything else through."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from keyreel.errors import KeyreelError

FAL_HOSTS = ("queue.fal.run", "fal.run", "rest.fal.ai", "v3.fal.media")
CHUNK = 64 * 1024
MAX_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Proxy:
    """server: where Keyreel listens. identity: what the proxy shows as fal's hosts.

    upstream: the proxy that other connections went through before, if any.
    """

    server: SplitResult
    identity: ssl.SSLContext
    upstream: SplitResult | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """The port on the loopback interface, for as long as the context lasts."""
        listener = await asyncio.start_server(self._serve, "127.0.0.1", limit=MAX_HEAD)
        async with listener:
            yield listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
            if method != "CONNECT":
                writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            elif target.removesuffix(":443") in FAL_HOSTS:
                await self._answer(reader, writer)
            else:
                await self._pass_through(target, head, reader, writer)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ends the program's TLS here. The Host header reaches the server as it is: that is how it tells them apart."""
        there = await _reached(writer, connect(self.server))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await writer.start_tls(self.identity)
        await _relay((reader, writer), there)

    async def _pass_through(
        self, target: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A tunnel to the host that was asked for, by way of the proxy that would have been asked otherwise."""
        if self.upstream:
            proxy = asyncio.open_connection(self.upstream.hostname, self.upstream.port or 8080)
            there = await _reached(writer, proxy)
            there[1].write(head)
        else:
            host, _, port = target.rpartition(":")
            there = await _reached(writer, asyncio.open_connection(host.strip("[]"), int(port)))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _relay((reader, writer), there)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: SplitResult) -> Connection:
    """Raises OSError, also when the server's certificate is not trusted."""
    secure = server.scheme == "https"
    port = server.port or (443 if secure else 80)
    return await asyncio.open_connection(server.hostname, port, ssl=secure or None)


async def _reached(writer: asyncio.StreamWriter, connecting: Coroutine[Any, Any, Connection]) -> Connection:
    try:
        return await connecting
    except OSError:
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        raise


async def _relay(here: Connection, there: Connection) -> None:
    """Bytes both ways until both sides have ended."""
    try:
        await asyncio.gather(_copy(here[0], there[1]), _copy(there[0], here[1]))
    finally:
        there[1].close()


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
    """Raises KeyreelError for what is not the address of a server at the root of its host."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.path.strip("/")
    except ValueError:
        valid = False
    if not valid:
        raise KeyreelError(f"{url!r} is not the address of a server, which looks like http://127.0.0.1:8000.")
    return parts
