"""What each key has used, a row for each key and day. The rows stay when requests and files are gone."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.fal.outcomes import CANCELLED, Outcome, Success
from keyreel.store.database import Database
from keyreel.store.limits import today
from keyreel.store.records import DayOfUse
from keyreel.store.tables import api_key, file, usage

_AMOUNTS = ("completed", "failed", "cancelled", "device_seconds", "bytes", "uploaded")


class Usage:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def days(self, first: int, last: int, key_id: str | None = None) -> list[DayOfUse]:
        """Returns the use of one key, or of all keys, from day `first` to day `last`, the latest day first."""
        columns = (api_key.c.name if name == "name" else usage.c[name] for name in DayOfUse.__slots__)
        statement = (
            select(*columns)
            .outerjoin_from(usage, api_key, api_key.c.id == usage.c.key_id)
            .where(usage.c.day.between(first, last))
            .order_by(usage.c.day.desc(), usage.c.key_id)
        )
        if key_id is not None:
            statement = statement.where(usage.c.key_id == key_id)
        async with self._database.read() as connection:
            return [DayOfUse(*row) for row in await connection.execute(statement)]

    async def stored(self, key_id: str | None = None) -> dict[str, int]:
        """Returns the bytes that each key stores now, or only those of one key. A key without files is left out."""
        statement = select(file.c.key_id, func.sum(file.c.size)).where(file.c.size.is_not(None))
        if key_id is not None:
            statement = statement.where(file.c.key_id == key_id)
        async with self._database.read() as connection:
            rows = await connection.execute(statement.group_by(file.c.key_id))
            return {owner: int(size) for owner, size in rows}


async def add_usage(
    connection: AsyncConnection, now: ColumnElement[float], key_id: str, amounts: Mapping[str, float]
) -> None:
    """Adds to what the key has used today. amounts: columns of the table `usage`.

    Only one transaction at a time may add to several keys: two could wait for each other's rows.
    """
    inserting = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    values = dict.fromkeys(_AMOUNTS, 0) | dict(amounts)
    new = inserting(usage).values(key_id=key_id, day=today(now), **values)
    total = {name: usage.c[name] + new.excluded[name] for name in _AMOUNTS}
    await connection.execute(new.on_conflict_do_update(index_elements=["key_id", "day"], set_=total))


def arrived(size: int) -> dict[str, float]:
    """Returns the amounts of an upload."""
    return {"bytes": size, "uploaded": size}


def counted_as(outcome: Outcome) -> str:
    """Returns the column of the table `usage` that counts a request with this outcome."""
    if isinstance(outcome, Success):
        return "completed"
    return "cancelled" if outcome == CANCELLED else "failed"
