from dataclasses import replace

from keyreel.fal.outcomes import Success
from keyreel.store import Store
from keyreel.store.records import Depth, Idempotency, Priority, State
from tests.store.conftest import Clock
from tests.store.steps import claim, leased, live_requests, status, submit


async def test_the_status_shows_position_times_and_outcome(store: Store, clock: Clock) -> None:
    request_id = await submit(store)
    waiting = await status(store, request_id)
    assert (waiting.state, waiting.position, waiting.started, waiting.key_id) == (State.IN_QUEUE, 0, None, "key")
    await clock.advance(1)
    lease = await claim(store)
    runs = await status(store, request_id)
    assert (runs.state, runs.position, runs.started) == (State.IN_PROGRESS, None, Clock.start + 1)
    await clock.advance(1)
    await store.queue.finish(lease, Success({"seed": 7}))
    ended = await status(store, request_id)
    assert (ended.state, ended.finished, ended.outcome) == (State.COMPLETED, Clock.start + 2, Success({"seed": 7}))


async def test_an_unknown_request_has_no_status_and_no_log(store: Store) -> None:
    assert await store.requests.status("no such request") is None
    assert await store.requests.log("no such request") == []


async def test_a_forgotten_request_is_gone_before_its_row_is_deleted(store: Store) -> None:
    request_id = await submit(store, idempotency=Idempotency("order 7", "a"))
    await store.queue.finish(await claim(store), Success({}))
    assert await store.queue.forget(request_id)
    assert await store.requests.status(request_id) is None
    assert await submit(store, idempotency=Idempotency("order 7", "b")) != request_id


async def test_what_runs_and_what_waits_is_listed(store: Store) -> None:
    running = await leased(store)
    await store.queue.finish(await leased(store), Success({}))
    for pool, priority in [("default", Priority.LOW), ("large", Priority.NORMAL), ("default", Priority.NORMAL)] * 3:
        await submit(store, pool=pool, priority=priority)
    assert await store.requests.running() == [await status(store, running.id)]
    queue, waiting = await store.requests.queue(), (await live_requests(store))[1:]
    assert queue == {each.id: (each.position, 0) for each in waiting}
    assert [queue[each.id].position for each in waiting if each.pool == "default"] == [0, 1, 2, 3, 4, 5]
    assert [queue[each.id].position for each in waiting if each.pool == "large"] == [0, 1, 2]


async def test_depths_count_requests_by_pool_and_state(store: Store, clock: Clock) -> None:
    assert await store.requests.depths() == []
    await leased(store)
    await clock.advance(5)
    await submit(store)
    await submit(store, pool="large")
    await clock.advance(1)
    await submit(store)
    assert await store.requests.depths() == [
        Depth("default", State.IN_PROGRESS, requests=1, oldest=6.0),
        Depth("default", State.IN_QUEUE, requests=2, oldest=1.0),
        Depth("large", State.IN_QUEUE, requests=1, oldest=1.0),
    ]


async def test_statuses_of_several_requests_are_read_at_once(store: Store) -> None:
    finished, waiting = await leased(store), await submit(store)
    await store.queue.finish(finished, Success({"a": 1}))
    found = await store.requests.statuses([finished.id, waiting, "nobody"])
    assert found == {
        finished.id: await status(store, finished.id),
        waiting: replace(await status(store, waiting), position=None),
    }
    assert await store.requests.statuses([]) == {}


async def test_any_number_of_statuses_can_be_read(store: Store) -> None:
    """20,000 clients may ask at the same time. PostgreSQL does not take so many values in one statement."""
    first, last = await submit(store), await submit(store)
    unknown = [f"{number:036}" for number in range(20_000)]
    assert (await store.requests.statuses([first, *unknown, last])).keys() == {first, last}
