"""Files that came as data URIs are deleted with the last request that uses them."""

import pytest

from keyreel.fal.outcomes import Success
from keyreel.store import Store
from keyreel.store.records import DAY, File, NewFile
from tests.store.conftest import Clock
from tests.store.steps import leased


async def add(store: Store, key_id: str = "key", name: str = "in/1") -> File:
    new = NewFile(key_id=key_id, object=name, name="a.png", content_type="image/png", size=3, lifetime=30 * DAY)
    return await store.files.add(new)


async def done(store: Store, *files: File, key_id: str = "key", retention: float = DAY) -> str:
    """Returns the id of a completed request that uses the files."""
    lease = await leased(store, files=tuple(file.id for file in files), key_id=key_id, retention=retention)
    await store.queue.finish(lease, Success({}))
    return lease.id


async def exists(store: Store, file: File) -> bool:
    return await store.files.get(file.id) is not None


async def test_a_deleted_request_takes_its_inputs_along(store: Store) -> None:
    first, second, other = [await add(store) for _ in range(3)]
    request = await done(store, first, second)
    await done(store, other)
    assert await store.queue.forget(request)
    assert [await exists(store, file) for file in (first, second, other)] == [False, False, True]
    assert {file.id for file in await store.files.expired()} == {first.id, second.id}


async def test_an_expired_request_takes_its_inputs_along(store: Store, clock: Clock) -> None:
    file = await add(store)
    await done(store, file, retention=100)
    await clock.advance(99)
    await store.queue.reap()
    assert await exists(store, file)
    await clock.advance(1)
    assert (await store.queue.reap()).deleted == 1
    assert not await exists(store, file)


@pytest.mark.parametrize("is_completed", [True, False])
async def test_an_input_stays_while_another_request_uses_it(store: Store, clock: Clock, is_completed: bool) -> None:
    file = await add(store)
    request = await done(store, file)
    lease = await leased(store, files=(file.id,))
    if is_completed:
        await store.queue.finish(lease, Success({}))
    await store.queue.forget(request)
    await clock.advance(1)
    await store.queue.reap()
    assert await exists(store, file)
    if not is_completed:
        await store.queue.finish(lease, Success({}))
    await store.queue.forget(lease.id)
    assert not await exists(store, file)


async def test_another_keys_request_does_not_keep_an_input(store: Store) -> None:
    file = await add(store)
    request = await done(store, file)
    await leased(store, files=(file.id,), key_id="another")
    await store.queue.forget(request)
    assert not await exists(store, file)


async def test_another_keys_request_does_not_delete_an_input(store: Store) -> None:
    file = await add(store)
    await store.queue.forget(await done(store, file, key_id="another"))
    assert await exists(store, file)


async def test_uploads_stay(store: Store) -> None:
    file = await add(store, name="uploads/1")
    await store.queue.forget(await done(store, file))
    assert await exists(store, file)
