"""The audit log: who changed keys, sessions, requests and webhook calls, when and from where.

An entry is written in the transaction of the change, so neither is there without the other. It never holds a secret.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.fal.outcomes import JsonObject
from keyreel.store.database import Database
from keyreel.store.tables import api_key, audit

PAGE = 200
"""Entries that are read at once for an export."""


class Action(StrEnum):
    """What was done, and to which target."""

    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    KEY_REFUSED = "key_refused"
    """A call with an unknown, revoked or expired key, or a wrong secret. The target is the id that was sent."""
    LIMITS_REPLACED = "limits_replaced"
    SIGNED_IN = "signed_in"
    SIGNED_OUT = "signed_out"
    REQUEST_CANCELLED = "request_cancelled"
    REQUEST_DELETED = "request_deleted"
    WEBHOOK_RETRIED = "webhook_retried"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something. key_id: None if it is unknown. address: None for a command on the server's machine."""

    key_id: str | None
    address: str | None


SERVER = Actor("server", None)
"""The server itself, which is no key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """time: seconds since 1970. name: the key's name, None for a key that is not in the table of keys."""

    seq: int
    time: float
    key_id: str | None
    name: str | None
    address: str | None
    action: str
    target: str | None
    detail: JsonObject | None


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def record(self, by: Actor, action: Action, target: str | None = None, **detail: Any) -> None:
        """Adds an entry about something that is no change of the database."""
        async with self._database.write() as connection:
            await record(connection, self._now, by, action, target, **detail)

    async def entries(
        self,
        *,
        limit: int,
        before: int | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[Entry]:
        """Returns the newest entries. before: only those with a smaller `seq`. since, until: seconds since 1970."""
        columns = (api_key.c.name if name == "name" else audit.c[name] for name in Entry.__slots__)
        statement = select(*columns).outerjoin_from(audit, api_key, api_key.c.id == audit.c.key_id)
        if before is not None:
            statement = statement.where(audit.c.seq < before)
        if since is not None:
            statement = statement.where(audit.c.time >= since)
        if until is not None:
            statement = statement.where(audit.c.time < until)
        async with self._database.read() as connection:
            rows = await connection.execute(statement.order_by(audit.c.seq.desc()).limit(limit))
            return [Entry(*row) for row in rows]

    async def pages(self, since: float, until: float) -> AsyncIterator[list[Entry]]:
        """Yields the entries of a period, the newest first, `PAGE` at a time."""
        before = None
        while page := await self.entries(limit=PAGE, before=before, since=since, until=until):
            yield page
            before = page[-1].seq

    async def forget(self, age: float) -> int:
        """Deletes the entries that are older than `age` seconds. Returns their number."""
        old = audit.c.time < self._now - age
        async with self._database.read() as connection:
            if not await connection.scalar(select(select(audit.c.seq).where(old).exists())):
                return 0
        async with self._database.write() as connection:
            return (await connection.execute(delete(audit).where(old))).rowcount


async def record(
    connection: AsyncConnection,
    now: ColumnElement[float],
    by: Actor,
    action: Action,
    target: str | None = None,
    **detail: Any,
) -> None:
    """Adds an entry within the transaction of the change."""
    values = {"key_id": by.key_id, "address": by.address, "target": target, "detail": detail or None}
    await connection.execute(insert(audit).values(time=now, action=action, **values))
