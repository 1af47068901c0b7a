"""The limits of keys: what a key may have waiting, running, in a minute and in storage."""

import pytest
from sqlalchemy import select

from keyreel.fal.outcomes import Success
from keyreel.store import Store
from keyreel.store.limits import stored_bytes
from keyreel.store.records import Content, KeyLimitError, Limits, NewFile, StorageLimitError
from tests.store.conftest import Clock
from tests.store.steps import claim, new_request, submit


async def limited(store: Store, **limits: int) -> str:
    """Returns the id of a key with limits."""
    return (await store.keys.create("limited", limits=Limits(**limits))).key.id


def video(key_id: str, size: int | None = None) -> NewFile:
    return NewFile(key_id=key_id, object="out/1", name="1.mp4", content_type="video/mp4", size=size)


async def test_a_key_has_a_limit_of_live_requests(store: Store) -> None:
    key_id = await limited(store, max_requests=2)
    first = await submit(store, key_id=key_id)
    await submit(store, key_id=key_id)
    await claim(store)
    with pytest.raises(KeyLimitError, match=r"no more than 2 requests waiting or running\. Try again later\."):
        await submit(store, key_id=key_id)
    await submit(store, key_id="another key")
    await store.queue.cancel(first)
    with pytest.raises(KeyLimitError):
        await submit(store, key_id=key_id)


async def test_a_key_has_a_limit_of_waiting_requests(store: Store) -> None:
    key_id = await limited(store, max_queued=1)
    await submit(store, key_id=key_id)
    with pytest.raises(KeyLimitError, match="no more than 1 requests waiting"):
        await submit(store, key_id=key_id)
    await claim(store)
    await submit(store, key_id=key_id)


async def test_a_key_at_its_limit_of_running_requests_waits_and_holds_up_nobody(store: Store) -> None:
    key_id = await limited(store, max_running=1)
    for _ in range(3):
        await submit(store, key_id=key_id)
    other = await submit(store, key_id="other")
    first = await claim(store)
    assert (await claim(store)).id == other
    assert not await store.queue.has_work()
    assert await store.queue.claim("worker") is None
    ready = store.database.changes.any
    await store.queue.finish(first, Success({}))
    assert ready.is_set()
    assert await store.queue.has_work()
    assert (await claim(store)).key_id == key_id
    assert await store.queue.claim("worker") is None


async def test_a_key_has_a_limit_of_requests_in_a_minute(store: Store, clock: Clock) -> None:
    key_id = await limited(store, max_per_minute=3)
    for _ in range(3):
        await store.queue.cancel(await submit(store, key_id=key_id))
    with pytest.raises(KeyLimitError, match=r"no more than 3 requests a minute\. Try again in 20 s\.") as refused:
        await submit(store, key_id=key_id)
    assert refused.value.retry_after == pytest.approx(20)
    await clock.advance(5)
    with pytest.raises(KeyLimitError, match="in 15 s"):
        await submit(store, key_id=key_id)
    await clock.advance(15)
    await submit(store, key_id=key_id)
    with pytest.raises(KeyLimitError):
        await submit(store, key_id=key_id)
    await clock.advance(600)
    for _ in range(3):
        await submit(store, key_id=key_id)
    with pytest.raises(KeyLimitError):
        await submit(store, key_id=key_id)


async def test_a_refused_submit_takes_nothing_from_the_rate(store: Store) -> None:
    key_id = await limited(store, max_requests=1, max_per_minute=2)
    first = await submit(store, key_id=key_id)
    for _ in range(5):
        with pytest.raises(KeyLimitError, match="waiting or running"):
            await submit(store, key_id=key_id)
    await store.queue.cancel(first)
    await submit(store, key_id=key_id)


async def test_a_full_key_can_neither_upload_nor_submit(store: Store) -> None:
    key_id = await limited(store, max_bytes=100)
    file = await store.files.add(video(key_id, 60), upload=True)
    with pytest.raises(StorageLimitError, match="may store 100 bytes and stores 60; the new file has 41"):
        await store.files.add(video(key_id, 41), upload=True)
    await submit(store, key_id=key_id)
    await store.files.add(video(key_id, 40), upload=True)
    for refused in (store.queue.submit(new_request(key_id=key_id)), store.files.add(video(key_id), upload=True)):
        with pytest.raises(StorageLimitError, match=r"stores 100\. Delete requests"):
            await refused
    await store.files.remove(file.id)
    await submit(store, key_id=key_id)


async def test_an_upload_that_turns_out_too_large_is_refused(store: Store) -> None:
    key_id = await limited(store, max_bytes=100)
    file = await store.files.add(video(key_id), upload=True)
    with pytest.raises(StorageLimitError):
        await store.files.uploaded(file, 101)
    for size in (90, 100):  # the content is replaced, not added
        await store.files.uploaded(file, size)


async def test_a_finished_video_is_stored_although_its_key_is_full(store: Store) -> None:
    key_id = await limited(store, max_bytes=100)
    await submit(store, key_id=key_id)
    lease = await claim(store)
    await store.files.add(video(key_id, 100), upload=True)
    file = await store.files.add(video(key_id))
    await store.queue.finish(lease, Success({}), Content(file.id, 50))
    async with store.database.read() as connection:
        assert await connection.scalar(select(stored_bytes(key_id).scalar_subquery())) == 150


async def test_new_limits_hold_at_once(store: Store) -> None:
    key_id = await limited(store, max_running=1)
    for _ in range(2):
        await submit(store, key_id=key_id)
    await claim(store)
    assert not await store.queue.has_work()
    changed = store.database.changes.any
    assert await store.keys.set_limits(key_id, Limits(max_queued=1))
    assert changed.is_set()
    assert await store.queue.has_work()
    with pytest.raises(KeyLimitError):
        await submit(store, key_id=key_id)
    [key] = await store.keys.list()
    assert key.limits == Limits(max_queued=1)
    assert not await store.keys.set_limits("nobody", Limits())
