"""The invariants of the queue, on each database. They involve queue, tables, deliveries and clock.

I1. A request moves only along the arrows of the state machine.
I2. Only the holder of the lease changes a request that is in progress.
I3. A request is completed once, with its outcome and its webhook delivery in one transaction.
I4. Every time comes from the database's clock.
I5. A call that has returned is committed.
I6. Every attempt gets the same input and seed, and the last checkpoint.
"""

import ast
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import func, insert, make_url, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

import keyreel.store
from keyreel.fal.outcomes import CANCELLED, Failure, Success
from keyreel.store import Store
from keyreel.store.records import Cancellation, Lease, LeaseLostError, LeaseStatus, State
from keyreel.store.tables import delivery, request
from keyreel.store.transitions import LEASE, complete
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

DONE = Success({"video": {"url": "https://example.com/video.mp4"}})
BROKEN = Failure("CUDA error", "internal_error")

Action = Callable[[Store, Lease], Awaitable[object]]
ACTIONS: dict[str, Action] = {
    "claim": lambda store, _: store.queue.claim("other"),
    "heartbeat": lambda store, lease: store.queue.heartbeat(lease),
    "checkpoint": lambda store, lease: store.queue.save_checkpoint(lease, "object"),
    "finish": lambda store, lease: store.queue.finish(lease, DONE),
    "retry": lambda store, lease: store.queue.retry(lease, BROKEN),
    "hand back": lambda store, lease: store.queue.hand_back(lease),
    "cancel": lambda store, lease: store.queue.cancel(lease.id),
    "reap": lambda store, _: store.queue.reap(),
    "release_worker": lambda store, _: store.queue.release_worker("worker"),
}
WAITING, RUNNING, COMPLETED = State.IN_QUEUE, State.IN_PROGRESS, State.COMPLETED
TRANSITIONS = {
    WAITING: {"claim": RUNNING, "cancel": COMPLETED},
    RUNNING: {"finish": COMPLETED, "retry": WAITING, "hand back": WAITING, "reap": WAITING, "release_worker": WAITING},
    COMPLETED: {},
}


async def in_state(store: Store, clock: Clock, state: State) -> Lease:
    """Brings a request into the state. Returns the lease of its last worker, which has expired."""
    lease = await leased(store)
    if state is COMPLETED:
        await store.queue.finish(lease, BROKEN)
    if state is WAITING:
        await store.queue.hand_back(lease)
    await clock.advance(LEASE)
    return lease


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", State)
async def test_i1_only_legal_transitions_happen(store: Store, clock: Clock, state: State, action: str) -> None:
    lease = await in_state(store, clock, state)
    try:
        await ACTIONS[action](store, lease)
    except LeaseLostError:
        assert state is not RUNNING
    assert (await status(store, lease.id)).state is TRANSITIONS[state].get(action, state)


@pytest.mark.parametrize("way", ["retry", "hand back", "reap"])
async def test_i1_a_request_returns_to_its_place_in_the_queue(store: Store, clock: Clock, way: str) -> None:
    first = await leased(store)
    second = await submit(store)
    await clock.advance(LEASE)
    await ACTIONS[way](store, first)
    assert [(r.id, r.position, r.attempt) for r in await live_requests(store)] == [(first.id, 0, 1), (second, 1, 0)]
    await clock.advance(LEASE)
    again = await claim(store)
    assert (again.id, again.attempt) == (first.id, 2)


@pytest.mark.parametrize(
    "values",
    [
        {"state": "FAILED"},
        {"state": "IN_PROGRESS"},
        {"state": "COMPLETED"},
        {"state": "COMPLETED", "finished": 1.0},
        {"state": "COMPLETED", "finished": 1.0, "result": {}, "error": "both"},
        {"result": {}},
        {"lease_until": 1.0},
    ],
    ids=str,
)
async def test_i1_the_database_refuses_inconsistent_rows(store: Store, values: dict[str, object]) -> None:
    await submit(store)
    with pytest.raises(IntegrityError):
        async with store.database.write() as connection:
            await connection.execute(update(request).values(**values))


