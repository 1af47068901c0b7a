"""How much of their limits keys use at present."""

from math import ceil

from sqlalchemy import ColumnElement, func, select

from keyreel.store.database import Database
from keyreel.store.limits import MINUTE, effective, limit_columns, uploaded_today
from keyreel.store.records import Limits, Quota, State
from keyreel.store.tables import AnyRow, api_key, file, request


class Quotas:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, key_id: str | None = None) -> dict[str, dict[str, Quota]]:
        """Returns the quotas of one key, or of all that are not revoked, by key and by the names in `Limits`."""
        now = self._database.now
        statement = select(
            api_key.c.id,
            *limit_columns,
            _live(State.IN_QUEUE).label("waiting"),
            _live(State.IN_PROGRESS).label("running"),
            _stored().label("stored"),
            uploaded_today(api_key.c.id, now).label("uploaded"),
            (api_key.c.refilled_at - now).label("refilled_in"),
        ).where(api_key.c.revoked.is_(None))
        if key_id is not None:
            statement = statement.where(api_key.c.id == key_id)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        return {row.id: _quotas(row, effective(row, self._database.default_limits)) for row in rows}


def _live(state: State) -> ColumnElement[int]:
    counted = select(func.count()).where(request.c.key_id == api_key.c.id, request.c.state == state)
    return counted.scalar_subquery()


def _stored() -> ColumnElement[int]:
    size = select(func.coalesce(func.sum(file.c.size), 0)).where(file.c.key_id == api_key.c.id)
    return size.scalar_subquery()


def _quotas(row: AnyRow, limits: Limits) -> dict[str, Quota]:
    used = {
        "max_requests": row.waiting + row.running,
        "max_queued": row.waiting,
        "max_running": row.running,
        "max_per_minute": _tokens(row.refilled_in, limits.max_per_minute),
        "max_bytes": int(row.stored),
        "max_upload_bytes": int(row.uploaded),
    }
    return {name: Quota(getattr(limits, name), amount) for name, amount in used.items()}


def _tokens(refilled_in: float | None, limit: int | None) -> int:
    """Returns how many tokens of the minute are taken. They are not counted without a limit."""
    return ceil(max(0.0, refilled_in or 0.0) * limit / MINUTE) if limit else 0
