"""Reads requests as their clients see them."""

from collections.abc import Collection
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, func, null, or_, select, tuple_

from keyreel.fal.outcomes import Failure, Outcome, Success
from keyreel.store.database import Database
from keyreel.store.records import Depth, Level, LogEntry, State, Status
from keyreel.store.tables import AnyRow, event, request
from keyreel.store.turns import order_of

_ahead = request.alias("ahead")
_count_ahead = (
    select(func.count())
    .select_from(_ahead)
    .where(
        _ahead.c.state == State.IN_QUEUE,
        _ahead.c.pool == request.c.pool,
        tuple_(*order_of(_ahead)) < tuple_(*order_of(request)),
    )
    .scalar_subquery()
)
position = case((request.c.state == State.IN_QUEUE, _count_ahead))
"""The position of one request: how many requests go before it in the queue. NULL unless it is waiting."""

outcome_columns = (request.c.result, request.c.error, request.c.error_type, request.c.error_detail)
MAX_IDS = 4096
"""Ids in one statement. PostgreSQL takes 32,767 values at most, as do many builds of SQLite."""
_COMPUTED_FIELDS = ("state", "position", "outcome")
# Without the input, which may be long.
_columns = (
    request.c.state,
    *outcome_columns,
    *(request.c[name] for name in Status.__slots__ if name not in _COMPUTED_FIELDS),
)


class Place(NamedTuple):
    """Where a request waits. position: how many requests go before it. attempt: that of its status."""

    position: int
    attempt: int


class Requests:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def status(self, request_id: str) -> Status | None:
        """Returns the status of one request with its outcome, or None if it does not exist or has expired."""
        kept = not_expired(request.c.expires_at, self._database.now)
        statement = select(*_columns, position.label("position")).where(request.c.id == request_id, kept)
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _status(row) if row else None

    async def statuses(self, ids: Collection[str]) -> dict[str, Status]:
        """Returns the statuses of the requests among `ids` that exist and have not expired, by id.

        Without positions: each costs a look at the queue.
        """
        known, found = list(ids), dict[str, Status]()
        kept = not_expired(request.c.expires_at, self._database.now)
        plain = select(*_columns, null().label("position")).where(kept)
        for start in range(0, len(known), MAX_IDS):
            statement = plain.where(request.c.id.in_(_padded(known[start : start + MAX_IDS])))
            async with self._database.read() as connection:
                found |= {row.id: _status(row) for row in await connection.execute(statement)}
        return found

    async def running(self) -> list[Status]:
        """Returns the status of each request that a worker has."""
        statement = select(*_columns, null().label("position")).where(request.c.state == State.IN_PROGRESS)
        async with self._database.read() as connection:
            return [_status(row) for row in await connection.execute(statement)]

    async def queue(self) -> dict[str, Place]:
        """Returns the place of each request that waits, by id."""
        in_order = select(request.c.pool, request.c.id, request.c.attempt).where(request.c.state == State.IN_QUEUE)
        async with self._database.read() as connection:
            rows = await connection.execute(in_order.order_by(request.c.pool, *order_of(request)))
            pools = groupby(rows, itemgetter(0))
            return {row[1]: Place(position, row[2]) for _, pool in pools for position, row in enumerate(pool)}

    async def log(self, request_id: str, after: int = 0) -> list[LogEntry]:
        """Returns the log lines with numbers above `after`."""
        columns = (event.c.seq, event.c.attempt, event.c.time, event.c.level, event.c.message)
        statement = select(*columns).where(event.c.request_id == request_id, event.c.seq > after).order_by(event.c.seq)
        async with self._database.read() as connection:
            return [
                LogEntry(row.seq, row.attempt, row.time, Level(row.level), row.message)
                for row in await connection.execute(statement)
            ]

    async def checkpoint(self, request_id: str) -> str | None:
        """Returns the id of the file from which the next attempt at a request would resume."""
        async with self._database.read() as connection:
            return await connection.scalar(select(request.c.checkpoint).where(request.c.id == request_id))

    async def depths(self) -> list[Depth]:
        """Returns how many requests wait and run in each pool."""
        oldest = self._database.now - func.min(request.c.created)
        statement = (
            select(request.c.pool, request.c.state, func.count(), oldest)
            .where(request.c.state.in_([State.IN_QUEUE, State.IN_PROGRESS]))
            .group_by(request.c.pool, request.c.state)
            .order_by(request.c.pool, request.c.state)
        )
        async with self._database.read() as connection:
            rows = await connection.execute(statement)
            return [Depth(pool, State(state), count, age) for pool, state, count, age in rows]


def not_expired(expires_at: ColumnElement[Any], now: ColumnElement[float]) -> ColumnElement[bool]:
    return or_(expires_at.is_(None), expires_at > now)


def outcome_of(row: AnyRow) -> Outcome | None:
    """Returns the outcome in a row with the `outcome_columns`, or None if the request is not completed."""
    if row.error is not None:
        return Failure(row.error, row.error_type, row.error_detail)
    return Success(row.result) if row.result is not None else None


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """Returns the values of the `outcome_columns`, the inverse of `outcome_of`."""
    if isinstance(outcome, Success):
        return {"result": outcome.output}
    return {"error": outcome.message, "error_type": outcome.type, "error_detail": outcome.detail}


def _padded(ids: list[str]) -> list[str]:
    """Repeats an id until their number is a power of two: the driver prepares a statement for each number."""
    return ids + ids[:1] * ((1 << (len(ids) - 1).bit_length()) - len(ids))


def _status(row: AnyRow) -> Status:
    plain = {name: getattr(row, name) for name in Status.__slots__ if name not in _COMPUTED_FIELDS}
    return Status(state=State(row.state), position=row.position, outcome=outcome_of(row), **plain)
