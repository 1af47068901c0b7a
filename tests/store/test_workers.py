from dataclasses import replace

from sqlalchemy import select

from keyreel.store import Store
from keyreel.store.records import DAY, Worker
from keyreel.store.tables import worker
from keyreel.store.workers import REPORT_TIMEOUT
from tests.store.conftest import Clock

LOADING = Worker("host:cuda:0", "default", "cuda:0", "ltx-video", ready=False)


async def test_a_later_report_replaces_the_earlier_one(store: Store) -> None:
    await store.workers.report(LOADING)
    await store.workers.report(replace(LOADING, name="host:cuda:1"))
    await store.workers.report(replace(LOADING, ready=True))
    assert await store.workers.alive() == [replace(LOADING, ready=True), replace(LOADING, name="host:cuda:1")]


async def test_a_worker_without_recent_reports_is_not_alive(store: Store, clock: Clock) -> None:
    await store.workers.report(LOADING)
    await clock.advance(REPORT_TIMEOUT - 1)
    assert await store.workers.alive() == [LOADING]
    await clock.advance(1)
    assert await store.workers.alive() == []


async def test_a_removed_worker_is_not_alive(store: Store) -> None:
    await store.workers.report(LOADING)
    await store.workers.remove(LOADING.name)
    assert await store.workers.alive() == []


async def test_workers_that_vanished_are_forgotten_when_another_one_starts(store: Store, clock: Clock) -> None:
    await store.workers.report(LOADING)
    await clock.advance(DAY + 1)
    await store.workers.report(replace(LOADING, name="host:cuda:1"))
    async with store.database.read() as connection:
        assert (await connection.execute(select(worker.c.name))).scalars().all() == ["host:cuda:1"]
