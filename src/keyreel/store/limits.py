"""The limits of keys and of the queue.

A key's limits are read from its row, so that a new limit holds at once in every process. The row is also the lock under
which submits and uploads for one key see each other. A limit that a user's row leaves open is the server's default; an
administrator's is none. A key without a row has no limits.
"""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, and_, case, cast, func, not_, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.store.database import Database
from keyreel.store.records import (
    DAY,
    NO_LIMITS,
    KeyLimitError,
    Limits,
    NewRequest,
    QueueFullError,
    State,
    StorageLimitError,
    StoreError,
    UploadTooLargeError,
)
from keyreel.store.tables import AnyRow, api_key, file, request, usage

MINUTE = 60.0
_ROUNDING = 0.001
"""Seconds by which sums of intervals may be wrong."""
limit_columns = (api_key.c.admin, *(api_key.c[name] for name in Limits.__slots__))


class KeyRevokedError(StoreError):
    """The key was revoked while its call waited for the key's row."""


async def check_submit(database: Database, connection: AsyncConnection, key_id: str) -> None:
    """Locks the key until the commit.

    Raises KeyLimitError or StorageLimitError if the key may not have a new request, and KeyRevokedError if it was
    revoked in the meantime.
    """
    limits = await _lock(database, connection, key_id)
    if limits.max_requests is not None or limits.max_queued is not None:
        live = request.c.key_id == key_id, request.c.state.in_((State.IN_QUEUE, State.IN_PROGRESS))
        in_queue = func.count().filter(request.c.state == State.IN_QUEUE)
        waiting, total = (await connection.execute(select(in_queue, func.count()).where(*live))).one()
        if limits.max_requests is not None and total >= limits.max_requests:
            raise KeyLimitError(f"have no more than {limits.max_requests} requests waiting or running")
        if limits.max_queued is not None and waiting >= limits.max_queued:
            raise KeyLimitError(f"have no more than {limits.max_queued} requests waiting")
    await _check_room(connection, key_id, limits, 0)
    if limits.max_per_minute is not None:
        await _take_token(connection, key_id, limits.max_per_minute, database.now)


async def check_upload(
    database: Database, connection: AsyncConnection, key_id: str, size: int, replaced: str | None = None
) -> None:
    """Locks the key until the commit and raises LimitError if it may not upload `size` bytes more.

    replaced: the id of a file that the new content replaces.
    """
    limits = await _lock(database, connection, key_id)
    await _check_room(connection, key_id, limits, size, replaced)
    if limits.max_upload_bytes is not None:
        await _check_day(connection, key_id, limits.max_upload_bytes, size, database.now)


async def check_queue_length(database: Database, connection: AsyncConnection, new: NewRequest) -> None:
    """Raises QueueFullError if more requests wait than the new one allows. Such submits run one by one."""
    if new.max_queue_length is None:
        return
    await database.serialise(connection, f"pool {new.pool}")
    in_queue = select(func.count()).where(request.c.state == State.IN_QUEUE, request.c.pool == new.pool)
    waiting = int((await connection.execute(in_queue)).scalar_one())
    if waiting > new.max_queue_length:
        raise QueueFullError(waiting, new.max_queue_length)


def keys_at_their_limit(database: Database) -> Select[str]:
    """Selects the keys that run as many requests as they may, so that their other requests wait."""
    limit = _running_limit(database)
    return (
        select(request.c.key_id)
        .join(api_key, api_key.c.id == request.c.key_id)
        .where(request.c.state == State.IN_PROGRESS, limit.is_not(None))
        .group_by(request.c.key_id, limit)
        .having(func.count() >= limit)
    )


async def runs_too_many(database: Database, connection: AsyncConnection, key_id: str) -> bool:
    """Returns whether the key runs more requests than it may, because others were claimed at the same moment.

    The claims of a key with such a limit run one by one. They must not wait for the key's row: whoever revokes the key
    has locked it and waits for its requests.
    """
    limit: int | None = await connection.scalar(select(_running_limit(database)).where(api_key.c.id == key_id))
    if limit is None:
        return False
    await database.serialise(connection, f"claim {key_id}")
    runs = request.c.key_id == key_id, request.c.state == State.IN_PROGRESS
    return int((await connection.execute(select(func.count()).where(*runs))).scalar_one()) > limit


def stored_bytes(key_id: str) -> Select[int]:
    """Selects the total size of the key's files."""
    return select(func.coalesce(func.sum(file.c.size), 0)).where(file.c.key_id == key_id)


def today(now: ColumnElement[float]) -> ColumnElement[int]:
    """Returns the number of the day, in UTC, as in the table `usage`."""
    return cast(now, BigInteger) // int(DAY)


def uploaded_today(key_id: Any, now: ColumnElement[float]) -> ColumnElement[int]:
    """Returns the bytes that the key has uploaded today."""
    of_today = select(usage.c.uploaded).where(usage.c.key_id == key_id, usage.c.day == today(now))
    return func.coalesce(of_today.scalar_subquery(), 0)


def effective(row: AnyRow, defaults: Limits) -> Limits:
    """Returns the limits that hold for the key of a row with the `limit_columns`."""
    own = {name: getattr(row, name) for name in Limits.__slots__}
    if row.admin:
        return Limits(**own)
    return Limits(**{name: getattr(defaults, name) if limit is None else limit for name, limit in own.items()})


async def _lock(database: Database, connection: AsyncConnection, key_id: str) -> Limits:
    statement = select(*limit_columns, api_key.c.revoked).where(api_key.c.id == key_id).with_for_update()
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return NO_LIMITS
    if row.revoked is not None:
        raise KeyRevokedError(f"The key {key_id} was revoked.")
    return effective(row, database.default_limits)


def _running_limit(database: Database) -> ColumnElement[Any]:
    default, own = database.default_limits.max_running, api_key.c.max_running
    return own if default is None else func.coalesce(own, case((api_key.c.admin, null()), else_=default))


async def _check_day(
    connection: AsyncConnection, key_id: str, limit: int, size: int, now: ColumnElement[float]
) -> None:
    """Raises UploadTooLargeError, or KeyLimitError with the seconds until the next day."""
    if size > limit:
        raise UploadTooLargeError(size, limit)
    statement = select(uploaded_today(key_id, now), (today(now) + 1) * int(DAY) - now)
    uploaded, wait = (await connection.execute(statement)).one()
    if uploaded + max(size, 1) > limit:
        raise KeyLimitError(f"upload no more than {limit:,} bytes a day", float(wait))


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
    interval = MINUTE / limit
    refilled: ColumnElement[Any] = api_key.c.refilled_at
    # A bucket is full within a minute. A time further ahead is from before the clock was set back.
    is_filling = and_(refilled > now, refilled <= now + MINUTE + _ROUNDING)
    taken = case((is_filling, refilled), else_=now) + interval
    has_token = or_(refilled.is_(None), not_(is_filling), refilled + interval <= now + MINUTE + _ROUNDING)
    statement = update(api_key).where(api_key.c.id == key_id, has_token).values(refilled_at=taken)
    if not (await connection.execute(statement)).rowcount:
        wait = await connection.scalar(select(refilled + interval - MINUTE - now).where(api_key.c.id == key_id))
        raise KeyLimitError(f"submit no more than {limit} requests a minute", wait)
