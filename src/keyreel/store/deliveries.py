"""The webhook outbox: each completed request that names a webhook has one delivery, made at least once."""

from typing import Any

from sqlalchemy import ColumnElement, func, select, update

from keyreel.store.database import Database
from keyreel.store.records import Delivery
from keyreel.store.requests import outcome_columns, outcome_of
from keyreel.store.tables import AnyRow, delivery, request

LEASE = 150.0
"""Seconds until a delivery of which nothing is heard is due again: longer than one call may take."""
RETRIES = 10
FIRST_PAUSE = 7.0
"""Seconds before the first retry, doubled for each one after it: ten retries within two hours, as fal has it."""


class Deliveries:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def claim(self, limit: int = 10) -> list[Delivery]:
        """Leases deliveries that are due, the longest overdue first."""
        due = (
            select(
                delivery.c.id,
                delivery.c.attempt,
                delivery.c.request_id,
                request.c.webhook_url,
                request.c.key_id,
                *outcome_columns,
            )
            .join(request, request.c.id == delivery.c.request_id)
            .where(delivery.c.state == "PENDING", delivery.c.due <= self._now)
            .order_by(delivery.c.due, delivery.c.id)
            .limit(limit)
            .with_for_update(of=delivery, skip_locked=True)
        )
        async with self._database.write() as connection:
            rows = (await connection.execute(due)).all()
            taken = delivery.c.id.in_([row.id for row in rows])
            attempt = delivery.c.attempt + 1
            await connection.execute(update(delivery).where(taken).values(attempt=attempt, due=self._now + LEASE))
        return [_delivery(row) for row in rows]

    async def delivered(self, claimed: Delivery) -> None:
        await self._record(claimed, state="DELIVERED", error=None)

    async def failed(self, claimed: Delivery, error: str, *, permanent: bool = False) -> None:
        """Puts the delivery off, or gives it up."""
        if permanent or claimed.attempt > RETRIES:
            await self._record(claimed, state="FAILED", error=error)
        else:
            pause = FIRST_PAUSE * 2 ** (claimed.attempt - 1)
            await self._record(claimed, due=self._now + pause, error=error)

    async def pending(self) -> int:
        """How many are still to be made, for the metrics."""
        statement = select(func.count()).where(delivery.c.state == "PENDING")
        async with self._database.read() as connection:
            return (await connection.execute(statement)).scalar_one()

    async def _record(self, claimed: Delivery, **values: Any) -> None:
        async with self._database.write() as connection:
            await connection.execute(update(delivery).where(_held(claimed)).values(**values))


def _held(claimed: Delivery) -> ColumnElement[bool]:
    """What a caller that was too slow has to say changes nothing."""
    return (delivery.c.id == claimed.id) & (delivery.c.attempt == claimed.attempt) & (delivery.c.state == "PENDING")


def _delivery(row: AnyRow) -> Delivery:
    outcome = outcome_of(row)
    assert outcome is not None, "only a completed request has a delivery"  # noqa: S101
    return Delivery(row.id, row.attempt + 1, row.webhook_url, row.request_id, row.key_id, outcome)
