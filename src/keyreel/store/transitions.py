"""How leases and requests end, within a transaction of the queue's."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, case, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.fal.outcomes import CANCELLED, WORKER_LOST, Failure, Outcome
from keyreel.store.records import Lease, State
from keyreel.store.requests import outcome_values
from keyreel.store.tables import AnyRow, delivery, file, request
from keyreel.store.usage import add_usage, counted_as

LEASE = 30.0
"""Seconds after the last heartbeat until a lease expires."""
_CLOCK_SLACK = 1.0
"""Seconds by which the clock may seem to go back between two statements."""

# Up to the last heartbeat of a worker that did not leave the device, so most likely died on it.
_lost_seconds = case(
    (request.c.device_since < request.c.lease_until - LEASE, request.c.lease_until - LEASE - request.c.device_since),
    else_=0.0,
)
_LEASE_ENDED = {
    "lease_until": None,
    "device_since": None,
    "device_seconds": request.c.device_seconds + _lost_seconds,
}


def held_by(lease: Lease) -> ColumnElement[bool]:
    """Matches the request while `lease` holds it. This fences off a worker whose lease was lost."""
    return and_(
        request.c.id == lease.id,
        request.c.attempt == lease.attempt,
        request.c.state == State.IN_PROGRESS,
    )


def overlong_leases(now: ColumnElement[float]) -> ColumnElement[bool]:
    """Matches leases from before the clock was set back, which would outlast their worker by as much."""
    return and_(request.c.state == State.IN_PROGRESS, request.c.lease_until > now + LEASE + _CLOCK_SLACK)


async def lock(
    connection: AsyncConnection, *conditions: ColumnElement[bool], skip_locked: bool = False
) -> Sequence[AnyRow]:
    """Returns the matching rows, locked until the commit. SQLite needs no locks: it has one writer."""
    names = ("id", "state", "pool", "priority", "turn", "cancel_requested", "failures", "max_failures", "checkpoint")
    statement = select(*(request.c[name] for name in names)).where(*conditions).order_by(request.c.seq)
    return (await connection.execute(statement.with_for_update(skip_locked=skip_locked))).all()


async def release_all(connection: AsyncConnection, now: ColumnElement[float], condition: ColumnElement[bool]) -> int:
    """Ends the leases of dead workers."""
    rows = await lock(connection, condition, skip_locked=True)
    for row in rows:
        await release(connection, now, row, WORKER_LOST, pause=0.0)
    return len(rows)


async def release(
    connection: AsyncConnection, now: ColumnElement[float], row: AnyRow, failure: Failure | None, pause: float
) -> None:
    """Ends a lease. The request returns to its place in the queue unless it was cancelled or failed too often."""
    condition = request.c.id == row.id
    failures = row.failures + (failure is not None)
    if row.cancel_requested:
        await complete(connection, now, condition, CANCELLED)
    elif failure and failures >= row.max_failures:
        await complete(connection, now, condition, failure)
    else:
        values = {"state": State.IN_QUEUE, "worker": None, "failures": failures, "not_before": now + pause}
        values["start_deadline"] = None  # it has started once
        await connection.execute(update(request).where(condition).values(**values, **_LEASE_ENDED))


async def complete(
    connection: AsyncConnection,
    now: ColumnElement[float],
    condition: ColumnElement[bool],
    outcome: Outcome,
    video_size: int = 0,
) -> Sequence[str]:
    """Completes requests with an outcome, adds their deliveries and counts them as used by their keys.

    Returns the ids of those it completed. This is the only place where a request is completed.
    """
    statement = (
        update(request)
        .where(condition, request.c.state != State.COMPLETED)
        .values(
            state=State.COMPLETED,
            finished=now,
            expires_at=now + request.c.retention,
            **_LEASE_ENDED,
            **outcome_values(outcome),
        )
        .returning(
            request.c.id,
            request.c.webhook_url,
            request.c.checkpoint,
            request.c.key_id,
            request.c.device_seconds,
        )
    )
    rows = (await connection.execute(statement)).all()
    for row in rows:
        if row.checkpoint is not None:
            await connection.execute(update(request).where(request.c.id == row.id).values(checkpoint=None))
            await discard(connection, now, row.checkpoint)
        if row.webhook_url is not None:
            values = {"request_id": row.id, "state": "PENDING", "attempt": 0, "due": now}
            await connection.execute(insert(delivery).values(values))
        used = {counted_as(outcome): 1, "device_seconds": row.device_seconds, "bytes": video_size}
        await add_usage(connection, now, row.key_id, used)
    return [row.id for row in rows]


async def cancel_all(connection: AsyncConnection, now: ColumnElement[float], key_id: str) -> Sequence[str]:
    """Completes the key's waiting requests as cancelled and marks its running ones. Returns the ids of the latter."""
    of_key = request.c.key_id == key_id
    # All are locked before the first is completed, which locks the key's use: who ends one of them locks in this order.
    await lock(connection, of_key, request.c.state.in_([State.IN_QUEUE, State.IN_PROGRESS]))
    await complete(connection, now, and_(of_key, request.c.state == State.IN_QUEUE), CANCELLED)
    running = update(request).where(of_key, request.c.state == State.IN_PROGRESS).values(cancel_requested=True)
    stopping: Sequence[str] = (await connection.execute(running.returning(request.c.id))).scalars().all()
    return stopping


async def discard(connection: AsyncConnection, now: ColumnElement[float], checkpoint: str | None) -> None:
    """Lets a checkpoint's file expire now."""
    await connection.execute(update(file).where(file.c.id == checkpoint).values(expires_at=now))
