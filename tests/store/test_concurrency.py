"""Several processes at one database: limits, first keys, names and reports hold when calls come at the same moment."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import select

from keyreel.fal.outcomes import Success
from keyreel.store import STORE_ERRORS, Store, database, open_store
from keyreel.store.records import (
    File,
    KeyLimitError,
    LeaseLostError,
    Limits,
    NewFile,
    NewRequest,
    Priority,
    QueueFullError,
    StorageLimitError,
    Submitted,
    Worker,
    WorkerNameTakenError,
)
from keyreel.store.tables import request
from keyreel.store.transitions import LEASE
from tests.store.conftest import Clock

WORKER = Worker("gpu-1", "default", "cuda:0", "demo", ready=False)


def new_request(**fields: object) -> NewRequest:
    return NewRequest(**{"endpoint": "a/b", "key_id": "key", "input": {}, "seed": 1} | fields)  # type: ignore[arg-type]


async def accepted(store: Store, new: NewRequest, calls: int = 16) -> int:
    results = await asyncio.gather(*(store.queue.submit(new) for _ in range(calls)), return_exceptions=True)
    assert all(isinstance(result, Submitted | KeyLimitError | QueueFullError) for result in results), results
    return sum(isinstance(result, Submitted) for result in results)


async def test_a_burst_does_not_exceed_the_limit_of_a_key(store: Store) -> None:
    limited = await store.keys.create("limited", limits=Limits(max_requests=2))
    assert await accepted(store, new_request(key_id=limited.key.id)) == 2


async def test_a_burst_does_not_exceed_the_storage_of_a_key(store: Store) -> None:
    limited = await store.keys.create("limited", limits=Limits(max_bytes=20))
    new = NewFile(key_id=limited.key.id, object="in/1", name="1", content_type="image/png", size=9)
    results = await asyncio.gather(*(store.files.add(new, upload=True) for _ in range(16)), return_exceptions=True)
    assert sum(isinstance(result, File) for result in results) == 2
    assert all(isinstance(result, File | StorageLimitError) for result in results), results


async def test_a_burst_of_workers_does_not_exceed_the_running_requests_of_a_key(store: Store) -> None:
    limited = await store.keys.create("limited", limits=Limits(max_running=2))
    for _ in range(8):
        await store.queue.submit(new_request(key_id=limited.key.id))
    other = await store.queue.submit(new_request(key_id="other", priority=Priority.LOW))
    leases = await asyncio.gather(*(store.queue.claim(f"worker {n}") for n in range(8)))
    claimed = [lease.key_id for lease in leases if lease]
    assert sorted(claimed) == sorted([limited.key.id, limited.key.id, "other"])
    assert other.id in {lease.id for lease in leases if lease}


async def test_a_burst_of_one_key_gets_a_turn_for_each_request(store: Store) -> None:
    key = await store.keys.create("key")
    await asyncio.gather(*(store.queue.submit(new_request(key_id=key.key.id)) for _ in range(16)))
    async with store.database.read() as connection:
        turns = (await connection.execute(select(request.c.turn))).scalars().all()
    assert sorted(turns) == list(range(16))


async def test_workers_that_end_at_once_lose_no_use(store: Store) -> None:
    for _ in range(12):
        await store.queue.submit(new_request())
    leases = [lease for n in range(12) if (lease := await store.queue.claim(f"worker {n}"))]
    await asyncio.gather(*(store.queue.finish(lease, Success({})) for lease in leases))
    (used,) = await store.usage.days(0, 100)
    assert used.completed == 12


@pytest.mark.slow
async def test_sweeps_and_workers_do_not_lock_each_other_out(store: Store, clock: Clock) -> None:
    """Each sweep counts the use of several keys, in the order of their requests."""
    for round_ in range(4):
        for n in range(10):
            await store.queue.submit(new_request(key_id=f"key {n % 5}", retry=False))
        leases = [lease for n in range(10) if (lease := await store.queue.claim(f"worker {n % 2}"))]
        await clock.advance(LEASE)
        finishes = [store.queue.finish(lease, Success({})) for lease in leases[round_::3]]
        sweeps = [store.queue.reap(), store.queue.release_worker("worker 1"), store.queue.reap()]
        ended = await asyncio.gather(*finishes, *sweeps, return_exceptions=True)
        assert not [result for result in ended if isinstance(result, Exception) and not _is_lost(result)]
    used = await store.usage.days(0, 100)
    assert sum(day.completed + day.failed for day in used) == 40


def _is_lost(result: object) -> bool:
    return isinstance(result, LeaseLostError)


async def test_a_burst_does_not_exceed_the_rate_of_a_key(store: Store) -> None:
    limited = await store.keys.create("limited", limits=Limits(max_per_minute=7))
    assert await accepted(store, new_request(key_id=limited.key.id)) == 7


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


@pytest.mark.slow
async def test_a_stopped_process_does_not_keep_a_request_locked(
    fleet_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = database._SERVER_SETTINGS | {"idle_in_transaction_session_timeout": "500ms"}
    async with AsyncExitStack() as stack:
        # A busy machine may keep the other process from its transaction for half a second, too.
        other = await stack.enter_async_context(open_store(fleet_url))
        monkeypatch.setattr(database, "_SERVER_SETTINGS", short)
        stopped = await stack.enter_async_context(open_store(fleet_url))
        submitted = await other.queue.submit(new_request())
        with pytest.raises(STORE_ERRORS):
            async with asyncio.timeout(20), stopped.database.write() as connection:
                await connection.execute(select(request).with_for_update())
                while not (lease := await other.queue.claim("worker")):
                    await asyncio.sleep(0.05)
                await connection.execute(select(request))
        assert lease
        assert lease.id == submitted.id
