"""Lists requests and webhook calls, newest first, a page at a time, and sums up the stored files."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select

from keyreel.fal.outcomes import JsonObject, Outcome
from keyreel.store.database import Database
from keyreel.store.records import State
from keyreel.store.requests import not_expired, outcome_columns, outcome_of
from keyreel.store.tables import AnyRow, delivery, file, request


@dataclass(frozen=True, slots=True)
class Listed:
    """A request with its input, without its place in the queue. Times are seconds since 1970."""

    seq: int
    id: str
    endpoint: str
    key_id: str
    state: State
    progress: JsonObject | None
    input: JsonObject
    seed: int
    worker: str | None
    created: float
    started: float | None
    finished: float | None
    outcome: Outcome | None


@dataclass(frozen=True, slots=True)
class Call:
    """A webhook call: pending, delivered or failed."""

    id: int
    request_id: str
    url: str
    state: str
    attempt: int
    due: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How many files are stored and how large they are in total."""

    files: int
    size: int
    """Bytes."""


_PLAIN_FIELDS = tuple(name for name in Listed.__slots__ if name not in ("state", "outcome"))


class Browse:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def requests(self, *, key_id: str | None = None, before: int | None = None, limit: int) -> list[Listed]:
        """Returns requests of one key, or of all keys. before: only requests with a smaller `seq`."""
        conditions = [not_expired(request.c.expires_at, self._now)]
        if key_id is not None:
            conditions.append(request.c.key_id == key_id)
        if before is not None:
            conditions.append(request.c.seq < before)
        return await self._listed(*conditions, limit=limit)

    async def request(self, request_id: str) -> Listed | None:
        """Returns one request, or None if it does not exist or has expired."""
        found = await self._listed(request.c.id == request_id, not_expired(request.c.expires_at, self._now), limit=1)
        return found[0] if found else None

    async def usage(self) -> Usage:
        """Returns the number and the total size of the stored files."""
        statement = select(func.count(), func.coalesce(func.sum(file.c.size), 0))
        async with self._database.read() as connection:
            files, size = (await connection.execute(statement)).one()
        return Usage(files, int(size))

    async def calls(self, limit: int) -> list[Call]:
        """Returns the newest webhook calls."""
        statement = (
            select(*(delivery.c[name] for name in Call.__slots__ if name != "url"), request.c.webhook_url.label("url"))
            .join(request, request.c.id == delivery.c.request_id)
            .order_by(delivery.c.id.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [Call(**row) for row in (await connection.execute(statement)).mappings()]

    async def _listed(self, *conditions: ColumnElement[bool], limit: int) -> list[Listed]:
        plain = (request.c[name] for name in _PLAIN_FIELDS)
        columns = (*plain, request.c.state, *outcome_columns)
        statement = select(*columns).where(*conditions).order_by(request.c.seq.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_listed(row) for row in await connection.execute(statement)]


def _listed(row: AnyRow) -> Listed:
    plain = {name: getattr(row, name) for name in _PLAIN_FIELDS}
    return Listed(state=State(row.state), outcome=outcome_of(row), **plain)
