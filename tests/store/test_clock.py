"""The clock of invariant I4 (tests/store/test_invariants.py)."""

import asyncio
import time

from sqlalchemy import func, literal, select

from keyreel.store import open_store
from keyreel.store.clock import DatabaseTime


async def test_i4_the_databases_clock_agrees_with_the_systems(url: str) -> None:
    async with open_store(url) as store, store.database.read() as connection:
        before = time.time()
        now = (await connection.execute(select(DatabaseTime()))).scalar_one()
        # Both databases run on this machine. SQLite rounds to milliseconds.
        assert before - 0.01 <= now <= time.time() + 0.01


async def test_the_time_is_constant_within_a_statement(url: str) -> None:
    rows = select(literal(1).label("number")).cte(recursive=True)
    rows = rows.union_all(select(rows.c.number + 1).where(rows.c.number < 50_000))
    times = select(rows.c.number, DatabaseTime().label("time")).subquery()
    statement = select(func.count(), func.min(times.c.time), func.max(times.c.time)).select_from(times)
    async with open_store(url) as store, store.database.read() as connection:
        count, first, last = (await connection.execute(statement)).one()
    assert (count, first) == (50_000, last)


async def test_the_time_moves_on_within_a_transaction(url: str) -> None:
    """A transaction that has waited for a lock sees the time after the wait."""
    async with open_store(url) as store, store.database.read() as connection, asyncio.timeout(10):
        began = await connection.scalar(select(DatabaseTime()))
        while await connection.scalar(select(DatabaseTime())) == began:
            pass
