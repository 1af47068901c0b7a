"""What keys have used: counted with the outcome, kept when the requests are gone."""

from keyreel.fal.outcomes import CANCELLED, Failure, Success
from keyreel.store import Store
from keyreel.store.queue import RETRY_PAUSE
from keyreel.store.records import DAY, Content, DayOfUse, NewFile
from keyreel.store.transitions import LEASE
from tests.store.conftest import Clock
from tests.store.steps import claim, leased, submit

TODAY = int(Clock.start // DAY)
BROKEN = Failure("CUDA error", "runner_server_error")


async def used(store: Store, key_id: str = "key") -> DayOfUse:
    (day,) = await store.usage.days(TODAY, TODAY, key_id)
    return day


async def test_requests_are_counted_by_their_outcome(store: Store, clock: Clock) -> None:
    for outcome in (Success({}), Success({}), BROKEN, CANCELLED):
        await store.queue.finish(await leased(store), outcome)
    await store.queue.cancel(await submit(store))
    await submit(store, start_timeout=5)
    await clock.advance(5)
    await store.queue.reap()
    day = await used(store)
    assert (day.completed, day.failed, day.cancelled) == (2, 2, 2)
    assert (day.name, day.device_seconds, day.bytes) == (None, 0, 0)


async def test_a_repeated_finish_counts_once(store: Store) -> None:
    lease = await leased(store)
    for _ in range(2):
        await store.queue.finish(lease, Success({}))
    assert (await used(store)).completed == 1


async def test_the_time_on_the_device_counts_in_every_attempt(store: Store, clock: Clock) -> None:
    first = await leased(store)
    await clock.advance(3)  # waits for the device
    await store.queue.enter_device(first)
    await clock.advance(7)
    await store.queue.leave_device(first)
    await clock.advance(2)
    await store.queue.retry(first, BROKEN)
    await clock.advance(RETRY_PAUSE)
    second = await claim(store)
    await store.queue.enter_device(second)
    await clock.advance(10)
    await store.queue.heartbeat(second)  # the last sign of a worker that dies
    await clock.advance(LEASE)
    await store.queue.reap()
    third = await claim(store)
    await store.queue.enter_device(third)
    await clock.advance(5)
    await store.queue.leave_device(third)
    await store.queue.leave_device(third)
    await store.queue.finish(third, Success({}))
    assert (await used(store)).device_seconds == 7 + 10 + 5


async def test_a_worker_with_a_lost_lease_is_not_counted(store: Store, clock: Clock) -> None:
    late = await leased(store)
    await clock.advance(LEASE)
    await store.queue.reap()
    lease = await claim(store)
    await store.queue.enter_device(late)
    await clock.advance(4)
    await store.queue.leave_device(late)
    await store.queue.finish(lease, Success({}))
    assert (await used(store)).device_seconds == 0


async def test_uploads_and_videos_count_when_they_arrive(store: Store) -> None:
    new = NewFile(key_id="key", object="a", name="a.mp4", content_type="video/mp4")
    upload = await store.files.add(new, upload=True)
    await store.files.uploaded(upload, 10)
    await store.files.add(NewFile(key_id="key", object="b", name="b", content_type="image/png", size=5), upload=True)
    lease = await leased(store)
    video = await store.files.add(new)
    await store.queue.finish(lease, Success({}), Content(video.id, 100))
    assert (await used(store)).bytes == 115
    assert await store.usage.stored() == {"key": 115}
    await store.files.remove(upload.id)
    assert await store.usage.stored("key") == {"key": 105}
    assert await store.usage.stored("nobody") == {}
    assert (await used(store)).bytes == 115


async def test_each_day_and_key_has_a_row_that_outlives_the_requests(store: Store, clock: Clock) -> None:
    named = (await store.keys.create("studio")).key.id
    for key_id in ("key", named):
        await store.queue.finish(await leased(store, key_id=key_id, retention=1), Success({}))
    await clock.advance(DAY)
    await store.queue.finish(await leased(store), BROKEN)
    await store.queue.reap()
    assert len(await store.browse.requests(limit=9)) == 1
    rows = [(day.day - TODAY, day.key_id, day.name, day.completed) for day in await store.usage.days(0, TODAY + 9)]
    assert rows[0] == (1, "key", None, 0)
    assert sorted(rows[1:]) == sorted([(0, "key", None, 1), (0, named, "studio", 1)])
    assert await store.usage.days(TODAY + 1, TODAY + 1, named) == []
