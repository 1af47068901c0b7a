import asyncio
from dataclasses import replace

import pytest

from keyreel.fal.outcomes import CANCELLED, START_TIMEOUT, WORKER_LOST, Failure, Success
from keyreel.store import Store
from keyreel.store.queue import RETRY_PAUSE, WAITING
from keyreel.store.records import (
    Cancellation,
    Idempotency,
    IdempotencyError,
    LeaseLostError,
    LeaseStatus,
    Level,
    LogLine,
    Priority,
    QueueFullError,
    Reaped,
    State,
)
from keyreel.store.submission import MAX_FAILURES
from keyreel.store.transitions import LEASE
from tests.store.conftest import Clock
from tests.store.steps import (
    WEBHOOK,
    claim,
    deliveries,
    leased,
    leased_twice,
    live_requests,
    new_request,
    status,
    submit,
)

BROKEN = Failure("CUDA error", "internal_error")
IDEMPOTENCY = Idempotency("once", "digest")


async def test_requests_are_claimed_in_the_order_of_their_submits(store: Store) -> None:
    submitted = [await submit(store) for _ in range(3)]
    assert [(await claim(store)).id for _ in range(3)] == submitted
    assert await store.queue.claim("worker") is None


async def test_requests_of_low_priority_are_claimed_last(store: Store) -> None:
    low, normal = await submit(store, priority=Priority.LOW), await submit(store)
    assert [(await claim(store)).id for _ in range(2)] == [normal, low]


async def test_a_worker_claims_only_from_its_pool(store: Store) -> None:
    await submit(store, pool="large")
    assert await store.queue.claim("worker") is None
    assert await store.queue.claim("worker", "large") is not None


async def test_submit_returns_the_position(store: Store) -> None:
    await submit(store, priority=Priority.LOW)
    await submit(store, pool="large")
    assert (await store.queue.submit(new_request())).position == 0
    assert (await store.queue.submit(new_request(priority=Priority.LOW))).position == 2


async def test_a_repeated_submit_returns_the_first_request(store: Store) -> None:
    first = await store.queue.submit(new_request(idempotency=IDEMPOTENCY))
    again = await store.queue.submit(new_request(idempotency=IDEMPOTENCY, seed=8))
    assert (again.id, again.replayed) == (first.id, True)
    lease = await claim(store)
    assert lease.seed == 7
    await store.queue.finish(lease, Success({}))
    assert (await store.queue.submit(new_request(idempotency=IDEMPOTENCY))).id == first.id


