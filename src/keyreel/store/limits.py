"""The limits of keys and of the queue.

A key's limits are read from its row, so that a new limit holds at once in every process. The row is also the lock under
which calls for one key see each other. A key without a row has no limits.
"""

from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.store.database import Database
from keyreel.store.records import (
    NO_LIMITS,
    KeyLimitError,
    Limits,
    NewRequest,
    QueueFullError,
    State,
    StorageLimitError,
)
from keyreel.store.tables import api_key, file, request

_MINUTE = 60.0
_ROUNDING = 0.001
"""Seconds by which sums of intervals may be wrong."""
_COLUMNS = [api_key.c[name] for name in Limits.__slots__]


async def check_submit(connection: AsyncConnection, key_id: str, now: ColumnElement[float]) -> None:
    """Locks the key until the commit and raises KeyLimitError or StorageLimitError if it may not have a new request."""
    limits = await _lock(connection, key_id)
    if limits.max_requests is not None or limits.max_queued is not None:
        waiting, running = [await _count(connection, key_id, state) for state in (State.IN_QUEUE, State.IN_PROGRESS)]
        if limits.max_requests is not None and waiting + running >= limits.max_requests:
            raise KeyLimitError(f"have no more than {limits.max_requests} requests waiting or running")
        if limits.max_queued is not None and waiting >= limits.max_queued:
            raise KeyLimitError(f"have no more than {limits.max_queued} requests waiting")
    await _check_room(connection, key_id, limits, 0)
    if limits.max_per_minute is not None:
        await _take_token(connection, key_id, limits.max_per_minute, now)


async def check_storage(connection: AsyncConnection, key_id: str, size: int, replaced: str | None = None) -> None:
    """Locks the key until the commit and raises StorageLimitError if it may not store `size` bytes more.

    replaced: the id of a file that the new content replaces.
    """
    await _check_room(connection, key_id, await _lock(connection, key_id), size, replaced)


async def check_queue_length(database: Database, connection: AsyncConnection, new: NewRequest) -> None:
    """Raises QueueFullError if more requests wait than the new one allows. Such submits run one by one."""
    if new.max_queue_length is None:
        return
    await database.serialise(connection, f"pool {new.pool}")
    in_queue = select(func.count()).where(request.c.state == State.IN_QUEUE, request.c.pool == new.pool)
    waiting = int((await connection.execute(in_queue)).scalar_one())
    if waiting > new.max_queue_length:
        raise QueueFullError(waiting, new.max_queue_length)


def keys_at_their_limit() -> Select[str]:
    """Selects the keys that run as many requests as they may, so that their other requests wait."""
    return (
        select(request.c.key_id)
        .join(api_key, api_key.c.id == request.c.key_id)
        .where(request.c.state == State.IN_PROGRESS, api_key.c.max_running.is_not(None))
        .group_by(request.c.key_id, api_key.c.max_running)
        .having(func.count() >= api_key.c.max_running)
    )


async def runs_too_many(connection: AsyncConnection, key_id: str) -> bool:
    """Returns whether the key runs more requests than it may, because others were claimed at the same moment.

    Locks the key until the commit if it has such a limit.
    """
    limited = (api_key.c.id == key_id) & api_key.c.max_running.is_not(None)
    limit = await connection.scalar(select(api_key.c.max_running).where(limited).with_for_update())
    return limit is not None and await _count(connection, key_id, State.IN_PROGRESS) > limit


def stored_bytes(key_id: str) -> Select[int]:
    """Selects the total size of the key's files."""
    return select(func.coalesce(func.sum(file.c.size), 0)).where(file.c.key_id == key_id)


async def _lock(connection: AsyncConnection, key_id: str) -> Limits:
    statement = select(*_COLUMNS).where(api_key.c.id == key_id).with_for_update()
    row = (await connection.execute(statement)).one_or_none()
    return Limits(**row._mapping) if row else NO_LIMITS


async def _count(connection: AsyncConnection, key_id: str, state: State) -> int:
    statement = select(func.count()).where(request.c.key_id == key_id, request.c.state == state)
    return int((await connection.execute(statement)).scalar_one())


async def _check_room(
    connection: AsyncConnection, key_id: str, limits: Limits, size: int, replaced: str | None = None
) -> None:
    """Raises StorageLimitError. A key that is exactly full may not add anything, not even a file of unknown size."""
    if limits.max_bytes is None:
        return
    statement = stored_bytes(key_id) if replaced is None else stored_bytes(key_id).where(file.c.id != replaced)
    stored = int((await connection.execute(statement)).scalar_one())
    if stored + max(size, 1) > limits.max_bytes:
        raise StorageLimitError(stored, size, limits.max_bytes)


async def _take_token(connection: AsyncConnection, key_id: str, limit: int, now: ColumnElement[float]) -> None:
    """Takes a token from the key's bucket, or raises KeyLimitError.

    The bucket holds `limit` tokens and gains one every 60 s / `limit`. The row has only the time when it is full again.
    """
    interval = _MINUTE / limit
    refilled: ColumnElement[Any] = api_key.c.refilled_at
    taken = case((refilled > now, refilled), else_=now) + interval
    has_token = or_(refilled.is_(None), refilled + interval <= now + _MINUTE + _ROUNDING)
    statement = update(api_key).where(api_key.c.id == key_id, has_token).values(refilled_at=taken)
    if not (await connection.execute(statement)).rowcount:
        wait = await connection.scalar(select(refilled + interval - _MINUTE - now).where(api_key.c.id == key_id))
        raise KeyLimitError(f"submit no more than {limit} requests a minute", wait)
