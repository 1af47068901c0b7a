"""The limits of keys: what a key may have waiting, running, in a minute and in storage."""

import pytest
from sqlalchemy import select

from keyreel.fal.outcomes import Success
from keyreel.store import Store, open_store
from keyreel.store.limits import stored_bytes
from keyreel.store.records import (
    DAY,
    Content,
    KeyLimitError,
    Limits,
    NewFile,
    Quota,
    StorageLimitError,
    UploadTooLargeError,
)
from tests.store.conftest import Clock, wipe
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


async def test_a_key_has_a_limit_of_bytes_uploaded_in_a_day(store: Store, clock: Clock) -> None:
    key_id = await limited(store, max_upload_bytes=100)
    file = await store.files.add(video(key_id, 60), upload=True)
    await store.files.remove(file.id)  # deleting makes room, but what was sent was sent
    pending = await store.files.add(video(key_id), upload=True)
    refused = (
        store.files.add(video(key_id, 41), upload=True),
        store.files.check(pending, 41),
        store.files.uploaded(pending, 41),
    )
    tomorrow = DAY - Clock.start % DAY
    for call in refused:
        with pytest.raises(KeyLimitError, match="upload no more than 100 bytes a day") as caught:
            await call
        assert caught.value.retry_after == pytest.approx(tomorrow)
    await store.files.check(pending, 40)
    await store.files.uploaded(pending, 40)
    with pytest.raises(KeyLimitError):
        await store.files.add(video(key_id), upload=True)
    await submit(store, key_id=key_id)
    await clock.advance(tomorrow)
    await store.files.add(video(key_id, 100), upload=True)


async def test_an_upload_larger_than_a_days_is_refused_for_good(store: Store) -> None:
    key_id = await limited(store, max_upload_bytes=100)
    with pytest.raises(UploadTooLargeError, match="no more than 100 bytes a day, and the file has 101"):
        await store.files.add(video(key_id, 101), upload=True)


async def test_videos_do_not_count_as_uploads(store: Store) -> None:
    key_id = await limited(store, max_upload_bytes=100)
    await submit(store, key_id=key_id)
    lease, file = await claim(store), await store.files.add(video(key_id))
    await store.queue.finish(lease, Success({}), Content(file.id, 5000))
    await store.files.add(video(key_id, 100), upload=True)


async def test_users_have_the_default_limits_unless_they_have_their_own(new_url: str) -> None:
    defaults = Limits(max_queued=1, max_running=1)
    async with open_store(new_url, Clock.now, defaults) as store:
        await wipe(store.database)
        plain, generous = await limited(store), await limited(store, max_queued=5, max_running=2)
        admin = (await store.keys.create("admin", admin=True)).key.id
        for key_id in (plain, generous, admin, "without a row"):
            await submit(store, key_id=key_id)
            if key_id == plain:
                with pytest.raises(KeyLimitError, match="no more than 1 requests waiting"):
                    await submit(store, key_id=key_id)
            else:
                await submit(store, key_id=key_id)
        claimed = [(await claim(store)).key_id for _ in range(7)]
        assert sorted(claimed) == sorted([plain, *2 * [generous, admin, "without a row"]])
        await submit(store, key_id=plain)
        await submit(store, key_id=admin)
        assert (await claim(store)).key_id == admin
        assert await store.queue.claim("worker") is None


async def test_quotas_tell_what_is_used(new_url: str) -> None:
    async with open_store(new_url, Clock.now, Limits(max_queued=7, max_per_minute=60)) as store:
        await wipe(store.database)
        clock = Clock(store.database)
        key_id, other = await limited(store, max_per_minute=4), await limited(store)
        for _ in range(3):
            await submit(store, key_id=key_id)
        await claim(store)
        await store.files.add(video(key_id, 60), upload=True)
        await store.files.add(video(key_id, 5))
        expected = {
            "max_requests": Quota(None, 3),
            "max_queued": Quota(7, 2),
            "max_running": Quota(None, 1),
            "max_per_minute": Quota(4, 3),
            "max_bytes": Quota(None, 65),
            "max_upload_bytes": Quota(None, 60),
        }
        assert await store.quotas.of(key_id) == {key_id: expected}
        await clock.advance(30)
        everyones = await store.quotas.of()
        assert everyones[key_id]["max_per_minute"] == Quota(4, 1)
        assert everyones[other] == {name: Quota(quota.limit, 0) for name, quota in expected.items()} | {
            "max_per_minute": Quota(60, 0)
        }
        await store.keys.revoke(other)
        assert (await store.quotas.of()).keys() == {key_id}
