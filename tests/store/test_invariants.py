"""The promises of the queue, one by one, on each database."""

import ast
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import func, insert, make_url, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

import keyreel.store
from keyreel.store import Store, open_store
from keyreel.store.clock import DatabaseTime
from keyreel.store.queue import LEASE
from keyreel.store.records import CANCELLED, Cancellation, Failure, Lease, LeaseLostError, Standing, State, Success
from keyreel.store.tables import delivery, request
from tests.store.conftest import Clock
from tests.store.steps import WEBHOOK, claim, deliveries, new_request, overtaken, running, status, submit

DONE = Success({"video": {"url": "https://example.com/video.mp4"}})
BROKEN = Failure("CUDA error", "internal_error")

Action = Callable[[Store, Lease], Awaitable[object]]
ACTIONS: dict[str, Action] = {
    "claim": lambda store, _: store.queue.claim("other"),
    "beat": lambda store, lease: store.queue.beat(lease),
    "checkpoint": lambda store, lease: store.queue.save_checkpoint(lease, "object"),
    "finish": lambda store, lease: store.queue.finish(lease, DONE),
    "retry": lambda store, lease: store.queue.retry(lease, BROKEN),
    "hand back": lambda store, lease: store.queue.hand_back(lease),
    "cancel": lambda store, lease: store.queue.cancel(lease.id),
    "reap": lambda store, _: store.queue.reap(),
    "disown": lambda store, _: store.queue.disown("worker"),
}
WAITING, RUNNING, COMPLETED = State.IN_QUEUE, State.IN_PROGRESS, State.COMPLETED
TRANSITIONS = {
    WAITING: {"claim": RUNNING, "cancel": COMPLETED},
    RUNNING: {"finish": COMPLETED, "retry": WAITING, "hand back": WAITING, "reap": WAITING, "disown": WAITING},
    COMPLETED: {},
}


async def in_state(store: Store, clock: Clock, state: State) -> Lease:
    """A request in that state, and the lease of its last worker, which has expired."""
    lease = await running(store)
    if state is COMPLETED:
        await store.queue.finish(lease, BROKEN)
    if state is WAITING:
        await store.queue.hand_back(lease)
    await clock.advance(LEASE)
    return lease


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", State)
async def test_i1_only_legal_transitions(store: Store, clock: Clock, state: State, action: str) -> None:
    lease = await in_state(store, clock, state)
    try:
        await ACTIONS[action](store, lease)
    except LeaseLostError:
        assert state is not RUNNING
    assert (await status(store, lease.id)).state is TRANSITIONS[state].get(action, state)


@pytest.mark.parametrize("way", ["retry", "hand back", "reap"])
async def test_i1_back_in_the_queue_a_request_keeps_its_place_and_its_attempt(
    store: Store, clock: Clock, way: str
) -> None:
    first = await running(store)
    second = await submit(store)
    await clock.advance(LEASE)
    await ACTIONS[way](store, first)
    assert [(r.id, r.position, r.attempt) for r in await store.requests.live()] == [(first.id, 0, 1), (second, 1, 0)]
    await clock.advance(LEASE)
    again = await claim(store)
    assert (again.id, again.attempt) == (first.id, 2)


