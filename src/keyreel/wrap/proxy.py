"""A CONNECT proxy that answers for fal's hosts and lets everything else through."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

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
        secure = self.server.scheme == "https"
        port = self.server.port or (443 if secure else 80)
        there = await _reached(writer, self.server.hostname or "", port, ssl=secure or None)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await writer.start_tls(self.identity)
        await _relay((reader, writer), there)

    async def _pass_through(
        self, target: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """A tunnel to the host that was asked for, by way of the proxy that would have been asked otherwise."""
        if self.upstream:
            there = await _reached(writer, self.upstream.hostname or "", self.upstream.port or 8080)
            there[1].write(head)
        else:
            host, _, port = target.rpartition(":")
            there = await _reached(writer, host.strip("[]"), int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _relay((reader, writer), there)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _reached(writer: asyncio.StreamWriter, host: str, port: int, ssl: bool | None = None) -> Connection:
    try:
        return await asyncio.open_connection(host, port, ssl=ssl)
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
    """Raises ValueError for what is not the address of a server at the root of its host."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"{url!r} is not the address of a server, which looks like http://127.0.0.1:8000.")
    return parts
