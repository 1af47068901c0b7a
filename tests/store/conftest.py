"""Stores on SQLite and on PostgreSQL, and a clock that the test moves."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Column, Double, MetaData, Table, delete, insert, select, update

from keyreel.store import Store, open_store
from keyreel.store.database import Database
from keyreel.store.tables import metadata
from tests.store.postgres import new_database

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


@pytest.fixture(scope="session")
def url(server_url: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database that most tests share, one after the other."""
    with new_database(server_url, tmp_path_factory.mktemp("store")) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with empty_store(url) as store:
        yield store


@pytest.fixture
def clock(store: Store) -> Clock:
    return Clock(store.database)