@pytest.mark.parametrize(
    "nonsense",
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
async def test_i1_the_database_takes_no_half_state(store: Store, nonsense: dict[str, object]) -> None:
    await submit(store)
    with pytest.raises(IntegrityError):
        async with store.database.write() as connection:
            await connection.execute(update(request).values(**nonsense))


@pytest.mark.parametrize("action", ["checkpoint", "finish", "retry", "hand back"])
async def test_i2_a_late_worker_changes_nothing(store: Store, clock: Clock, action: str) -> None:
    late, holder = await overtaken(store, clock)
    before = await status(store, late.id)
    with pytest.raises(LeaseLostError, match=f"Attempt 1 at request {late.id}"):
        await ACTIONS[action](store, late)
    assert await status(store, late.id) == before
    assert await store.queue.beat(holder) is Standing.CONTINUE


async def test_i2_a_late_worker_learns_it_at_the_next_beat(store: Store, clock: Clock) -> None:
    late, _ = await overtaken(store, clock)
    before = await status(store, late.id)
    assert await store.queue.beat(late, {"done": 30}) is Standing.LOST
    assert await status(store, late.id) == before


async def test_i2_an_expired_lease_that_nobody_took_back_can_be_renewed(store: Store, clock: Clock) -> None:
    lease = await running(store)
    await clock.advance(LEASE + 1)
    assert await store.queue.beat(lease) is Standing.CONTINUE
    assert (await store.queue.reap()).released == 0


async def test_i2_a_request_is_given_to_one_of_many(store: Store) -> None:
    submitted = {await submit(store) for _ in range(20)}
    claimed: list[str] = []

    async def work(name: str) -> None:
        while lease := await store.queue.claim(name):
            claimed.append(lease.id)
            await store.queue.finish(lease, DONE)

    await asyncio.gather(*(work(f"worker {n}") for n in range(6)))
    assert len(claimed) == 20
    assert set(claimed) == submitted


@pytest.mark.parametrize("round_", range(5))
async def test_i3_completed_once_whoever_comes_first(store: Store, clock: Clock, round_: int) -> None:
    lease = await running(store, webhook_url=WEBHOOK, retry=False)
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
async def test_i3_every_end_writes_the_delivery(store: Store, clock: Clock, way: str, webhook: str | None) -> None:
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


async def test_i3_no_outcome_without_its_delivery(store: Store) -> None:
    lease = await running(store, webhook_url=WEBHOOK)
    async with store.database.write() as connection:  # stands for a write that fails half-way
        values = {"request_id": lease.id, "state": "PENDING", "attempt": 0, "due": 0.0}
        await connection.execute(insert(delivery).values(values))
    with pytest.raises(IntegrityError):
        await store.queue.finish(lease, DONE)
    left = await status(store, lease.id)
    assert (left.state, left.outcome, left.finished) == (RUNNING, None, None)


async def test_i3_the_one_function_completes_what_is_not_completed(store: Store) -> None:
    """Its callers look first. It does not rely on that."""
    lease = await running(store, webhook_url=WEBHOOK)
    await store.queue.finish(lease, DONE)
    async with store.database.write() as connection:
        assert await store.queue._complete(connection, request.c.id == lease.id, CANCELLED) == []
    assert (await status(store, lease.id)).outcome == DONE


async def test_i3_a_worker_that_asks_again_is_told_the_same(store: Store) -> None:
    lease = await running(store, webhook_url=WEBHOOK)
    await store.queue.finish(lease, DONE)
    await store.queue.finish(lease, DONE)
    assert await deliveries(store, lease.id) == 1
    with pytest.raises(LeaseLostError):
        await store.queue.finish(lease, Success({}))


async def test_i4_every_time_is_the_databases(store: Store, clock: Clock) -> None:
    lease = await running(store, start_timeout=5.0, retention=10.0)
    await clock.advance(3)
    await store.queue.beat(lease)
    await store.queue.finish(lease, DONE)
    ended = await status(store, lease.id)
    assert (ended.created, ended.started, ended.finished) == (Clock.start, Clock.start, Clock.start + 3)
    await clock.advance(9)
    assert (await store.queue.reap()).deleted == 0
    await clock.advance(1)
    assert (await store.queue.reap()).deleted == 1


async def test_i4_the_databases_clock_is_right(url: str) -> None:
    async with open_store(url) as store, store.database.read() as connection:
        before = time.time()
        now = (await connection.execute(select(DatabaseTime()))).scalar_one()
        # Both databases run on this machine; SQLite counts milliseconds.
        assert before - 0.01 <= now <= time.time() + 0.01


def test_i4_no_module_of_the_store_reads_a_clock() -> None:
    package = Path(keyreel.store.__file__).parent
    for module in package.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"time", "datetime"} & set(names), module


async def test_i5_answered_means_committed(store: Store, url: str) -> None:
    address = make_url(url)
    driver = "sqlite+aiosqlite" if address.get_backend_name() == "sqlite" else "postgresql+asyncpg"
    stranger = create_async_engine(address.set(drivername=driver))
    async with stranger.connect() as connection:
        for expected in range(1, 4):
            await store.queue.submit(new_request())
            assert (await connection.execute(select(func.count()).select_from(request))).scalar_one() == expected
            await connection.rollback()
    await stranger.dispose()


async def test_i6_every_attempt_gets_the_same_request_and_the_last_checkpoint(store: Store, clock: Clock) -> None:
    given = {"prompt": "a cat \ud83d\0 \u732b", "strength": 0.1 + 0.2, "loras": [{"scale": 1e-9}], "nothing": None}
    first = await running(store, input=given, seed=-(2**63))
    assert (first.input, first.seed, first.checkpoint) == (given, -(2**63), None)
    await store.queue.save_checkpoint(first, "checkpoint 1")
    await clock.advance(LEASE)
    await store.queue.reap()
    second = await claim(store)
    with pytest.raises(LeaseLostError):
        await store.queue.save_checkpoint(first, "checkpoint of a late worker")
    await store.queue.hand_back(second)
    third = await claim(store)
    for later in (second, third):
        assert (later.input, later.seed, later.checkpoint) == (given, -(2**63), "checkpoint 1")
    assert (first.attempt, second.attempt, third.attempt) == (1, 2, 3)
