"""The request state machine, statement by statement."""

import asyncio
from dataclasses import replace

import pytest

from keyreel.store import Store
from keyreel.store.queue import LEASE, MAX_FAILURES, RETRY_PAUSE
from keyreel.store.records import (
    CANCELLED,
    START_TIMEOUT,
    WORKER_LOST,
    Cancellation,
    Failure,
    Idempotency,
    IdempotencyError,
    KeyLimitError,
    LeaseLostError,
    Level,
    LogLine,
    Priority,
    QueueFullError,
    Reaped,
    Standing,
    State,
    Success,
)
from tests.store.conftest import Clock
from tests.store.steps import WEBHOOK, claim, deliveries, new_request, overtaken, running, status, submit

BROKEN = Failure("CUDA error", "internal_error")
ONCE = Idempotency("once", "digest")


async def test_requests_go_in_the_order_in_which_they_came(store: Store) -> None:
    submitted = [await submit(store) for _ in range(3)]
    assert [(await claim(store)).id for _ in range(3)] == submitted
    assert await store.queue.claim("worker") is None


async def test_low_priority_goes_last(store: Store) -> None:
    low, normal = await submit(store, priority=Priority.LOW), await submit(store)
    assert [(await claim(store)).id for _ in range(2)] == [normal, low]


async def test_a_worker_takes_from_its_pool_only(store: Store) -> None:
    await submit(store, pool="large")
    assert await store.queue.claim("worker") is None
    assert await store.queue.claim("worker", "large") is not None


async def test_submit_tells_the_position(store: Store) -> None:
    await submit(store, priority=Priority.LOW)
    await submit(store, pool="large")
    assert (await store.queue.submit(new_request())).position == 0
    assert (await store.queue.submit(new_request(priority=Priority.LOW))).position == 2


async def test_the_same_submit_is_the_same_request(store: Store) -> None:
    first = await store.queue.submit(new_request(idempotency=ONCE))
    again = await store.queue.submit(new_request(idempotency=ONCE, seed=8))
    assert (again.id, again.replayed) == (first.id, True)
    lease = await claim(store)
    assert lease.seed == 7
    await store.queue.finish(lease, Success({}))
    assert (await store.queue.submit(new_request(idempotency=ONCE))).id == first.id


