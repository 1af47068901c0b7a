"""Several processes at one database: limits, first keys, names and reports hold when calls come at the same moment."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from keyreel.store import Store, open_store
from keyreel.store.records import (
    KeyLimitError,
    NewRequest,
    QueueFullError,
    Submitted,
    Worker,
    WorkerNameTakenError,
)
from tests.store.conftest import Clock

WORKER = Worker("gpu-1", "default", "cuda:0", "demo", ready=False)


def new_request(**fields: object) -> NewRequest:
    return NewRequest(**{"endpoint": "a/b", "key_id": "key", "input": {}, "seed": 1} | fields)  # type: ignore[arg-type]


async def accepted(store: Store, new: NewRequest, calls: int = 16) -> int:
    results = await asyncio.gather(*(store.queue.submit(new) for _ in range(calls)), return_exceptions=True)
    assert all(isinstance(result, Submitted | KeyLimitError | QueueFullError) for result in results), results
    return sum(isinstance(result, Submitted) for result in results)


async def test_a_burst_does_not_exceed_the_limit_of_a_key(store: Store) -> None:
    assert await accepted(store, new_request(max_of_key=2)) == 2


async def test_a_burst_does_not_exceed_the_length_of_the_queue(store: Store) -> None:
    assert await accepted(store, new_request(max_queue_length=2)) == 3


async def test_processes_that_start_together_create_one_first_key(store: Store) -> None:
    keys = await asyncio.gather(*(store.keys.create_first("first") for _ in range(8)))
    (new,) = (key for key in keys if key)
    assert await store.keys.list() == [new.key]
    assert new.key.admin


async def test_processes_that_start_together_set_the_operators_key_once(store: Store) -> None:
    await asyncio.gather(*(store.keys.put("operator", "secret", "operator", admin=True) for _ in range(8)))
    (key,) = await store.keys.list()
    assert await store.keys.verify("operator", "secret") == key


async def test_first_reports_at_the_same_moment_make_one_worker(store: Store) -> None:
    await asyncio.gather(*(store.workers.report(WORKER) for _ in range(8)))
    assert await store.workers.alive() == [WORKER]


async def test_a_name_is_held_by_one_worker(store: Store) -> None:
    async with store.database.hold_name("gpu-1"), store.database.hold_name("gpu-2"):
        with pytest.raises(WorkerNameTakenError, match="'gpu-1' is already running"):
            await store.database.hold_name("gpu-1").__aenter__()
    async with store.database.hold_name("gpu-1"):
        pass


async def test_a_name_is_held_across_processes(url: str) -> None:
    if url.startswith("sqlite"):
        return  # one process has the database
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(open_store(url, Clock.now)) for _ in range(2)]
        async with first.database.hold_name("gpu-1"):
            with pytest.raises(WorkerNameTakenError):
                await second.database.hold_name("gpu-1").__aenter__()
        async with second.database.hold_name("gpu-1"):
            pass


async def test_a_worker_reports_while_it_holds_its_name(store: Store) -> None:
    async with asyncio.timeout(10), store.database.hold_name(WORKER.name):
        await store.workers.report(WORKER)
    assert await store.workers.alive() == [WORKER]
