"""Steps with which most tests of the store begin."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, func, select

from keyreel.store import Store
from keyreel.store.records import Lease, NewRequest, State, Status
from keyreel.store.tables import delivery, request
from keyreel.store.transitions import LEASE
from keyreel.store.turns import order_of
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


async def live_requests(store: Store) -> list[Status]:
    """Returns the statuses of all requests that are not completed, in the order in which they go."""
    statement = select(request.c.id).where(request.c.state != State.COMPLETED).order_by(*order_of(request))
    async with store.database.read() as connection:
        ids = (await connection.execute(statement)).scalars().all()
    return [await status(store, request_id) for request_id in ids]


async def deliveries(store: Store, request_id: str) -> int:
    """Returns the number of deliveries of a request."""
    statement = select(func.count()).select_from(delivery).where(delivery.c.request_id == request_id)
    async with store.database.read() as connection:
        return (await connection.execute(statement)).scalar_one()


@contextmanager
def recorded_events(target: Any, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """Records the arguments of an event of SQLAlchemy's during the block."""
    events = list[tuple[Any, ...]]()
    event.listen(target, name, listener := lambda *arguments: events.append(arguments))
    try:
        yield events
    finally:
        event.remove(target, name, listener)
