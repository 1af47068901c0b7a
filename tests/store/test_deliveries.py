import asyncio

from sqlalchemy import select

from keyreel.fal.outcomes import CANCELLED, Success
from keyreel.store import Store
from keyreel.store.deliveries import FIRST_PAUSE, LEASE, RETRIES
from keyreel.store.records import Delivery
from keyreel.store.tables import delivery
from tests.store.conftest import Clock
from tests.store.steps import WEBHOOK, leased, submit


async def claimed_delivery(store: Store) -> Delivery:
    """Returns the claimed delivery of a new request that has succeeded."""
    lease = await leased(store, webhook_url=WEBHOOK)
    await store.queue.finish(lease, Success({"seed": 7}))
    [claimed] = await store.deliveries.claim()
    return claimed


async def state(store: Store) -> tuple[str, str | None]:
    async with store.database.read() as connection:
        row = (await connection.execute(select(delivery.c.state, delivery.c.error))).one()
    return row.state, row.error


async def test_a_delivery_contains_url_key_and_outcome(store: Store) -> None:
    claimed = await claimed_delivery(store)
    assert (claimed.url, claimed.key_id, claimed.outcome) == (WEBHOOK, "key", Success({"seed": 7}))
    assert claimed.attempt == 1
    assert await store.deliveries.pending() == 1


async def test_a_delivery_is_due_until_it_is_claimed_and_again_for_a_retry(store: Store, clock: Clock) -> None:
    assert not await store.deliveries.has_due()
    await store.queue.finish(await leased(store, webhook_url=WEBHOOK), Success({"seed": 7}))
    assert await store.deliveries.has_due()
    [claimed] = await store.deliveries.claim()
    await store.deliveries.failed(claimed, "It is down.")
    assert not await store.deliveries.has_due()
    await clock.advance(FIRST_PAUSE)
    assert await store.deliveries.has_due()


async def test_a_cancelled_request_has_a_delivery(store: Store) -> None:
    await store.queue.cancel(await submit(store, webhook_url=WEBHOOK))
    [claimed] = await store.deliveries.claim()
    assert claimed.outcome == CANCELLED


async def test_a_delivered_call_is_not_repeated(store: Store, clock: Clock) -> None:
    await store.deliveries.delivered(await claimed_delivery(store))
    await clock.advance(1e6)
    assert await store.deliveries.claim() == []
    assert await store.deliveries.pending() == 0
    assert await state(store) == ("DELIVERED", None)


async def test_a_claimed_delivery_cannot_be_claimed_again(store: Store) -> None:
    await claimed_delivery(store)
    assert await store.deliveries.claim() == []


async def test_concurrent_claims_never_return_the_same_delivery(store: Store) -> None:
    submitted = [await submit(store, webhook_url=WEBHOOK) for _ in range(12)]
    for request_id in submitted:
        await store.queue.cancel(request_id)
    claims = await asyncio.gather(*(store.deliveries.claim(3) for _ in range(8)))
    taken = [each.request_id for claimed in claims for each in claimed]
    assert sorted(taken) == sorted(submitted)


async def test_a_delivery_without_a_result_is_due_again_after_its_lease(store: Store, clock: Clock) -> None:
    lost = await claimed_delivery(store)
    await clock.advance(LEASE)
    [again] = await store.deliveries.claim()
    assert (again.id, again.attempt) == (lost.id, 2)


async def test_the_result_of_an_expired_claim_is_ignored(store: Store, clock: Clock) -> None:
    slow = await claimed_delivery(store)
    await clock.advance(LEASE)
    await store.deliveries.claim()
    await store.deliveries.failed(slow, "timed out", permanent=True)
    assert await state(store) == ("PENDING", None)


async def test_ten_retries_within_two_hours(store: Store, clock: Clock) -> None:
    claimed = await claimed_delivery(store)
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


async def test_a_permanent_failure_is_not_retried(store: Store, clock: Clock) -> None:
    await store.deliveries.failed(await claimed_delivery(store), "302", permanent=True)
    await clock.advance(1e6)
    assert await store.deliveries.claim() == []
    assert await state(store) == ("FAILED", "302")
