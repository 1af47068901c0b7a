"""Reads the requests of a database that no server uses, and checks an SQLite file."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing

from sqlalchemy import make_url, select

from keyreel.store import open_store
from keyreel.store.tables import AnyRow, request


async def read_requests(database_url: str, *columns: str) -> Sequence[AnyRow]:
    """Returns columns of all requests, in the order of their submits."""
    async with open_store(database_url) as store, store.database.read() as connection:
        statement = select(*(request.c[name] for name in columns)).order_by(request.c.seq)
        return (await connection.execute(statement)).all()


def check_integrity(database_url: str) -> None:
    """Checks an SQLite file, which no process may have open. PostgreSQL has no such check."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(url.database or "")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