async def test_the_same_submit_at_the_same_time_is_one_request(store: Store) -> None:
    answers = await asyncio.gather(*(store.queue.submit(new_request(idempotency=ONCE)) for _ in range(8)))
    assert len({answer.id for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7
    assert len(await store.requests.live()) == 1


async def test_an_idempotency_key_names_one_body(store: Store) -> None:
    await submit(store, idempotency=ONCE)
    with pytest.raises(IdempotencyError, match="'once'"):
        await submit(store, idempotency=replace(ONCE, digest="another"))


async def test_idempotency_keys_are_each_callers_own(store: Store) -> None:
    mine = await submit(store, idempotency=ONCE)
    assert await submit(store, idempotency=ONCE, key_id="somebody else") != mine


async def test_a_full_queue_refuses(store: Store) -> None:
    for _ in range(2):
        await submit(store, max_queue_length=1)
    with pytest.raises(QueueFullError, match="2 requests are waiting") as refused:
        await submit(store, max_queue_length=1)
    assert (refused.value.waiting, refused.value.limit) == (2, 1)
    await submit(store, max_queue_length=1, pool="large")
    await claim(store)
    await submit(store, max_queue_length=1)


async def test_a_key_has_only_so_many_requests_under_way(store: Store) -> None:
    first = await submit(store, max_of_key=2)
    await submit(store, max_of_key=2)
    await claim(store)
    with pytest.raises(KeyLimitError, match="no more than 2 requests"):
        await submit(store, max_of_key=2)
    await submit(store, max_of_key=2, key_id="somebody else")
    await store.queue.cancel(first)
    with pytest.raises(KeyLimitError):
        await submit(store, max_of_key=2)


async def test_a_replay_is_not_refused_by_a_full_queue(store: Store) -> None:
    first = await submit(store, idempotency=ONCE)
    await submit(store)
    assert await submit(store, idempotency=ONCE, max_queue_length=0) == first


async def test_not_started_in_time(store: Store, clock: Clock) -> None:
    request_id = await submit(store, start_timeout=10)
    await clock.advance(10)
    assert await store.queue.claim("worker") is None
    assert await store.queue.reap() == Reaped(released=0, timed_out=1, deleted=0)
    assert (await status(store, request_id)).outcome == START_TIMEOUT


async def test_once_started_a_request_has_no_start_timeout(store: Store, clock: Clock) -> None:
    lease = await running(store, start_timeout=10)
    await store.queue.hand_back(lease)
    await clock.advance(10)
    assert (await store.queue.reap()).timed_out == 0
    assert (await claim(store)).id == lease.id


async def test_a_beat_renews_the_lease(store: Store, clock: Clock) -> None:
    lease = await running(store)
    for _ in range(3):
        await clock.advance(LEASE - 1)
        assert await store.queue.beat(lease) is Standing.CONTINUE
        assert (await store.queue.reap()).released == 0


async def test_a_beat_writes_what_happened(store: Store, clock: Clock) -> None:
    lease = await running(store)
    await clock.advance(10)
    await store.queue.beat(lease, {"done": 1}, [LogLine("loading", age=1.5), LogLine("odd", Level.WARN)])
    await store.queue.beat(lease)
    seen = await status(store, lease.id)
    assert (seen.progress, seen.log_lines) == ({"done": 1}, 2)
    first, second = await store.requests.log(lease.id)
    assert (first.message, first.level, first.time, first.attempt) == ("loading", Level.INFO, Clock.start + 8.5, 1)
    assert (second.message, second.level, second.time) == ("odd", Level.WARN, Clock.start + 10)
    assert await store.requests.log(lease.id, after=first.number) == [second]


async def test_text_that_no_database_takes_is_cleaned(store: Store) -> None:
    lease = await running(store, input={"prompt": "\0"})
    await store.queue.beat(lease, {"stage": "\0"}, [LogLine("nul \0, half a pair \ud83d")])
    await store.queue.finish(lease, Failure("\0", "internal_error", ["\0"]))
    assert [line.message for line in await store.requests.log(lease.id)] == ["nul ?, half a pair ?"]
    assert (await status(store, lease.id)).outcome == Failure("?", "internal_error", ["\0"])
    assert await store.requests.status("\0\ud83d") is None


async def test_a_machines_failure_is_retried_after_a_pause(store: Store, clock: Clock) -> None:
    request_id = await submit(store)
    for failures in range(MAX_FAILURES - 1):
        await store.queue.retry(await claim(store), BROKEN)
        assert await store.queue.claim("worker") is None
        await clock.advance(RETRY_PAUSE * 2**failures)
    await store.queue.retry(await claim(store), BROKEN)
    ended = await status(store, request_id)
    assert (ended.outcome, ended.attempt) == (BROKEN, MAX_FAILURES)


async def test_a_requests_own_failure_is_final(store: Store) -> None:
    lease = await running(store)
    failure = Failure("Unprocessable", "file_download_error", [{"loc": ["body", "images", 0], "msg": "gone"}])
    await store.queue.finish(lease, failure)
    ended = await status(store, lease.id)
    assert (ended.state, ended.outcome, ended.attempt) == (State.COMPLETED, failure, 1)


async def test_who_wants_no_retry_gets_none(store: Store) -> None:
    lease = await running(store, retry=False)
    await store.queue.retry(lease, BROKEN)
    assert (await status(store, lease.id)).outcome == BROKEN


async def test_handing_back_costs_nothing(store: Store) -> None:
    request_id = await submit(store)
    for _ in range(MAX_FAILURES + 1):
        await store.queue.hand_back(await claim(store))
    waiting = await status(store, request_id)
    assert (waiting.state, waiting.attempt) == (State.IN_QUEUE, MAX_FAILURES + 1)


async def test_workers_that_vanish_three_times_end_it(store: Store, clock: Clock) -> None:
    request_id = await submit(store)
    for _ in range(MAX_FAILURES):
        await claim(store)
        await clock.advance(LEASE)
        assert (await store.queue.reap()).released == 1
    assert (await status(store, request_id)).outcome == WORKER_LOST


async def test_a_worker_that_starts_anew_takes_back_what_it_held(store: Store) -> None:
    lease = await running(store)
    await submit(store)
    others = await claim(store, "other")
    for _ in range(MAX_FAILURES - 1):
        assert await store.queue.disown("worker") == 1
        assert (await claim(store, "worker")).id == lease.id
    # A request that ends its worker each time does not do so for ever.
    assert await store.queue.disown("worker") == 1
    assert (await status(store, lease.id)).outcome == WORKER_LOST
    assert await store.queue.beat(others) is Standing.CONTINUE


async def test_cancel_while_waiting(store: Store) -> None:
    request_id = await submit(store)
    assert await store.queue.cancel(request_id) is Cancellation.REMOVED
    assert (await status(store, request_id)).outcome == CANCELLED
    assert await store.queue.claim("worker") is None
    assert await store.queue.cancel(request_id) is Cancellation.ALREADY_COMPLETED


async def test_cancel_while_running_reaches_that_worker_only(store: Store) -> None:
    lease, other = await running(store), await running(store)
    assert await store.queue.cancel(lease.id) is Cancellation.REQUESTED
    assert await store.queue.cancel(lease.id) is Cancellation.REQUESTED
    assert await store.queue.beat(lease) is Standing.CANCELLED
    assert await store.queue.beat(other) is Standing.CONTINUE
    await store.queue.finish(lease, CANCELLED)
    assert (await status(store, lease.id)).outcome == CANCELLED


async def test_a_result_that_was_ready_first_beats_the_cancel(store: Store) -> None:
    lease = await running(store)
    await store.queue.cancel(lease.id)
    await store.queue.finish(lease, Success({"ok": True}))
    assert (await status(store, lease.id)).outcome == Success({"ok": True})


@pytest.mark.parametrize("way", ["retry", "hand back", "reap"])
async def test_what_was_cancelled_does_not_run_again(store: Store, clock: Clock, way: str) -> None:
    lease = await running(store, webhook_url=WEBHOOK)
    await store.queue.cancel(lease.id)
    match way:
        case "retry":
            await store.queue.retry(lease, BROKEN)
        case "hand back":
            await store.queue.hand_back(lease)
        case "reap":
            await clock.advance(LEASE)
            await store.queue.reap()
    assert (await status(store, lease.id)).outcome == CANCELLED
    assert await deliveries(store, lease.id) == 1


async def test_cancel_of_nothing(store: Store) -> None:
    assert await store.queue.cancel("no such request") is Cancellation.UNKNOWN


async def test_a_request_is_forgotten_when_its_time_is_over(store: Store, clock: Clock) -> None:
    lease = await running(store, retention=60)
    await store.queue.beat(lease, lines=[LogLine("a line")])
    await store.queue.finish(lease, Success({}))
    await clock.advance(60)
    assert await store.queue.reap() == Reaped(released=0, timed_out=0, deleted=1)
    assert await store.requests.status(lease.id) is None
    assert await store.requests.log(lease.id) == []
    with pytest.raises(LeaseLostError):
        await store.queue.finish(lease, Success({}))


async def test_a_live_request_is_never_forgotten(store: Store, clock: Clock) -> None:
    await submit(store, retention=0)
    await clock.advance(1e6)
    assert (await store.queue.reap()).deleted == 0


async def test_an_outcome_waits_for_its_delivery(store: Store, clock: Clock) -> None:
    lease = await running(store, webhook_url=WEBHOOK, retention=60)
    await store.queue.finish(lease, Success({}))
    await clock.advance(60)
    assert (await store.queue.reap()).deleted == 0
    [due] = await store.deliveries.claim()
    await store.deliveries.delivered(due)
    assert (await store.queue.reap()).deleted == 1


async def test_one_reaper_is_as_good_as_many(store: Store, clock: Clock) -> None:
    for _ in range(5):
        await running(store)
    await clock.advance(LEASE)
    reaped = await asyncio.gather(*(store.queue.reap() for _ in range(4)))
    # A row that another reaper has locked is skipped: nobody counts one twice.
    assert sum(each.released for each in reaped) == 5
    assert all(request.attempt == 1 for request in await store.requests.live())


async def test_every_change_wakes_whoever_waits(store: Store) -> None:
    request_id = await submit(store)
    for change in (submit(store), claim(store), store.queue.cancel(request_id)):
        changed = store.database.changed
        assert not changed.is_set()
        await change
        assert changed.is_set()


async def test_looking_wakes_nobody(store: Store) -> None:
    """Two workers with nothing to do would wake each other for ever."""
    changed = store.database.changed
    assert await store.queue.claim("worker") is None
    await store.queue.reap()
    await store.deliveries.claim()
    await store.requests.live()
    assert not changed.is_set()


async def test_the_new_holder_is_not_hurt_by_a_late_one(store: Store, clock: Clock) -> None:
    late, holder = await overtaken(store, clock)
    with pytest.raises(LeaseLostError):
        await store.queue.finish(late, Success({"attempt": 1}))
    await store.queue.finish(holder, Success({"attempt": 2}))
    assert (await status(store, late.id)).outcome == Success({"attempt": 2})
