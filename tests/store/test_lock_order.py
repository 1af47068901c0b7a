"""Transactions on PostgreSQL that meet at the same rows: none may wait for one that waits for it.

A transaction of the test holds a row, so that the calls come to wait in the order that used to end in a deadlock.
PostgreSQL ends a deadlock with an error in one of the two.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import Select, select, text

from keyreel.fal.outcomes import Success
from keyreel.store import Store, open_store
from keyreel.store.limits import KeyRevokedError
from keyreel.store.records import Lease, Limits, State
from keyreel.store.tables import request, usage
from tests.store.steps import claim, status, submit

PATIENCE = 10.0
"""Seconds to wait at most."""
_waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")


@pytest.fixture
async def store(fleet_url: str) -> AsyncIterator[Store]:
    async with open_store(fleet_url) as store:
        yield store


@asynccontextmanager
async def locked(store: Store, row: Select[Any]) -> AsyncIterator[None]:
    """Holds the lock of a row within the block."""
    async with store.database.write() as connection:
        assert (await connection.execute(row.with_for_update())).one()
        yield


async def until_waiting(store: Store, call: Coroutine[Any, Any, Any], transactions: int) -> "asyncio.Task[Any]":
    """Starts the call and returns it as soon as so many transactions wait for a lock."""
    task = asyncio.create_task(call)
    async with asyncio.timeout(PATIENCE), store.database.read() as connection:
        while await connection.scalar(_waiting) < transactions:
            assert not task.done()
            await asyncio.sleep(0.01)
    return task


async def test_a_claim_does_not_wait_for_a_key_that_is_being_revoked(store: Store) -> None:
    key = (await store.keys.create("limited", limits=Limits(max_running=5))).key.id
    first, second = await submit(store, key_id=key), await submit(store, key_id=key)
    async with locked(store, select(request.c.id).where(request.c.id == first)):
        revoking = await until_waiting(store, store.keys.revoke(key), 1)
        async with asyncio.timeout(PATIENCE):
            assert (await claim(store)).id == second
    assert await revoking
    assert (await status(store, first)).state is State.COMPLETED
    assert (await status(store, second)).cancel_requested


async def test_a_submit_that_waits_for_a_key_that_is_being_revoked_is_refused(store: Store) -> None:
    key = (await store.keys.create("key")).key.id
    waiting = await submit(store, key_id=key)
    async with locked(store, select(request.c.id).where(request.c.id == waiting)):
        revoking = await until_waiting(store, store.keys.revoke(key), 1)
        submitting = await until_waiting(store, submit(store, key_id=key), 2)
    assert await revoking
    with pytest.raises(KeyRevokedError):
        await submitting


async def test_a_revoked_key_and_the_end_of_its_request_do_not_wait_for_each_other(store: Store) -> None:
    key = (await store.keys.create("key")).key.id
    await submit(store, key_id=key)
    await store.queue.finish(await claim(store), Success({}))  # so that the key has a row of use
    lease, waiting = await leased(store, key), await submit(store, key_id=key)
    async with locked(store, select(usage.c.day).where(usage.c.key_id == key)):
        revoking = await until_waiting(store, store.keys.revoke(key), 1)
        finishing = await until_waiting(store, store.queue.finish(lease, Success({})), 2)
    async with asyncio.timeout(PATIENCE):
        assert await revoking
        await finishing
    assert (await status(store, waiting)).state is State.COMPLETED
    assert (await status(store, lease.id)).outcome == Success({})


async def leased(store: Store, key: str) -> Lease:
    await submit(store, key_id=key)
    return await claim(store)


async def test_a_request_that_returns_to_the_queue_is_cancelled_with_its_key(store: Store) -> None:
    key = (await store.keys.create("key")).key.id
    lease = await leased(store, key)
    async with locked(store, select(request.c.id).where(request.c.id == lease.id)):
        returning = await until_waiting(store, store.queue.hand_back(lease), 1)
        revoking = await until_waiting(store, store.keys.revoke(key), 2)
    async with asyncio.timeout(PATIENCE):
        await returning
        assert await revoking
    assert (await status(store, lease.id)).state is State.COMPLETED
