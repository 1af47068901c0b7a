"""Measures a running server, and tells what grows from one measurement to the next."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from keyreel.store.tables import metadata
from tests.worker.processes import handles, server_processes, threads, written_memory

Sample = Mapping[str, float]
"""Figures by name. A name ends with what is counted."""

MODULES = ("keyreel.worker.", "tests.worker.")
MIB = 1024 * 1024
SETTLE_TIMEOUT = 90.0
PAUSE = 0.5
"""Seconds between two measurements that have to agree."""
LASTING = {"api_key", "installation", "usage", "worker"}
"""Tables whose rows do not expire. None of them has a row per request."""
TOLERANCES = {"MiB of memory": 3.0, "handles": 2.0, "threads": 8.0, "MiB of database": 1.0}
"""By how much a figure of this kind may grow. Others may not grow at all. The server's pool of threads fills slowly."""


@dataclass(frozen=True)
class Meter:
    """Measures the server of process `pid`, with its data in `folder`."""

    pid: int
    folder: Path
    connection: AsyncConnection

    async def when_settled(self) -> Sample:
        """Measures when everything has expired and is deleted. Raises TimeoutError if that does not happen."""
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT):
                return await self._settled()
        except TimeoutError:
            raise TimeoutError(f"This does not settle: {await self._expiring()}, {await self._measure()}") from None

    async def _settled(self) -> Sample:
        while any((await self._expiring()).values()):
            await asyncio.sleep(PAUSE)
        # Connections may still be closing.
        before, now = None, await self._measure()
        while before is None or _without_memory(before) != _without_memory(now):
            await asyncio.sleep(PAUSE)
            before, now = now, await self._measure()
        return now

    async def _expiring(self) -> dict[str, int]:
        """Returns the number of rows of each table whose rows expire."""
        return {name: await self._rows(name) for name in metadata.tables if name not in LASTING}

    async def _measure(self) -> Sample:
        database = await self._database_size()
        files = [path for path in self.folder.rglob("*") if not path.name.startswith("keyreel.db")]
        return {
            **dict(self._processes()),
            "rows": sum([await self._rows(name) for name in metadata.tables]),
            "files and folders": len(files),
            "KiB of files": sum(path.stat().st_size for path in files if path.is_file()) / 1024,
            "MiB of database": database / MIB,
        }

    def _processes(self) -> Iterator[tuple[str, float]]:
        for name, pid in server_processes(self.pid, *MODULES):
            short = name.rpartition(".")[2].replace("_", " ")
            yield f"{short}: MiB of memory", written_memory(pid) / MIB
            yield f"{short}: handles", handles(pid)
            yield f"{short}: threads", threads(pid)

    async def _rows(self, table: str) -> int:
        return int(await self.connection.scalar(select(func.count()).select_from(metadata.tables[table])) or 0)

    async def _database_size(self) -> int:
        if self.connection.dialect.name == "sqlite":
            return sum(path.stat().st_size for path in self.folder.glob("keyreel.db*"))
        return int(await self.connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)


@asynccontextmanager
async def open_meter(pid: int, folder: Path, database_url: str) -> AsyncIterator[Meter]:
    url = make_url(database_url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[url.get_backend_name()]
    engine = create_async_engine(url.set(drivername=driver), isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            yield Meter(pid, folder, connection)
    finally:
        await engine.dispose()


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """Returns by how much each figure has grown from the second third of the samples to the last.

    The first third is left out: caches and pools fill. Of each third the smallest value counts, which noise disturbs
    least.
    """
    third = len(samples) // 3
    middle, last = samples[-2 * third : -third], samples[-third:]
    return {name: min(each[name] for each in last) - min(each[name] for each in middle) for name in samples[-1]}


def grown(samples: Sequence[Sample]) -> list[str]:
    """Returns what has grown by more than it may."""
    return [
        f"{name} grew by {more:.1f}, more than {_tolerance(name):g}"
        for name, more in growth(samples).items()
        if more > _tolerance(name)
    ]


def rows(samples: Sequence[Sample]) -> Iterator[tuple[str, ...]]:
    """Yields the rows of a table to print: each figure at the beginning, in the middle and at the end."""
    yield "", "first", "middle", "last", "growth from the second third to the last"
    more = growth(samples)
    for name in samples[-1]:
        shown = (samples[0][name], samples[len(samples) // 2][name], samples[-1][name])
        yield name, *(f"{value:,.1f}".removesuffix(".0") for value in shown), f"{more[name]:+.1f}"


def _tolerance(name: str) -> float:
    return next((value for kind, value in TOLERANCES.items() if name.endswith(kind)), 0.0)


def _without_memory(sample: Sample) -> dict[str, float]:
    return {name: value for name, value in sample.items() if "memory" not in name}
