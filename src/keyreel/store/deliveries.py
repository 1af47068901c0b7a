"""The webhook outbox. Each completed request with a webhook has one delivery, which is made at least once."""

from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update

from keyreel.store.audit import SERVER, Action, Actor, record
from keyreel.store.changes import Topic
from keyreel.store.database import Database
from keyreel.store.records import Delivery
from keyreel.store.requests import outcome_columns, outcome_of
from keyreel.store.tables import AnyRow, delivery, request

LEASE = 150.0
"""Seconds after which a claimed delivery without a result is due again. One call takes less."""
RETRIES = 10
FIRST_PAUSE = 7.0
"""Seconds before the first retry. The pause doubles each time, which gives ten retries within two hours, as at fal."""
LONGEST_PAUSE = FIRST_PAUSE * 2 ** (RETRIES - 1)
"""No delivery waits longer. A time further ahead is from before the clock was set back."""


class Deliveries:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def has_due(self) -> bool:
        """Returns whether a delivery can be claimed. Unlike a claim, it writes and locks nothing."""
        async with self._database.read() as connection:
            return bool(await connection.scalar(select(select(delivery.c.id).where(*self._due()).exists())))

    async def claim(self, limit: int = 10) -> list[Delivery]:
        """Leases deliveries that are due and returns them, the longest overdue first."""
        due = (
            select(
                delivery.c.id,
                delivery.c.attempt,
                delivery.c.request_id,
                request.c.webhook_url,
                request.c.key_id,
                request.c.traceparent,
                *outcome_columns,
            )
            .join(request, request.c.id == delivery.c.request_id)
            .where(*self._due())
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
        """Records that the call was made."""
        await self._record(claimed, state="DELIVERED", error=None)

    async def failed(self, claimed: Delivery, error: str, *, permanent: bool = False) -> None:
        """Records a failed call and schedules a retry, unless the failure is permanent or was the last retry."""
        if permanent or claimed.attempt > RETRIES:
            await self._record(claimed, state="FAILED", error=error)
        else:
            pause = FIRST_PAUSE * 2 ** (claimed.attempt - 1)
            await self._record(claimed, due=self._now + pause, error=error)

    async def call_again(self, delivery_id: int, by: Actor = SERVER) -> bool:
        """Makes a delivery due now, even a failed one. Returns False if it does not exist or was delivered."""
        undelivered = (delivery.c.id == delivery_id) & (delivery.c.state != "DELIVERED")
        values = {"state": "PENDING", "attempt": 0, "due": self._now, "error": None}
        async with self._database.write() as connection:
            again = await connection.execute(update(delivery).where(undelivered).values(values))
            if again.rowcount:
                await record(connection, self._now, by, Action.WEBHOOK_RETRIED, str(delivery_id))
        self._database.changes.announce(Topic.STATE)
        return again.rowcount > 0

    async def pending(self) -> int:
        """Returns how many deliveries are still to be made, for the metrics."""
        statement = select(func.count()).where(delivery.c.state == "PENDING")
        async with self._database.read() as connection:
            return (await connection.execute(statement)).scalar_one()

    def _due(self) -> tuple[ColumnElement[bool], ...]:
        is_due = or_(delivery.c.due <= self._now, delivery.c.due > self._now + LONGEST_PAUSE)
        return delivery.c.state == "PENDING", is_due

    async def _record(self, claimed: Delivery, **values: Any) -> None:
        async with self._database.write() as connection:
            await connection.execute(update(delivery).where(_held_by(claimed)).values(**values))


def _held_by(claimed: Delivery) -> ColumnElement[bool]:
    """Matches the delivery while `claimed` holds it, so that a caller whose lease has expired changes nothing."""
    return (delivery.c.id == claimed.id) & (delivery.c.attempt == claimed.attempt) & (delivery.c.state == "PENDING")


def _delivery(row: AnyRow) -> Delivery:
    outcome = outcome_of(row)
    assert outcome is not None, "only a completed request has a delivery"  # noqa: S101
    return Delivery(row.id, row.attempt + 1, row.webhook_url, row.request_id, row.key_id, outcome, row.traceparent)
