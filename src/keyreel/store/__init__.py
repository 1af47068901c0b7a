"""Rows: the durable queue, its outbox, keys, files and workers, on SQLite or PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.sql.expression import ColumnElement

from keyreel.store.clock import DatabaseTime
from keyreel.store.database import Database, connect
from keyreel.store.deliveries import Deliveries
from keyreel.store.files import Files
from keyreel.store.keys import Keys
from keyreel.store.queue import Queue
from keyreel.store.requests import Requests
from keyreel.store.workers import Workers

__all__ = ["Store", "open_store"]

_DATABASE_TIME = DatabaseTime()


@dataclass(frozen=True, slots=True)
class Store:
    database: Database
    queue: Queue
    requests: Requests
    deliveries: Deliveries
    keys: Keys
    files: Files
    workers: Workers


@asynccontextmanager
async def open_store(url: str, now: ColumnElement[float] = _DATABASE_TIME) -> AsyncIterator[Store]:
    """The store at `sqlite:///file` or `postgresql://...`, its tables brought up to date. Raises StoreInUseError.

    `now`: what every statement takes for the time, computed by the database.
    """
    async with connect(url, now) as database:
        yield Store(
            database,
            Queue(database),
            Requests(database),
            Deliveries(database),
            Keys(database),
            Files(database),
            Workers(database),
        )
