"""The clock of invariant I4 (tests/store/test_invariants.py), and what happens when it is set."""

import asyncio
import time

import pytest
from sqlalchemy import func, literal, select

from keyreel.fal.outcomes import Failure, Success
from keyreel.store import Store, open_store
from keyreel.store.clock import DatabaseTime
from keyreel.store.records import DAY, KeyLimitError, LeaseLostError, LeaseStatus, Limits, Reaped
from keyreel.store.tables import request
from keyreel.store.transitions import LEASE
from tests.store.conftest import Clock
from tests.store.steps import WEBHOOK, claim, leased, submit

FAILURE = Failure("It failed.", "runner_server_error")
NOTHING = Reaped(0, 0, 0)


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


async def test_a_dead_workers_lease_ends_in_time_although_the_clock_was_set_back(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    await clock.advance(-DAY)
    assert await store.queue.reap() == NOTHING
    await clock.advance(LEASE - 1)
    assert await store.queue.reap() == NOTHING
    await clock.advance(1)
    assert (await store.queue.reap()).released == 1
    assert (await claim(store)).id == lease.id


async def test_a_live_worker_keeps_its_request_when_the_clock_is_set_back(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    await clock.advance(-DAY)
    assert await store.queue.reap() == NOTHING
    assert await store.queue.heartbeat(lease) is LeaseStatus.CONTINUE
    await store.queue.finish(lease, Success({}))


async def test_a_live_worker_loses_one_attempt_when_the_clock_is_set_forward(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    await clock.advance(DAY)
    assert (await store.queue.reap()).released == 1
    with pytest.raises(LeaseLostError):
        await store.queue.finish(lease, Success({}))
    await store.queue.finish(await claim(store), Success({}))


async def test_a_retry_does_not_wait_until_the_clock_is_back(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    await store.queue.retry(lease, FAILURE)
    assert not await store.queue.has_work()
    await clock.advance(-DAY)
    assert await store.queue.has_work()
    assert (await claim(store)).attempt == 2


async def test_a_delivery_does_not_wait_until_the_clock_is_back(store: Store, clock: Clock) -> None:
    await store.queue.finish(await leased(store, webhook_url=WEBHOOK), Success({}))
    (delivery,) = await store.deliveries.claim()
    await store.deliveries.failed(delivery, "no answer")
    assert not await store.deliveries.has_due()
    await clock.advance(-DAY)
    assert [again.attempt for again in await store.deliveries.claim()] == [2]


async def test_the_rate_of_a_key_is_limited_and_not_blocked_after_the_clock_was_set_back(
    store: Store, clock: Clock
) -> None:
    key = (await store.keys.create("a", limits=Limits(max_per_minute=2))).key.id
    for _ in range(3):
        for _ in range(2):
            await submit(store, key_id=key)
        with pytest.raises(KeyLimitError):
            await submit(store, key_id=key)
        await clock.advance(-DAY)


async def test_the_time_on_a_device_is_never_negative(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    await store.queue.enter_device(lease)
    await clock.advance(-DAY)
    await store.queue.leave_device(lease)
    async with store.database.read() as connection:
        assert await connection.scalar(select(request.c.device_seconds)) == 0
