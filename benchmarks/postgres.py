"""Watches a PostgreSQL server: what it executes, and what that costs its processes."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

SETTINGS = ("listen_addresses=", "max_connections=300", "shared_preload_libraries=pg_stat_statements")
"""As PostgreSQL is delivered, with each commit on the disk."""
POLL = 0.003
"""Seconds between two looks at a row."""
_TICK = os.sysconf("SC_CLK_TCK")
# A server before 14 counts statements within others, too.
_STATEMENTS = """SELECT query, calls FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%benchmark%' ORDER BY calls DESC"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server did in some time. seconds: of its processor; texts: its statements with their numbers."""

    seconds: float
    texts: list[tuple[str, int]]

    @property
    def statements(self) -> int:
        return sum(calls for _, calls in self.texts)


class Monitor:
    """A connection that watches. Its own statements do not count."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._postmaster = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Monitor"]:
        connection = await asyncpg.connect(url)
        try:
            monitor = cls(connection)
            await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            backend = await connection.fetchval("SELECT pg_backend_pid()")
            monitor._postmaster = int(_stat(backend)[1])
            yield monitor
        finally:
            await connection.close()

    async def during(self, work: Awaitable[object]) -> Usage:
        """Does the work and returns what the server did meanwhile."""
        await self._connection.execute("SELECT pg_stat_statements_reset()")
        before = self._processor_seconds()
        await work
        seconds = self._processor_seconds() - before
        rows = await self._connection.fetch(_STATEMENTS)
        return Usage(seconds, [(" ".join(row["query"].split()), row["calls"]) for row in rows])

    async def value(self, statement: str, *arguments: object) -> Any:
        return await self._connection.fetchval(f"/* benchmark */ {statement}", *arguments)

    async def execute(self, statement: str, *arguments: object) -> None:
        await self._connection.execute(f"/* benchmark */ {statement}", *arguments)

    async def completed(self, request_id: str) -> None:
        """Waits until the request is completed."""
        while await self.value("SELECT state FROM request WHERE id = $1", request_id) != "COMPLETED":
            await asyncio.sleep(POLL)

    def _processor_seconds(self) -> float:
        """Returns the processor time of the server's processes, those that have ended included."""
        own = _stat(self._postmaster)
        ticks = sum(int(value) for value in own[11:15])
        for stat in _all_stats():
            if int(stat[1]) == self._postmaster:
                ticks += int(stat[11]) + int(stat[12])
        return ticks / _TICK


def _all_stats() -> Iterator[list[str]]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            yield _stat(int(path.name))
        except OSError:
            continue  # it has ended


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat from the process's state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
