import pytest

from keyreel.fal.outcomes import Failure, Success
from keyreel.store import Store
from keyreel.store.files import PENDING
from keyreel.store.records import Content, File, NewFile
from tests.store.conftest import Clock
from tests.store.steps import claim, leased, status


async def add(store: Store, lifetime: float | None = None, size: int | None = 3) -> File:
    acl = {"default": "allow", "rules": []}
    new = NewFile(
        key_id="key", object="in/1", name="a.png", content_type="image/png", acl=acl, size=size, lifetime=lifetime
    )
    return await store.files.add(new)


async def test_get_returns_the_file_that_was_added(store: Store) -> None:
    added = await add(store)
    assert (added.object, added.created, added.expires_at, added.size) == ("in/1", Clock.start, None, 3)
    assert added.acl == {"default": "allow", "rules": []}
    assert await store.files.get(added.id) == added
    assert await store.files.get("no such file") is None


async def test_an_expired_file_is_hidden_until_it_is_removed(store: Store, clock: Clock) -> None:
    later, sooner, _ = await add(store, lifetime=20), await add(store, lifetime=10), await add(store)
    assert await store.files.expired() == []
    await clock.advance(10)
    assert await store.files.get(sooner.id) is None
    assert await store.files.get(later.id) == later
    await clock.advance(10)
    assert await store.files.expired() == [sooner, later]
    assert await store.files.expired(limit=1) == [sooner]
    await store.files.remove(sooner.id)
    assert await store.files.expired() == [later]


async def test_the_lifetime_begins_when_the_content_arrives(store: Store, clock: Clock) -> None:
    unlimited, limited = await add(store, size=None), await add(store, size=None, lifetime=10)
    await clock.advance(100)
    for file in (unlimited, limited):
        await store.files.uploaded(file, 2**40)
    unlimited_file, limited_file = await store.files.get(unlimited.id), await store.files.get(limited.id)
    assert unlimited_file is not None
    assert (unlimited_file.size, unlimited_file.expires_at) == (2**40, None)
    assert limited_file is not None
    assert limited_file.expires_at == Clock.start + 110


async def test_a_file_whose_content_never_arrives_expires(store: Store, clock: Clock) -> None:
    file = await add(store, size=None)
    await clock.advance(PENDING - 1)
    assert await store.files.get(file.id) == file
    await clock.advance(1)
    assert await store.files.expired() == [file]


async def test_the_video_of_a_finished_request_does_not_expire(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    video, orphan = await add(store, size=None), await add(store, size=None)
    await store.queue.finish(lease, Success({}), Content(video.id, 5))
    await clock.advance(PENDING)
    assert [file.id for file in await store.files.expired()] == [orphan.id]
    kept = await store.files.get(video.id)
    assert kept is not None
    assert kept.size == 5


async def test_a_checkpoint_lives_until_the_next_one_or_the_end_of_the_request(store: Store) -> None:
    first, second = await add(store, size=None), await add(store, size=None)
    lease = await leased(store)
    for _ in range(2):
        await store.queue.save_checkpoint(lease, first.id)
    await store.queue.hand_back(lease)
    assert await store.files.get(first.id), "recording a checkpoint again does not end it"
    lease = await claim(store)
    assert lease.checkpoint == first.id
    await store.queue.save_checkpoint(lease, second.id)
    assert [file.id for file in await store.files.expired()] == [first.id]
    await store.queue.finish(lease, Success({}))
    assert {file.id for file in await store.files.expired()} == {first.id, second.id}


@pytest.mark.parametrize("end", ["failures", "cancel", "cancel while waiting"])
async def test_every_end_of_a_request_ends_its_checkpoint(store: Store, end: str) -> None:
    file = await add(store, size=None)
    lease = await leased(store, retry=False)
    await store.queue.save_checkpoint(lease, file.id)
    match end:
        case "failures":
            await store.queue.retry(lease, Failure("CUDA error", "internal_error"))
        case "cancel":
            await store.queue.cancel(lease.id)
            await store.queue.hand_back(lease)
        case "cancel while waiting":
            await store.queue.hand_back(lease)
            await store.queue.cancel(lease.id)
    assert (await status(store, lease.id)).outcome
    assert [expired.id for expired in await store.files.expired()] == [file.id]
