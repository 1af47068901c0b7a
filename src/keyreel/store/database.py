"""A connection to SQLite or PostgreSQL, and what differs between the two."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.expression import ColumnElement

from keyreel.store.lockfile import only_process
from keyreel.store.migrate import migrate

_BUSY_TIMEOUT = 10.0
_READERS = 4

_create_engine = partial(create_async_engine, json_serializer=partial(json.dumps, allow_nan=False))


class Database:
    """Transactions, the clock, and a hint that something changed."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, now: ColumnElement[float]) -> None:
        self._writer = writer
        self._reader = reader
        self.now = now
        self.changed = asyncio.Event()
        """Set, and replaced, when a request has changed. Take it before you look; it tells of this process only."""

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end of the block."""
        async with self._writer.begin() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self._reader.begin() as connection:
            yield connection

    def announce(self) -> None:
        """After a commit: wakes whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


@asynccontextmanager
async def connect(address: str, now: ColumnElement[float]) -> AsyncIterator[Database]:
    """Opens the database at `address` (`sqlite:///file` or `postgresql://...`), its tables brought up to date."""
    url = make_url(address)
    match url.get_backend_name():
        case "sqlite":
            opened = _sqlite(url.set(drivername="sqlite+aiosqlite"), now)
        case "postgresql" | "postgres":
            opened = _postgresql(url.set(drivername="postgresql+asyncpg"), now)
        case other:
            raise ValueError(f"The store runs on sqlite or postgresql, not on {other}.")
    async with opened as database:
        async with database.write() as connection:
            await connection.run_sync(migrate)
        yield database


@asynccontextmanager
async def _postgresql(url: URL, now: ColumnElement[float]) -> AsyncIterator[Database]:
    engine = _create_engine(url, pool_pre_ping=True)
    try:
        yield Database(engine, engine, now)
    finally:
        await engine.dispose()


@asynccontextmanager
async def _sqlite(url: URL, now: ColumnElement[float]) -> AsyncIterator[Database]:
    """One process and in it one writer: SQLite before 3.51.3 can damage a write-ahead log that several write to."""
    if not url.database or url.database == ":memory:":
        raise ValueError("The store needs a file: a database in memory is gone after a restart.")
    with only_process(Path(url.database)):
        arguments = {"timeout": _BUSY_TIMEOUT}
        writer = _create_engine(url, pool_size=1, max_overflow=0, connect_args=arguments)
        reader = _create_engine(url, pool_size=_READERS, max_overflow=0, connect_args=arguments)
        _prepare(writer, "BEGIN IMMEDIATE", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
        _prepare(reader, "BEGIN", "query_only = ON")
        try:
            yield Database(writer, reader, now)
        finally:
            await reader.dispose()
            await writer.dispose()


def _prepare(engine: AsyncEngine, begin: str, *pragmas: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        # Transactions begin where we say so, not where Python's driver guesses.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)
