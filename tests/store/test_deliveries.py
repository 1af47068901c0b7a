"""The webhook outbox."""

import asyncio

from sqlalchemy import select

from keyreel.store import Store
from keyreel.store.deliveries import FIRST_PAUSE, LEASE, RETRIES
from keyreel.store.records import CANCELLED, Delivery, Success
from keyreel.store.tables import delivery
from tests.store.conftest import Clock
from tests.store.steps import WEBHOOK, running, submit


async def due(store: Store) -> Delivery:
    """A delivery that is claimed."""
    lease = await running(store, webhook_url=WEBHOOK)
    await store.queue.finish(lease, Success({"seed": 7}))
    [claimed] = await store.deliveries.claim()
    return claimed


async def state(store: Store) -> tuple[str, str | None]:
    async with store.database.read() as connection:
        row = (await connection.execute(select(delivery.c.state, delivery.c.error))).one()
    return row.state, row.error


async def test_a_delivery_carries_what_the_webhook_gets(store: Store) -> None:
    claimed = await due(store)
    assert (claimed.url, claimed.key_id, claimed.outcome) == (WEBHOOK, "key", Success({"seed": 7}))
    assert claimed.attempt == 1
    assert await store.deliveries.pending() == 1


async def test_a_cancelled_request_is_delivered_too(store: Store) -> None:
    await store.queue.cancel(await submit(store, webhook_url=WEBHOOK))
    [claimed] = await store.deliveries.claim()
    assert claimed.outcome == CANCELLED


async def test_delivered_is_delivered(store: Store, clock: Clock) -> None:
    await store.deliveries.delivered(await due(store))
    await clock.advance(1e6)
    assert await store.deliveries.claim() == []
    assert await store.deliveries.pending() == 0
    assert await state(store) == ("DELIVERED", None)


async def test_nobody_else_delivers_what_is_being_delivered(store: Store) -> None:
    await due(store)
    assert await store.deliveries.claim() == []


async def test_each_delivery_goes_to_one_of_many(store: Store) -> None:
    submitted = [await submit(store, webhook_url=WEBHOOK) for _ in range(12)]
    for request_id in submitted:
        await store.queue.cancel(request_id)
    claims = await asyncio.gather(*(store.deliveries.claim(3) for _ in range(8)))
    taken = [each.request_id for claimed in claims for each in claimed]
    assert sorted(taken) == sorted(submitted)


async def test_a_delivery_of_which_nothing_is_heard_is_made_again(store: Store, clock: Clock) -> None:
    lost = await due(store)
    await clock.advance(LEASE)
    [again] = await store.deliveries.claim()
    assert (again.id, again.attempt) == (lost.id, 2)


async def test_a_slow_one_does_not_speak_for_the_next(store: Store, clock: Clock) -> None:
    slow = await due(store)
    await clock.advance(LEASE)
    await store.deliveries.claim()
    await store.deliveries.failed(slow, "timed out", permanent=True)
    assert await state(store) == ("PENDING", None)


async def test_ten_retries_within_two_hours(store: Store, clock: Clock) -> None:
    claimed = await due(store)
    passed = 0.0
    for retry in range(RETRIES):
        await store.deliveries.failed(claimed, "503")
        pause = FIRST_PAUSE * 2**retry
        await clock.advance(pause - 1)
        assert await store.deliveries.claim() == []
        await clock.advance(1)
        [claimed] = await store.deliveries.claim()
        passed += pause
    assert passed <= 2 * 3600
    await store.deliveries.failed(claimed, "503 again")
    assert await state(store) == ("FAILED", "503 again")
    assert await store.deliveries.pending() == 0


async def test_what_cannot_work_is_not_tried_again(store: Store, clock: Clock) -> None:
    await store.deliveries.failed(await due(store), "302", permanent=True)
    await clock.advance(1e6)
    assert await store.deliveries.claim() == []
    assert await state(store) == ("FAILED", "302")
