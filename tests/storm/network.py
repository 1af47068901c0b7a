"""A network between a process and a server that can be cut: packets vanish, and nobody is told."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

CHUNK = 64 * 1024

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Network:
    """Forwards connections from `port` on 127.0.0.1 to a server.

    While it is cut, bytes wait and new connections stay silent, as on a network whose packets are lost and repeated.
    """

    def __init__(self, connect: Connect) -> None:
        self.port = 0
        self.healed_at = -math.inf
        """When the last cut ended (monotonic, in seconds); infinite during a cut."""
        self._connect = connect
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._whole.clear()
        self.healed_at = math.inf

    def heal(self) -> None:
        self._whole.set()
        self.healed_at = time.monotonic()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                await self._whole.wait()
                server_reader, server_writer = await self._connect()
                try:
                    ways = self._copy(reader, server_writer), self._copy(server_reader, writer)
                    done = [asyncio.create_task(way) for way in ways]
                    await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.cancel()
                    await asyncio.gather(*done, return_exceptions=True)
                finally:
                    server_writer.close()
        finally:
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
            # A closed connection is news, too.
            await self._whole.wait()
