"""Steps with which most tests of the store begin."""

from typing import Any

from sqlalchemy import func, select

from keyreel.store import Store
from keyreel.store.records import Lease, NewRequest, Status
from keyreel.store.tables import delivery
from keyreel.store.transitions import LEASE
from tests.store.conftest import Clock

WEBHOOK = "https://example.com/hook"


def new_request(**changes: Any) -> NewRequest:
    plain = {"endpoint": "fal-ai/ltx-video-lora/multiconditioning", "key_id": "key", "input": {}, "seed": 7}
    return NewRequest(**{**plain, **changes})


async def submit(store: Store, **changes: Any) -> str:
    return (await store.queue.submit(new_request(**changes))).id


async def claim(store: Store, worker: str = "worker") -> Lease:
    lease = await store.queue.claim(worker)
    assert lease is not None
    return lease


async def leased(store: Store, **changes: Any) -> Lease:
    """Returns the lease of a new request."""
    await submit(store, **changes)
    return await claim(store)


async def leased_twice(store: Store, clock: Clock, **changes: Any) -> tuple[Lease, Lease]:
    """Returns two leases of one request: the first has expired, the second is valid."""
    late = await leased(store, **changes)
    await clock.advance(LEASE)
    await store.queue.reap()
    return late, await claim(store, "other")


async def status(store: Store, request_id: str) -> Status:
    found = await store.requests.status(request_id)
    assert found is not None
    return found


async def deliveries(store: Store, request_id: str) -> int:
    """Returns the number of deliveries of a request."""
    statement = select(func.count()).select_from(delivery).where(delivery.c.request_id == request_id)
    async with store.database.read() as connection:
        return (await connection.execute(statement)).scalar_one()
