"""Processes of a fleet tell each other of changes. Each store stands for a process."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text

from keyreel.store import Store, Topic, open_store
from keyreel.store.notify import CHANNEL
from tests.store.postgres import Server, find_programs, restartable_server
from tests.store.steps import submit

SOON = 10.0
"""Seconds within which a notification must arrive."""


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with restartable_server(programs) as server:
        yield server


async def woken(store: Store, topic: Topic) -> None:
    """Waits for the topic. The caller awaits the returned task after it has caused the change."""
    async with asyncio.timeout(SOON):
        await store.database.changes.of(topic).wait()


async def expect(store: Store, topic: Topic) -> asyncio.Task[None]:
    task = asyncio.create_task(woken(store, topic))
    await asyncio.sleep(0)  # the task has begun to wait
    return task


@pytest.fixture
async def stores(database: Server) -> AsyncIterator[tuple[Store, Store]]:
    """Two stores that listen: each topic wakes a process when its connection has been made."""
    async with open_store(database.url) as first:
        await woken(first, Topic.CANCEL)
        async with open_store(database.url) as second:
            await woken(second, Topic.CANCEL)
            yield first, second


async def test_a_submit_wakes_the_workers_of_other_processes(stores: tuple[Store, Store]) -> None:
    gateway, worker = stores
    queued = await expect(worker, Topic.QUEUED)
    await submit(gateway)
    await queued
    assert await worker.queue.has_work()


async def test_a_claim_and_a_cancel_are_told(stores: tuple[Store, Store]) -> None:
    gateway, worker = stores
    await submit(gateway)
    claimed = await expect(gateway, Topic.STATE)
    lease = await worker.queue.claim("worker")
    assert lease is not None
    await claimed
    mine, other = (worker.database.changes.cancel_of(name) for name in (lease.id, "another request"))
    await gateway.queue.cancel(lease.id)
    async with asyncio.timeout(SOON):
        await mine.wait()
    assert not other.is_set()


@pytest.mark.slow
async def test_after_an_outage_all_is_looked_at_again_and_told_as_before(
    stores: tuple[Store, Store], database: Server
) -> None:
    gateway, worker = stores
    reconnected = [await expect(store, Topic.CANCEL) for store in stores]
    database.stop()
    database.start()
    await asyncio.gather(*reconnected)
    queued = await expect(worker, Topic.QUEUED)
    await submit(gateway)
    await queued


async def test_a_topic_of_a_newer_release_is_ignored(stores: tuple[Store, Store]) -> None:
    gateway, worker = stores
    queued = await expect(worker, Topic.QUEUED)
    async with gateway.database.write() as connection:
        await connection.execute(text(f"NOTIFY {CHANNEL}, 'newer meteors'"))
    await submit(gateway)
    await queued


@pytest.mark.parametrize("turns", range(4))
async def test_a_store_can_be_closed_while_a_change_is_told(database: Server, turns: int) -> None:
    async with asyncio.timeout(SOON), open_store(database.url) as store:
        await woken(store, Topic.CANCEL)
        store.database.changes.announce(Topic.STATE)
        for _ in range(turns):
            await asyncio.sleep(0)
