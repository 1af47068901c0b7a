"""The request state machine: every statement that changes a request.

    IN_QUEUE --claim--> IN_PROGRESS --finish, cancel, reap--> COMPLETED
        ^--hand back, retry, reap--'

A claim raises `attempt`, and nothing lowers it: it is the fencing token. What counts against a request is `failures`.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.store.database import Database
from keyreel.store.files import kept
from keyreel.store.records import (
    CANCELLED,
    START_TIMEOUT,
    WORKER_LOST,
    Cancellation,
    Content,
    Failure,
    IdempotencyError,
    JsonObject,
    KeyLimitError,
    Lease,
    LeaseLostError,
    LogLine,
    NewRequest,
    Outcome,
    QueueFullError,
    Reaped,
    Standing,
    State,
    Submitted,
    Success,
)
from keyreel.store.requests import outcome_columns, outcome_of, position
from keyreel.store.tables import AnyRow, delivery, event, request

LEASE = 30.0
"""Seconds that a worker may be silent."""
MAX_FAILURES = 3
RETRY_PAUSE = 1.0
"""Seconds between a machine's first failure and the next attempt; twice that after the second."""
_SWEEP = 500
"""Rows that one sweep deletes at most: others want to write, too."""


class Queue:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = database.now

    async def submit(self, new: NewRequest) -> Submitted:
        """Queues a request; returns when it is safe. Raises QueueFullError, KeyLimitError or IdempotencyError."""
        try:
            return await self._replay(new) or await self._insert(new)
        except IntegrityError:
            # Another submit with the same idempotency key came first.
            if replayed := await self._replay(new):
                return replayed
            raise

    async def claim(self, worker: str, pool: str = "default") -> Lease | None:
        """Leases the request whose turn it is. None: nothing to do."""
        waiting = request.alias("waiting")
        turn = (
            select(waiting.c.seq)
            .where(
                waiting.c.state == State.IN_QUEUE,
                waiting.c.pool == pool,
                waiting.c.not_before <= self._now,
                or_(waiting.c.start_deadline.is_(None), waiting.c.start_deadline > self._now),
            )
            .order_by(waiting.c.priority, waiting.c.seq)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(request)
            .where(request.c.seq == turn)
            .values(
                state=State.IN_PROGRESS,
                attempt=request.c.attempt + 1,
                worker=worker,
                lease_until=self._now + LEASE,
                started=self._now,
                start_deadline=None,
            )
            .returning(*(request.c[name] for name in Lease.__slots__))
        )
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        self._database.announce()
        return Lease(*row)

    async def beat(self, lease: Lease, progress: JsonObject | None = None, lines: Sequence[LogLine] = ()) -> Standing:
        """Renews the lease, writes down what happened and learns how things stand. No progress: as before."""
        values: dict[str, Any] = {
            "lease_until": self._now + LEASE,
            "log_lines": request.c.log_lines + len(lines),
        }
        if progress is not None:
            values["progress"] = progress
        statement = update(request).where(_held(lease)).values(values).returning(request.c.cancel_requested)
        async with self._database.write() as connection:
            row = (await connection.execute(statement)).one_or_none()
            if row is None:
                return Standing.LOST
            for line in lines:
                await connection.execute(self._event(lease, line))
        self._database.announce()
        return Standing.CANCELLED if row.cancel_requested else Standing.CONTINUE

    async def save_checkpoint(self, lease: Lease, checkpoint: str) -> None:
        """Notes the object from which a later attempt goes on. Raises LeaseLostError."""
        statement = update(request).where(_held(lease)).values(checkpoint=checkpoint)
        async with self._database.write() as connection:
            if not (await connection.execute(statement)).rowcount:
                raise LeaseLostError(lease)

    async def finish(self, lease: Lease, outcome: Outcome, video: Content | None = None) -> None:
        """Completes the request, for good, and with it keeps its video. Raises LeaseLostError."""
        async with self._database.write() as connection:
            completed = await self._complete(connection, _held(lease), outcome)
            # A worker whose connection broke at the commit asks again, and must not throw its output away.
            if not completed and not await self._finished_before(connection, lease, outcome):
                raise LeaseLostError(lease)
            if video:
                await connection.execute(kept(video, self._now))
        self._database.announce()

    async def retry(self, lease: Lease, failure: Failure) -> None:
        """The machine failed, not the request: back into the queue, or completed when it was once too often.

        Raises LeaseLostError.
        """
        await self._give_back(lease, failure)

    async def hand_back(self, lease: Lease) -> None:
        """The worker is told to leave: back into the queue, at no cost for the request. Raises LeaseLostError."""
        await self._give_back(lease, None)

    async def disown(self, worker: str) -> int:
        """Takes back what an earlier worker of this name held. It died, or its name would not be taken again."""
        held = and_(request.c.state == State.IN_PROGRESS, request.c.worker == worker)
        async with self._database.write() as connection:
            released = await self._release_all(connection, held)
        self._database.announce()
        return released

    async def cancel(self, request_id: str) -> Cancellation:
        async with self._database.write() as connection:
            rows = await self._lock(connection, request.c.id == request_id)
            if not rows:
                return Cancellation.UNKNOWN
            answer = await self._cancel(connection, request.c.id == request_id, rows[0].state)
        self._database.announce()
        return answer

    async def reap(self) -> Reaped:
        """Takes back expired leases, ends what should have started by now, deletes what nobody may read any more."""
        async with self._database.write() as connection:
            expired = and_(request.c.state == State.IN_PROGRESS, request.c.lease_until <= self._now)
            released = await self._release_all(connection, expired)
            reaped = Reaped(released, await self._time_out(connection), await self._delete_expired(connection))
        if reaped != Reaped(0, 0, 0):
            self._database.announce()
        return reaped

    async def _replay(self, new: NewRequest) -> Submitted | None:
        """What an earlier submit with the same idempotency key was told."""
        if new.idempotency is None:
            return None
        statement = select(request.c.id, request.c.idempotency_digest, position.label("position")).where(
            request.c.key_id == new.key_id, request.c.idempotency_key == new.idempotency.key
        )
        async with self._database.read() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            return None
        if row.idempotency_digest != new.idempotency.digest:
            raise IdempotencyError(new.idempotency.key)
        return Submitted(row.id, row.position, replayed=True)

    async def _insert(self, new: NewRequest) -> Submitted:
        async with self._database.write() as connection:
            await self._check_length(connection, new)
            request_id = str(uuid4())
            await connection.execute(insert(request).values(id=request_id, **self._columns(new)))
            place = await connection.scalar(select(position).where(request.c.id == request_id))
        self._database.announce()
        return Submitted(request_id, place, replayed=False)

    def _columns(self, new: NewRequest) -> dict[str, Any]:
        deadline = None if new.start_timeout is None else self._now + new.start_timeout
        return {
            "endpoint": new.endpoint,
            "pool": new.pool,
            "key_id": new.key_id,
            "priority": new.priority,
            "state": State.IN_QUEUE,
            "input": new.input,
            "seed": new.seed,
            "webhook_url": new.webhook_url,
            "idempotency_key": new.idempotency.key if new.idempotency else None,
            "idempotency_digest": new.idempotency.digest if new.idempotency else None,
            "retention": new.retention,
            "output_lifetime": new.output_lifetime,
            "output_acl": new.output_acl,
            "attempt": 0,
            "failures": 0,
            "max_failures": MAX_FAILURES if new.retry else 1,
            "cancel_requested": False,
            "not_before": self._now,
            "start_deadline": deadline,
            "log_lines": 0,
            "created": self._now,
        }

    async def _check_length(self, connection: AsyncConnection, new: NewRequest) -> None:
        """On PostgreSQL submits at the same moment do not see each other: limits are kept but for these."""
        if new.max_queue_length is not None:
            waiting = await _count(connection, request.c.state == State.IN_QUEUE, request.c.pool == new.pool)
            if waiting > new.max_queue_length:
                raise QueueFullError(waiting, new.max_queue_length)
        if new.max_of_key is not None:
            live = request.c.state.in_((State.IN_QUEUE, State.IN_PROGRESS))
            if await _count(connection, live, request.c.key_id == new.key_id) >= new.max_of_key:
                raise KeyLimitError(new.max_of_key)

    def _event(self, lease: Lease, line: LogLine) -> Any:
        return insert(event).values(
            request_id=lease.id,
            attempt=lease.attempt,
            time=self._now - line.age,
            level=line.level,
            message=line.message,
        )

    async def _finished_before(self, connection: AsyncConnection, lease: Lease, outcome: Outcome) -> bool:
        mine = (request.c.id == lease.id, request.c.attempt == lease.attempt)
        row = (await connection.execute(select(*outcome_columns).where(*mine))).one_or_none()
        return row is not None and outcome_of(row) == outcome

    async def _cancel(self, connection: AsyncConnection, this: ColumnElement[bool], state: str) -> Cancellation:
        match state:
            case State.IN_QUEUE:
                await self._complete(connection, this, CANCELLED)
                return Cancellation.REMOVED
            case State.IN_PROGRESS:
                await connection.execute(update(request).where(this).values(cancel_requested=True))
                return Cancellation.REQUESTED
        return Cancellation.ALREADY_COMPLETED

    async def _lock(
        self, connection: AsyncConnection, *which: ColumnElement[bool], skip_locked: bool = False
    ) -> Sequence[AnyRow]:
        """Rows that nobody else changes before the commit. (With SQLite nobody else writes at all.)"""
        columns = (request.c.id, request.c.state, request.c.cancel_requested)
        statement = select(*columns, request.c.failures, request.c.max_failures).where(*which).order_by(request.c.seq)
        return (await connection.execute(statement.with_for_update(skip_locked=skip_locked))).all()

    async def _give_back(self, lease: Lease, failure: Failure | None) -> None:
        async with self._database.write() as connection:
            rows = await self._lock(connection, _held(lease))
            if not rows:
                raise LeaseLostError(lease)
            pause = 0.0 if failure is None else RETRY_PAUSE * 2 ** rows[0].failures
            await self._release(connection, rows[0], failure, pause)
        self._database.announce()

    async def _release_all(self, connection: AsyncConnection, lost: ColumnElement[bool]) -> int:
        """Ends the leases of workers that are no more."""
        rows = await self._lock(connection, lost, skip_locked=True)
        for row in rows:
            await self._release(connection, row, WORKER_LOST, pause=0.0)
        return len(rows)

    async def _release(self, connection: AsyncConnection, row: AnyRow, failure: Failure | None, pause: float) -> None:
        """Ends a lease. The request keeps its place in the queue, unless it was cancelled or failed too often."""
        this = request.c.id == row.id
        failures = row.failures + (failure is not None)
        if row.cancel_requested:
            await self._complete(connection, this, CANCELLED)
        elif failure and failures >= row.max_failures:
            await self._complete(connection, this, failure)
        else:
            back = {"state": State.IN_QUEUE, "lease_until": None, "worker": None, "failures": failures}
            await connection.execute(update(request).where(this).values(**back, not_before=self._now + pause))

    async def _complete(
        self, connection: AsyncConnection, which: ColumnElement[bool], outcome: Outcome
    ) -> Sequence[str]:
        """The only place where a request is completed: once, with its outcome and its delivery."""
        statement = (
            update(request)
            .where(which, request.c.state != State.COMPLETED)
            .values(
                state=State.COMPLETED,
                lease_until=None,
                checkpoint=None,
                finished=self._now,
                expires_at=self._now + request.c.retention,
                **_outcome_values(outcome),
            )
            .returning(request.c.id, request.c.webhook_url)
        )
        rows = (await connection.execute(statement)).all()
        for row in rows:
            if row.webhook_url is not None:
                values = {"request_id": row.id, "state": "PENDING", "attempt": 0, "due": self._now}
                await connection.execute(insert(delivery).values(values))
        return [row.id for row in rows]

    async def _time_out(self, connection: AsyncConnection) -> int:
        late = and_(request.c.state == State.IN_QUEUE, request.c.start_deadline <= self._now)
        ids = [row.id for row in await self._lock(connection, late, skip_locked=True)]
        return len(await self._complete(connection, request.c.id.in_(ids), START_TIMEOUT))

    async def _delete_expired(self, connection: AsyncConnection) -> int:
        """A request whose webhook is still to be delivered stays: the delivery carries its outcome."""
        pending = exists().where(delivery.c.request_id == request.c.id, delivery.c.state == "PENDING")
        expired = select(request.c.seq).where(request.c.expires_at <= self._now, ~pending).limit(_SWEEP)
        return (await connection.execute(delete(request).where(request.c.seq.in_(expired)))).rowcount


async def _count(connection: AsyncConnection, *which: ColumnElement[bool]) -> int:
    return int((await connection.execute(select(func.count()).where(*which))).scalar_one())


def _held(lease: Lease) -> ColumnElement[bool]:
    """Fencing: whatever a worker writes, it writes to its own attempt or not at all."""
    return and_(
        request.c.id == lease.id,
        request.c.attempt == lease.attempt,
        request.c.state == State.IN_PROGRESS,
    )


def _outcome_values(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Success):
        return {"result": outcome.output}
    return {"error": outcome.message, "error_type": outcome.type, "error_detail": outcome.detail}
