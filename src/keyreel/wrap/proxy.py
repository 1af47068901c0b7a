"""A CONNECT proxy that leads fal's hosts to the stand-in and lets everything else through."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from keyreel.errors import KeyreelError
from keyreel.fal.hosts import is_fals
from keyreel.wrap.calls import Calls

CHUNK = 64 * 1024
MAX_HEAD = 64 * 1024

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Proxy:
    """`standin` is the port of the server that answers for fal's hosts, over TLS.

    `upstream` is the proxy that the environment names, if any. Connections to other hosts go through it.
    """

    standin: int
    calls: Calls
    upstream: SplitResult | None = None
    _open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = field(default_factory=dict)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Listens on a port of the loopback interface during the block, and yields the port."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", limit=MAX_HEAD)
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
            await self._end()

    async def _end(self) -> None:
        """Cuts what is still open. A cancelled task would leave a traceback behind."""
        for writer in [each for writers in self._open.values() for each in writers]:
            writer.transport.abort()
        await asyncio.gather(*self._open)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        task = asyncio.create_task(self._serve(reader, writer, writers))
        self._open[task] = writers
        task.add_done_callback(self._open.pop)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
            if method == "CONNECT":
                remote = await self._open_tunnel(target, head, writer)
                writers.append(remote[1])
                await _relay((reader, writer), remote)
            else:
                writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()

    async def _open_tunnel(self, target: str, head: bytes, writer: asyncio.StreamWriter) -> Connection:
        """Connects to the stand-in for fal's hosts, else to the target, through the upstream proxy if there is one."""
        host, _, port = target.rpartition(":")
        if is_fals(host):
            return await _tunnel(writer, asyncio.open_connection("127.0.0.1", self.standin))
        self.calls.passed(host.strip("[]"))
        if self.upstream:
            proxy = asyncio.open_connection(self.upstream.hostname, self.upstream.port or 8080)
            remote = await _connected(writer, proxy)
            remote[1].write(head)
            return remote
        return await _tunnel(writer, asyncio.open_connection(host.strip("[]"), int(port)))


async def _tunnel(writer: asyncio.StreamWriter, connecting: Coroutine[Any, Any, Connection]) -> Connection:
    remote = await _connected(writer, connecting)
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return remote


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
