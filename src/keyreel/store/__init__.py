"""The database: the durable queue, webhook deliveries, keys, files and workers, on SQLite or PostgreSQL.

May import: errors, fal.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.sql.expression import ColumnElement

from keyreel.store.audit import Audit
from keyreel.store.browse import Browse
from keyreel.store.changes import Topic
from keyreel.store.clock import DatabaseTime
from keyreel.store.database import Database, connect
from keyreel.store.deliveries import Deliveries
from keyreel.store.errors import STORE_ERRORS
from keyreel.store.files import Files
from keyreel.store.installation import Installation
from keyreel.store.keys import Keys
from keyreel.store.queue import Queue
from keyreel.store.quotas import Quotas
from keyreel.store.records import NO_LIMITS, Limits
from keyreel.store.requests import Requests
from keyreel.store.sessions import Sessions
from keyreel.store.usage import Usage
from keyreel.store.workers import Workers

__all__ = ["STORE_ERRORS", "Store", "Topic", "open_store"]

_DATABASE_TIME = DatabaseTime()


@dataclass(frozen=True, slots=True)
class Store:
    """The database and its parts, one for each kind of row."""

    database: Database
    queue: Queue
    requests: Requests
    browse: Browse
    deliveries: Deliveries
    keys: Keys
    files: Files
    workers: Workers
    usage: Usage
    installation: Installation
    sessions: Sessions
    quotas: Quotas
    audit: Audit


@asynccontextmanager
async def open_store(
    url: str, now: ColumnElement[float] = _DATABASE_TIME, default_limits: Limits = NO_LIMITS
) -> AsyncIterator[Store]:
    """Opens the store at `sqlite:///file` or `postgresql://...` and migrates its tables. Raises StoreInUseError.

    now: the SQL expression that every statement uses as the current time.
    default_limits: of keys that have no limits of their own, except administrators'.
    """
    async with connect(url, now) as database:
        database.default_limits = default_limits
        yield Store(
            database,
            Queue(database),
            Requests(database),
            Browse(database),
            Deliveries(database),
            Keys(database),
            Files(database),
            Workers(database),
            Usage(database),
            Installation(database),
            Sessions(database),
            Quotas(database),
            Audit(database),
        )
