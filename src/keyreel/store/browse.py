"""Requests, files and webhook calls as people look through them: newest first, a page at a time."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update

from keyreel.store.database import Database
from keyreel.store.records import JsonObject, Outcome, State
from keyreel.store.requests import outcome_columns, outcome_of, position
from keyreel.store.tables import AnyRow, delivery, file, request


@dataclass(frozen=True, slots=True)
class Listed:
    """A request with what was asked for. Times are seconds since 1970."""

    seq: int
    id: str
    key_id: str
    state: State
    position: int | None
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
    """A webhook call: to be made, made or given up."""

    id: int
    request_id: str
    url: str
    state: str
    attempt: int
    due: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    files: int
    size: int
    """Bytes."""


_PLAIN = tuple(name for name in Listed.__slots__ if name not in ("state", "position", "outcome"))


class Browse:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def requests(self, *, key_id: str | None = None, before: int | None = None, limit: int) -> list[Listed]:
        """Of one key or of all; `before`: only those with a smaller `seq`."""
        which = [_fresh(request.c.expires_at, self._now)]
        if key_id is not None:
            which.append(request.c.key_id == key_id)
        if before is not None:
            which.append(request.c.seq < before)
        return await self._listed(*which, limit=limit)

    async def request(self, request_id: str) -> Listed | None:
        found = await self._listed(request.c.id == request_id, _fresh(request.c.expires_at, self._now), limit=1)
        return found[0] if found else None

    async def forget(self, request_id: str) -> bool:
        """Lets a completed request and its video expire now. False: it is not completed, or not there."""
        this = (request.c.id == request_id) & (request.c.state == State.COMPLETED)
        async with self._database.write() as connection:
            forgotten = await connection.execute(update(request).where(this).values(expires_at=self._now))
            if forgotten.rowcount:
                own = file.c.object.startswith(f"out/{request_id}/", autoescape=True)
                await connection.execute(update(file).where(own).values(expires_at=self._now))
        return forgotten.rowcount > 0

    async def usage(self) -> Usage:
        statement = select(func.count(), func.coalesce(func.sum(file.c.size), 0))
        async with self._database.read() as connection:
            files, size = (await connection.execute(statement)).one()
        return Usage(files, int(size))

    async def calls(self, limit: int) -> list[Call]:
        statement = (
            select(*(delivery.c[name] for name in Call.__slots__ if name != "url"), request.c.webhook_url.label("url"))
            .join(request, request.c.id == delivery.c.request_id)
            .order_by(delivery.c.id.desc())
            .limit(limit)
        )
        async with self._database.read() as connection:
            return [Call(**row) for row in (await connection.execute(statement)).mappings()]

    async def call_again(self, delivery_id: int) -> bool:
        """Makes a webhook call due now, also one that was given up. False: there is none, or it was delivered."""
        open_call = (delivery.c.id == delivery_id) & (delivery.c.state != "DELIVERED")
        values = {"state": "PENDING", "attempt": 0, "due": self._now, "error": None}
        async with self._database.write() as connection:
            again = await connection.execute(update(delivery).where(open_call).values(values))
        self._database.announce()
        return again.rowcount > 0

    async def _listed(self, *which: ColumnElement[bool], limit: int) -> list[Listed]:
        columns = (*(request.c[name] for name in _PLAIN), request.c.state, *outcome_columns, position.label("position"))
        statement = select(*columns).where(*which).order_by(request.c.seq.desc()).limit(limit)
        async with self._database.read() as connection:
            return [_listed(row) for row in await connection.execute(statement)]


def _fresh(expires_at: ColumnElement[Any], now: ColumnElement[float]) -> ColumnElement[bool]:
    return or_(expires_at.is_(None), expires_at > now)


def _listed(row: AnyRow) -> Listed:
    plain = {name: getattr(row, name) for name in _PLAIN}
    return Listed(state=State(row.state), position=row.position, outcome=outcome_of(row), **plain)