@pytest.mark.parametrize("action", ["checkpoint", "finish", "retry", "hand back"])
async def test_i2_a_worker_with_an_expired_lease_changes_nothing(store: Store, clock: Clock, action: str) -> None:
    expired, lease = await leased_twice(store, clock)
    before = await status(store, expired.id)
    with pytest.raises(LeaseLostError, match=f"Attempt 1 at request {expired.id}"):
        await ACTIONS[action](store, expired)
    assert await status(store, expired.id) == before
    assert await store.queue.heartbeat(lease) is LeaseStatus.CONTINUE


async def test_i2_the_next_heartbeat_tells_a_worker_that_its_lease_is_lost(store: Store, clock: Clock) -> None:
    expired, _ = await leased_twice(store, clock)
    before = await status(store, expired.id)
    assert await store.queue.heartbeat(expired, {"done": 30}) is LeaseStatus.LOST
    assert await status(store, expired.id) == before


async def test_i2_an_expired_lease_can_be_renewed_until_it_is_taken_back(store: Store, clock: Clock) -> None:
    lease = await leased(store)
    await clock.advance(LEASE + 1)
    assert await store.queue.heartbeat(lease) is LeaseStatus.CONTINUE
    assert (await store.queue.reap()).released == 0


async def test_i2_each_request_is_claimed_by_one_worker(store: Store) -> None:
    submitted = {await submit(store) for _ in range(20)}
    claimed: list[str] = []

    async def work(name: str) -> None:
        while lease := await store.queue.claim(name):
            claimed.append(lease.id)
            await store.queue.finish(lease, DONE)

    await asyncio.gather(*(work(f"worker {n}") for n in range(6)))
    assert len(claimed) == 20
    assert set(claimed) == submitted


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(5))
async def test_i3_concurrent_completions_complete_a_request_once(store: Store, clock: Clock, round_: int) -> None:
    lease = await leased(store, webhook_url=WEBHOOK, retry=False)
    await clock.advance(LEASE)
    racers = [
        store.queue.finish(lease, DONE),
        store.queue.finish(lease, BROKEN),
        store.queue.retry(lease, BROKEN),
        store.queue.cancel(lease.id),
        store.queue.reap(),
    ]
    racers = racers[round_:] + racers[:round_]
    for answer in await asyncio.gather(*racers, return_exceptions=True):
        assert not isinstance(answer, Exception) or isinstance(answer, LeaseLostError)
    ended = await status(store, lease.id)
    assert ended.state is COMPLETED
    assert await deliveries(store, lease.id) == 1
    assert await store.queue.cancel(lease.id) is Cancellation.ALREADY_COMPLETED
    await store.queue.reap()
    assert await status(store, lease.id) == ended


@pytest.mark.parametrize("way", ["finish", "fail", "retry", "cancel", "cancel running", "reap", "start timeout"])
@pytest.mark.parametrize("webhook", [WEBHOOK, None])
async def test_i3_every_completion_adds_a_delivery(store: Store, clock: Clock, way: str, webhook: str | None) -> None:
    request_id = await submit(store, webhook_url=webhook, retry=False, start_timeout=LEASE)
    if way not in ("cancel", "start timeout"):
        lease = await claim(store)
    match way:
        case "finish":
            await store.queue.finish(lease, DONE)
        case "fail":
            await store.queue.finish(lease, BROKEN)
        case "retry":
            await store.queue.retry(lease, BROKEN)
        case "cancel":
            await store.queue.cancel(request_id)
        case "cancel running":
            await store.queue.cancel(request_id)
            await store.queue.finish(lease, CANCELLED)
        case _:
            await clock.advance(LEASE)
            await store.queue.reap()
    ended = await status(store, request_id)
    assert ended.state is COMPLETED
    assert ended.outcome is not None
    assert await deliveries(store, request_id) == (webhook is not None)


