"""Heartbeats with log lines, which PostgreSQL gets as one statement and SQLite as two in a transaction."""

import pytest
from sqlalchemy import text, update

from keyreel.store import Store, beats, open_store
from keyreel.store.records import Lease, Level, LogLine
from keyreel.store.tables import request
from tests.store.conftest import Clock
from tests.store.steps import claim, submit

LINES = [LogLine("first", Level.INFO, 2.0), LogLine("a \0 byte", Level.WARN, 1.0), LogLine("last \ud800", Level.ERROR)]


@pytest.fixture
async def lease(store: Store) -> Lease:
    await submit(store)
    return await claim(store)


async def beat(store: Store, request_id: str, lines: list[LogLine]) -> bool | None:
    renewal = update(request).where(request.c.id == request_id).values(log_lines=request.c.log_lines + len(lines))
    async with store.database.write_once() as connection:
        return await beats.beat(connection, renewal, lines, store.database.now)


async def test_lines_are_written_in_order_with_their_age(store: Store, lease: Lease) -> None:
    assert await beat(store, lease.id, LINES) is False
    assert [(line.level, line.time - Clock.start, line.message) for line in await store.requests.log(lease.id)] == [
        (Level.INFO, -2.0, "first"),
        (Level.WARN, -1.0, "a ? byte"),
        (Level.ERROR, 0.0, "last ?"),
    ]


async def test_a_cancel_comes_back(store: Store, lease: Lease) -> None:
    await store.queue.cancel(lease.id)
    assert await beat(store, lease.id, []) is True
    assert await store.requests.log(lease.id) == []


async def test_a_renewal_that_matches_nothing_writes_no_line(store: Store, lease: Lease) -> None:
    assert await beat(store, "another", LINES) is None
    assert await store.requests.log(lease.id) == []


async def test_a_heartbeat_is_one_commit(fleet_url: str) -> None:
    """Rows of one transaction carry its number. Were there two, a crash between them would lose or double lines."""
    async with open_store(fleet_url) as store:
        await submit(store)
        await store.queue.heartbeat(await claim(store), {"step": 1}, LINES)
        async with store.database.read() as connection:
            rows = await connection.execute(text("SELECT xmin::text FROM event UNION SELECT xmin::text FROM request"))
            assert len(rows.all()) == 1