async def test_concurrent_repeated_submits_queue_one_request(store: Store) -> None:
    answers = await asyncio.gather(*(store.queue.submit(new_request(idempotency=IDEMPOTENCY)) for _ in range(8)))
    assert len({answer.id for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7
    assert len(await live_requests(store)) == 1


async def test_an_idempotency_key_cannot_be_used_for_another_request(store: Store) -> None:
    await submit(store, idempotency=IDEMPOTENCY)
    with pytest.raises(IdempotencyError, match="'once'"):
        await submit(store, idempotency=replace(IDEMPOTENCY, digest="another"))


async def test_two_api_keys_can_use_the_same_idempotency_key(store: Store) -> None:
    mine = await submit(store, idempotency=IDEMPOTENCY)
    assert await submit(store, idempotency=IDEMPOTENCY, key_id="another key") != mine


async def test_a_full_queue_refuses_requests(store: Store) -> None:
    for _ in range(2):
        await submit(store, max_queue_length=1)
    with pytest.raises(QueueFullError, match="2 requests are waiting") as refused:
        await submit(store, max_queue_length=1)
    assert (refused.value.waiting, refused.value.limit) == (2, 1)
    await submit(store, max_queue_length=1, pool="large")
    await claim(store)
    await submit(store, max_queue_length=1)


async def test_a_full_queue_does_not_refuse_a_repeated_submit(store: Store) -> None:
    first = await submit(store, idempotency=IDEMPOTENCY)
    await submit(store)
    assert await submit(store, idempotency=IDEMPOTENCY, max_queue_length=0) == first


async def test_a_request_that_does_not_start_in_time_fails(store: Store, clock: Clock) -> None:
    request_id = await submit(store, start_timeout=10)
    await clock.advance(10)
    assert await store.queue.claim("worker") is None
    assert await store.queue.reap() == Reaped(released=0, timed_out=1, deleted=0)
    assert (await status(store, request_id)).outcome == START_TIMEOUT


async def test_a_request_that_only_waits_for_a_busy_device_has_not_started(store: Store, clock: Clock) -> None:
    prepared, waiting = await leased(store, start_timeout=10), await leased(store, start_timeout=10)
    await store.queue.heartbeat(prepared, {"stage": "inputs"})
    await store.queue.heartbeat(waiting, {"stage": WAITING})
    await clock.advance(10)
    assert await store.queue.reap() == Reaped(released=0, timed_out=1, deleted=0)
    assert (await status(store, waiting.id)).outcome == START_TIMEOUT
    assert await store.queue.heartbeat(waiting) is LeaseStatus.LOST
    assert await store.queue.enter_device(prepared)
    assert (await status(store, prepared.id)).state is State.IN_PROGRESS


async def test_a_request_on_the_device_has_no_start_timeout(store: Store, clock: Clock) -> None:
    lease = await leased(store, start_timeout=10)
    await store.queue.heartbeat(lease, {"stage": WAITING})
    await store.queue.enter_device(lease)
    await store.queue.leave_device(lease)
    await clock.advance(10)
    assert (await store.queue.reap()).timed_out == 0


async def test_a_started_request_has_no_start_timeout(store: Store, clock: Clock) -> None:
    lease = await leased(store, start_timeout=10)
    await store.queue.hand_back(lease)
    await clock.advance(10)
    assert (await store.queue.reap()).timed_out == 0
    assert (await claim(store)).id == lease.id


async def test_a_heartbeat_renews_the_lease(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    for _ in range(3):
        await clock.advance(LEASE - 1)
        assert await store.queue.heartbeat(lease) is LeaseStatus.CONTINUE
        assert (await store.queue.reap()).released == 0


async def test_a_heartbeat_records_progress_and_log_lines(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    await clock.advance(10)
    await store.queue.heartbeat(lease, {"done": 1}, [LogLine("loading", age=1.5), LogLine("odd", Level.WARN)])
    await store.queue.heartbeat(lease)
    seen = await status(store, lease.id)
    assert (seen.progress, seen.log_lines) == ({"done": 1}, 2)
    first, second = await store.requests.log(lease.id)
    assert (first.message, first.level, first.time, first.attempt) == ("loading", Level.INFO, Clock.start + 8.5, 1)
    assert (second.message, second.level, second.time) == ("odd", Level.WARN, Clock.start + 10)
    assert await store.requests.log(lease.id, after=first.number) == [second]


async def test_characters_that_databases_refuse_are_replaced(store: Store) -> None:
    lease = await leased(store, input={"prompt": "\0"})
    await store.queue.heartbeat(lease, {"stage": "\0"}, [LogLine("nul \0, half a pair \ud83d")])
    await store.queue.finish(lease, Failure("\0", "internal_error", ["\0"]))
    assert [line.message for line in await store.requests.log(lease.id)] == ["nul ?, half a pair ?"]
    assert (await status(store, lease.id)).outcome == Failure("?", "internal_error", ["\0"])
    assert await store.requests.status("\0\ud83d") is None


async def test_a_failed_attempt_is_retried_after_a_growing_pause(store: Store, clock: Clock) -> None:
    request_id = await submit(store)
    for failures in range(MAX_FAILURES - 1):
        await store.queue.retry(await claim(store), BROKEN)
        assert await store.queue.claim("worker") is None
        await clock.advance(RETRY_PAUSE * 2**failures)
    await store.queue.retry(await claim(store), BROKEN)
    ended = await status(store, request_id)
    assert (ended.outcome, ended.attempt) == (BROKEN, MAX_FAILURES)


async def test_a_failure_that_is_the_requests_fault_is_final(store: Store) -> None:
    lease = await leased(store)
    failure = Failure("Unprocessable", "file_download_error", [{"loc": ["body", "images", 0], "msg": "gone"}])
    await store.queue.finish(lease, failure)
    ended = await status(store, lease.id)
    assert (ended.state, ended.outcome, ended.attempt) == (State.COMPLETED, failure, 1)


async def test_a_request_without_retry_has_one_attempt(store: Store) -> None:
    lease = await leased(store, retry=False)
    await store.queue.retry(lease, BROKEN)
    assert (await status(store, lease.id)).outcome == BROKEN


async def test_handing_back_does_not_count_as_a_failure(store: Store) -> None:
    request_id = await submit(store)
    for _ in range(MAX_FAILURES + 1):
        await store.queue.hand_back(await claim(store))
    waiting = await status(store, request_id)
    assert (waiting.state, waiting.attempt) == (State.IN_QUEUE, MAX_FAILURES + 1)


async def test_a_request_whose_workers_vanish_three_times_fails(store: Store, clock: Clock) -> None:
    request_id = await submit(store)
    for _ in range(MAX_FAILURES):
        await claim(store)
        await clock.advance(LEASE)
        assert (await store.queue.reap()).released == 1
    assert (await status(store, request_id)).outcome == WORKER_LOST


async def test_an_idle_worker_takes_over_a_request_that_waits_for_a_busy_device(store: Store) -> None:
    waiting = await leased(store)
    assert await store.queue.take_over("idle") is None, "its inputs are still being fetched"
    await store.queue.heartbeat(waiting, {"stage": WAITING})
    assert await store.queue.take_over("worker") is None, "it waits for this worker's own device"
    assert await store.queue.has_work(besides="worker") is False
    assert await store.queue.take_over("idle", "large") is None
    assert await store.queue.has_work(besides="idle")
    taken = await store.queue.take_over("idle")
    assert taken is not None
    assert (taken.id, taken.attempt) == (waiting.id, 2)
    assert await store.queue.heartbeat(waiting) is LeaseStatus.LOST
    assert not await store.queue.enter_device(waiting)
    assert await store.queue.take_over("third") is None, "the new attempt does not wait"
    assert await store.queue.enter_device(taken)


async def test_a_request_on_a_device_or_cancelled_is_not_taken_over(store: Store) -> None:
    running, cancelled = await leased(store), await leased(store)
    for lease in (running, cancelled):
        await store.queue.heartbeat(lease, {"stage": WAITING})
    await store.queue.enter_device(running)
    await store.queue.cancel(cancelled.id)
    assert await store.queue.take_over("idle") is None


async def test_a_restarted_worker_releases_the_requests_that_it_held(store: Store) -> None:
    lease = await leased(store)
    await submit(store)
    others = await claim(store, "other")
    for _ in range(MAX_FAILURES - 1):
        assert await store.queue.release_worker("worker") == 1
        assert (await claim(store, "worker")).id == lease.id
    # A request that crashes its worker each time fails in the end.
    assert await store.queue.release_worker("worker") == 1
    assert (await status(store, lease.id)).outcome == WORKER_LOST
    assert await store.queue.heartbeat(others) is LeaseStatus.CONTINUE


async def test_cancel_completes_a_waiting_request(store: Store) -> None:
    request_id = await submit(store)
    assert await store.queue.cancel(request_id) is Cancellation.REMOVED
    assert (await status(store, request_id)).outcome == CANCELLED
    assert await store.queue.claim("worker") is None
    assert await store.queue.cancel(request_id) is Cancellation.ALREADY_COMPLETED


async def test_only_the_worker_of_a_cancelled_request_learns_of_the_cancel(store: Store) -> None:
    lease, other = await leased(store), await leased(store)
    assert await store.queue.cancel(lease.id) is Cancellation.REQUESTED
    assert await store.queue.cancel(lease.id) is Cancellation.REQUESTED
    assert await store.queue.heartbeat(lease) is LeaseStatus.CANCELLED
    assert await store.queue.heartbeat(other) is LeaseStatus.CONTINUE
    await store.queue.finish(lease, CANCELLED)
    assert (await status(store, lease.id)).outcome == CANCELLED


async def test_a_result_that_arrives_after_a_cancel_is_kept(store: Store) -> None:
    lease = await leased(store)
    await store.queue.cancel(lease.id)
    await store.queue.finish(lease, Success({"ok": True}))
    assert (await status(store, lease.id)).outcome == Success({"ok": True})


@pytest.mark.parametrize("way", ["retry", "hand back", "reap"])
async def test_a_cancelled_request_does_not_return_to_the_queue(store: Store, clock: Clock, way: str) -> None:
    lease = await leased(store, webhook_url=WEBHOOK)
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


async def test_cancel_of_an_unknown_request(store: Store) -> None:
    assert await store.queue.cancel("no such request") is Cancellation.UNKNOWN


async def test_a_request_is_deleted_after_its_retention(store: Store, clock: Clock) -> None:
    lease = await leased(store, retention=60)
    await store.queue.heartbeat(lease, lines=[LogLine("a line")])
    await store.queue.finish(lease, Success({}))
    await clock.advance(60)
    assert await store.queue.reap() == Reaped(released=0, timed_out=0, deleted=1)
    assert await store.requests.status(lease.id) is None
    assert await store.requests.log(lease.id) == []
    with pytest.raises(LeaseLostError):
        await store.queue.finish(lease, Success({}))


async def test_a_live_request_is_never_deleted(store: Store, clock: Clock) -> None:
    await submit(store, retention=0)
    await clock.advance(1e6)
    assert (await store.queue.reap()).deleted == 0


async def test_a_request_is_not_deleted_before_its_delivery(store: Store, clock: Clock) -> None:
    lease = await leased(store, webhook_url=WEBHOOK, retention=60)
    await store.queue.finish(lease, Success({}))
    await clock.advance(60)
    assert (await store.queue.reap()).deleted == 0
    [due] = await store.deliveries.claim()
    await store.deliveries.delivered(due)
    assert (await store.queue.reap()).deleted == 1


async def test_concurrent_reapers_release_each_request_once(store: Store, clock: Clock) -> None:
    for _ in range(5):
        await leased(store)
    await clock.advance(LEASE)
    reaped = await asyncio.gather(*(store.queue.reap() for _ in range(4)))
    # A reaper skips rows that another has locked, so no request is counted twice.
    assert sum(each.released for each in reaped) == 5
    assert all(request.attempt == 1 for request in await live_requests(store))


async def test_every_change_is_announced(store: Store) -> None:
    request_id = await submit(store)
    for change in (submit(store), claim(store), store.queue.cancel(request_id)):
        changed = store.database.changes.any
        assert not changed.is_set()
        await change
        assert changed.is_set()


async def test_reads_are_not_announced(store: Store) -> None:
    """Otherwise two idle workers would wake each other endlessly."""
    changed = store.database.changes.any
    assert await store.queue.claim("worker") is None
    await store.queue.reap()
    await store.deliveries.claim()
    await store.requests.queue()
    await store.requests.running()
    assert not changed.is_set()


async def test_a_worker_with_an_expired_lease_does_not_disturb_the_new_one(store: Store, clock: Clock) -> None:
    expired, lease = await leased_twice(store, clock)
    with pytest.raises(LeaseLostError):
        await store.queue.finish(expired, Success({"attempt": 1}))
    await store.queue.finish(lease, Success({"attempt": 2}))
    assert (await status(store, expired.id)).outcome == Success({"attempt": 2})


async def test_a_claim_can_be_limited_to_a_priority(store: Store) -> None:
    await submit(store, priority=Priority.LOW)
    assert not await store.queue.has_work(at_least=Priority.NORMAL)
    assert await store.queue.claim("worker", at_least=Priority.NORMAL) is None
    normal = await submit(store)
    assert await store.queue.has_work(at_least=Priority.NORMAL)
    lease = await store.queue.claim("worker", at_least=Priority.NORMAL)
    assert lease
    assert (lease.id, lease.priority) == (normal, Priority.NORMAL)
    assert (await claim(store)).priority == Priority.LOW