async def test_i3_the_outcome_is_rolled_back_if_the_delivery_cannot_be_added(store: Store) -> None:
    lease = await leased(store, webhook_url=WEBHOOK)
    async with store.database.write() as connection:  # makes the second write of `finish` fail
        values = {"request_id": lease.id, "state": "PENDING", "attempt": 0, "due": 0.0}
        await connection.execute(insert(delivery).values(values))
    with pytest.raises(IntegrityError):
        await store.queue.finish(lease, DONE)
    left = await status(store, lease.id)
    assert (left.state, left.outcome, left.finished) == (RUNNING, None, None)


async def test_i3_a_completed_request_is_not_completed_again(store: Store) -> None:
    """Not even if a caller of `complete` has not checked the state before."""
    lease = await leased(store, webhook_url=WEBHOOK)
    await store.queue.finish(lease, DONE)
    async with store.database.write() as connection:
        assert await complete(connection, store.database.now, request.c.id == lease.id, CANCELLED) == []
    assert (await status(store, lease.id)).outcome == DONE


async def test_i3_finish_can_be_repeated_with_the_same_outcome(store: Store) -> None:
    lease = await leased(store, webhook_url=WEBHOOK)
    await store.queue.finish(lease, DONE)
    await store.queue.finish(lease, DONE)
    assert await deliveries(store, lease.id) == 1
    with pytest.raises(LeaseLostError):
        await store.queue.finish(lease, Success({}))


async def test_i4_times_come_from_the_databases_clock(store: Store, clock: Clock) -> None:
    lease = await leased(store, start_timeout=5.0, retention=10.0)
    await clock.advance(3)
    await store.queue.heartbeat(lease)
    await store.queue.finish(lease, DONE)
    ended = await status(store, lease.id)
    assert (ended.created, ended.started, ended.finished) == (Clock.start, Clock.start, Clock.start + 3)
    await clock.advance(9)
    assert (await store.queue.reap()).deleted == 0
    await clock.advance(1)
    assert (await store.queue.reap()).deleted == 1


def test_i4_no_module_of_the_store_reads_a_clock() -> None:
    package = Path(keyreel.store.__file__).parent
    for module in package.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"time", "datetime"} & set(names), module


async def test_i5_a_submitted_request_is_committed(store: Store, url: str) -> None:
    address = make_url(url)
    driver = "sqlite+aiosqlite" if address.get_backend_name() == "sqlite" else "postgresql+asyncpg"
    other_engine = create_async_engine(address.set(drivername=driver))
    async with other_engine.connect() as connection:
        for expected in range(1, 4):
            await store.queue.submit(new_request())
            assert (await connection.execute(select(func.count()).select_from(request))).scalar_one() == expected
            await connection.rollback()
    await other_engine.dispose()


async def test_i6_every_attempt_gets_the_same_request_and_the_last_checkpoint(store: Store, clock: Clock) -> None:
    given = {"prompt": "a cat \ud83d\0 \u732b", "strength": 0.1 + 0.2, "loras": [{"scale": 1e-9}], "nothing": None}
    first = await leased(store, input=given, seed=-(2**63))
    assert (first.input, first.seed, first.checkpoint) == (given, -(2**63), None)
    await store.queue.save_checkpoint(first, "checkpoint 1")
    await clock.advance(LEASE)
    await store.queue.reap()
    second = await claim(store)
    with pytest.raises(LeaseLostError):
        await store.queue.save_checkpoint(first, "checkpoint of an expired lease")
    await store.queue.hand_back(second)
    third = await claim(store)
    for later in (second, third):
        assert (later.input, later.seed, later.checkpoint) == (given, -(2**63), "checkpoint 1")
    assert (first.attempt, second.attempt, third.attempt) == (1, 2, 3)
