"""Stores on SQLite and on PostgreSQL, and a clock that the test moves."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Column, Double, MetaData, Table, delete, insert, make_url, select, text, update
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from keyreel.store import Store, open_store
from keyreel.store.database import Database
from keyreel.store.tables import metadata
from tests.store.postgres import find_programs, running_server

SERVER = "KEYREEL_TEST_POSTGRES"
_clock = Table("test_clock", MetaData(), Column("now", Double, nullable=False))


class Clock:
    """The clock of a store under test: a row in its database that the test changes. Times are in seconds."""

    start = 1_000_000.0
    now = select(_clock.c.now).scalar_subquery()

    def __init__(self, database: Database) -> None:
        self._database = database

    async def advance(self, seconds: float) -> None:
        async with self._database.write() as connection:
            await connection.execute(update(_clock).values(now=_clock.c.now + seconds))


@contextmanager
def new_database(server_url: str | None, folder: Path) -> Iterator[str]:
    """Yields the URL of an empty database. A PostgreSQL database is dropped at the end of the block."""
    if not server_url:
        yield f"sqlite:///{folder / 'keyreel.db'}"
        return
    server = make_url(server_url).set(drivername="postgresql+asyncpg")
    name = f"keyreel_test_{secrets.token_hex(6)}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    asyncio.run(_execute(server, f"DROP DATABASE {name}"))


async def _execute(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()


async def wipe(database: Database) -> None:
    """Deletes all rows and sets the clock back to its start."""
    async with database.write() as connection:
        await connection.run_sync(_clock.create, checkfirst=True)
        for table in (*reversed(metadata.sorted_tables), _clock):
            await connection.execute(delete(table))
        await connection.execute(insert(_clock).values(now=Clock.start))


@asynccontextmanager
async def empty_store(url: str) -> AsyncIterator[Store]:
    """Opens a store, deletes its rows and gives it a clock that the test moves."""
    async with open_store(url, Clock.now) as store:
        await wipe(store.database)
        yield store


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A PostgreSQL server: the one in KEYREEL_TEST_POSTGRES, or one that the tests start. None means SQLite."""
    if request.param == "sqlite":
        yield None
    elif SERVER in os.environ:
        yield os.environ[SERVER]
    elif programs := find_programs():
        with running_server(programs) as url:
            yield url
    else:
        pytest.skip(f"PostgreSQL is not installed, and {SERVER} names no server")


@pytest.fixture(scope="session")
def url(server_url: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database that most tests share, one after the other."""
    with new_database(server_url, tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
def new_url(server_url: str | None, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    with new_database(server_url, tmp_path) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with empty_store(url) as store:
        yield store


@pytest.fixture
def clock(store: Store) -> Clock:
    return Clock(store.database)
