"""The request state machine: with `keyreel.store.transitions` every statement that changes a request.

    IN_QUEUE --claim--> IN_PROGRESS --finish, cancel, reap--> COMPLETED
        ^--hand back, retry, reap--'   (take over: stays, at another worker)

A claim and a takeover raise `attempt`, and nothing lowers it: it is the fencing token. `failures` counts the failed
attempts.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    ColumnElement,
    Executable,
    FromClause,
    Select,
    and_,
    case,
    delete,
    exists,
    false,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from keyreel.fal.outcomes import CANCELLED, START_TIMEOUT, Failure, JsonObject, Outcome
from keyreel.store.audit import SERVER, Action, Actor, record
from keyreel.store.beats import beat
from keyreel.store.changes import Topic
from keyreel.store.database import Database
from keyreel.store.files import content_update
from keyreel.store.inputs import discard_inputs, hold_inputs
from keyreel.store.limits import check_queue_length, check_submit, keys_at_their_limit, runs_too_many
from keyreel.store.records import (
    Cancellation,
    Content,
    IdempotencyError,
    Lease,
    LeaseLostError,
    LeaseStatus,
    LogLine,
    NewRequest,
    Priority,
    Reaped,
    State,
    Submitted,
)
from keyreel.store.requests import outcome_columns, outcome_of, position
from keyreel.store.submission import MAX_FAILURES, first_row, insert_request
from keyreel.store.tables import delivery, file, request
from keyreel.store.transitions import (
    LEASE,
    complete,
    discard,
    held_by,
    lock,
    overlong_leases,
    release,
    release_all,
)
from keyreel.store.turns import dealt_out, order_of

RETRY_PAUSE = 1.0
"""Seconds between the first failed attempt and the next one. The pause doubles each time."""
WAITING: Final = "wait"
"""The stage in which an attempt waits for its worker's device. Another worker may take it over."""
_CLOCK_STEP = 0.01
"""Seconds by which the database's clock may be behind this process's when a deadline comes."""
LONGEST_RETRY_PAUSE = RETRY_PAUSE * 2**MAX_FAILURES
"""No request waits longer. A time further ahead is from before the clock was set back."""
_SWEEP_LIMIT = 500
"""Rows that one sweep deletes at most, so that it does not block other writers for long."""
_SWEEP = "sweep"
"""Name of the transactions that change requests of several keys."""

_waiting = request.alias("waiting")


class Queue:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._changes = database.changes
        self._now = database.now
        self._insertion = insert_request(database.now)

    async def submit(self, new: NewRequest) -> Submitted:
        """Queues a request and returns after the commit.

        Raises QueueFullError, KeyLimitError, StorageLimitError or IdempotencyError.
        """
        try:
            return await self._replay(new) or await self._insert(new)
        except IntegrityError:
            # Another submit with the same idempotency key came first.
            if replayed := await self._replay(new):
                return replayed
            raise

    async def has_work(
        self, pool: str = "default", at_least: Priority = Priority.LOW, besides: str | None = None
    ) -> bool:
        """Returns whether a request of the pool can be claimed. Unlike a claim, it writes and locks nothing.

        besides: a worker that has nothing to do, for which it counts, too, that a request can be taken over.
        """
        candidates = [self._ready(pool, at_least), *([] if besides is None else [_held_up(pool, besides)])]
        found = or_(*(each.exists() for each in candidates))
        async with self._database.read() as connection:
            return bool(await connection.scalar(select(found)))

    async def claim(self, worker: str, pool: str = "default", at_least: Priority = Priority.LOW) -> Lease | None:
        """Leases the next request of the pool to `worker`. Returns None if no request is ready.

        at_least: the lowest priority that is claimed.
        """
        statement = self._lease_first(self._ready(pool, at_least), worker)
        while True:
            async with self._database.write() as connection:
                row = (await connection.execute(statement)).one_or_none()
                if row is None:
                    return None
                if not await runs_too_many(self._database, connection, row.key_id):
                    break
                # Another worker claimed for this key first. The next try leaves the key out.
                await connection.rollback()
        self._changes.announce(Topic.STATE)
        return Lease(*row)

    async def take_over(self, worker: str, pool: str = "default") -> Lease | None:
        """Leases to `worker`, which has nothing to do, a request that waits for the device of a busy one.

        The attempt there has lost its lease. Returns None if no request waits like that.
        """
        async with self._database.write() as connection:
            row = (await connection.execute(self._lease_first(_held_up(pool, worker), worker))).one_or_none()
        if row is None:
            return None
        self._changes.announce(Topic.STATE)
        self._changes.announce(Topic.CANCEL, row.id)  # wakes the other worker
        return Lease(*row)

    async def enter_device(self, lease: Lease) -> bool:
        """Records that the attempt begins to use its device. Returns False if the lease is lost."""
        return await self._change_held(lease, device_since=self._now, start_deadline=None)

    async def leave_device(self, lease: Lease) -> None:
        """Adds the time since `enter_device` to the request's. Does nothing if the lease is lost."""
        used = case((request.c.device_since <= self._now, self._now - request.c.device_since), else_=0.0)
        await self._change_held(lease, device_since=None, device_seconds=request.c.device_seconds + used)

    async def heartbeat(
        self, lease: Lease, progress: JsonObject | None = None, lines: Sequence[LogLine] = ()
    ) -> LeaseStatus:
        """Renews the lease, records progress (None: unchanged) and log lines, and returns the lease's status."""
        values: dict[str, Any] = {
            "lease_until": self._now + LEASE,
            "log_lines": request.c.log_lines + len(lines),
        }
        if progress is not None:
            values["progress"] = progress
        renewal = update(request).where(held_by(lease)).values(values)
        async with self._database.write_once() as connection:
            cancelled = await beat(connection, renewal, lines, self._now)
        if cancelled is None:
            return LeaseStatus.LOST
        self._changes.announce(Topic.PROGRESS)
        return LeaseStatus.CANCELLED if cancelled else LeaseStatus.CONTINUE

    async def save_checkpoint(self, lease: Lease, checkpoint: str) -> None:
        """Records the file from which a later attempt resumes, and lets the one before it expire.

        checkpoint: the file's id. Raises LeaseLostError.
        """
        async with self._database.write() as connection:
            rows = await lock(connection, held_by(lease))
            if not rows:
                raise LeaseLostError(lease)
            await connection.execute(update(request).where(held_by(lease)).values(checkpoint=checkpoint))
            if rows[0].checkpoint != checkpoint:
                await discard(connection, self._now, rows[0].checkpoint)

    async def finish(self, lease: Lease, outcome: Outcome, video: Content | None = None) -> None:
        """Completes the request and begins the lifetime of its video. Raises LeaseLostError."""
        async with self._database.write() as connection:
            completed = await complete(connection, self._now, held_by(lease), outcome, video.size if video else 0)
            # A worker whose connection broke at the commit repeats the call. Its output must not be discarded.
            if not completed and not await self._finished_before(connection, lease, outcome):
                raise LeaseLostError(lease)
            if video:
                await connection.execute(content_update(video, self._now))
        # The next request of a key that runs as many as it may is ready now.
        self._changes.announce(Topic.QUEUED)

    async def retry(self, lease: Lease, failure: Failure) -> None:
        """Puts a request whose attempt failed back into the queue, or completes it after too many failures.

        The failure is not the request's fault. Raises LeaseLostError.
        """
        await self._return_to_queue(lease, failure)

    async def hand_back(self, lease: Lease) -> None:
        """Puts the request back into the queue without counting a failure. Raises LeaseLostError."""
        await self._return_to_queue(lease, None)

    async def release_worker(self, worker: str) -> int:
        """Releases the requests that a dead worker of this name held. Returns their number."""
        held = and_(request.c.state == State.IN_PROGRESS, request.c.worker == worker)
        async with self._database.write() as connection:
            await self._database.serialise(connection, _SWEEP)
            released = await release_all(connection, self._now, held)
        self._changes.announce(Topic.QUEUED)
        return released

    async def cancel(self, request_id: str, by: Actor = SERVER) -> Cancellation:
        """Completes a waiting request as cancelled, or asks the worker of a running one to stop."""
        async with self._database.write() as connection:
            rows = await lock(connection, request.c.id == request_id)
            if not rows:
                return Cancellation.UNKNOWN
            answer = await self._cancel(connection, request.c.id == request_id, rows[0].state)
            if answer is not Cancellation.ALREADY_COMPLETED:
                await record(connection, self._now, by, Action.REQUEST_CANCELLED, request_id)
        if answer is Cancellation.REQUESTED:
            self._changes.announce(Topic.CANCEL, request_id)
        else:
            self._changes.announce(Topic.STATE)
        return answer

    async def reorder(self, key_id: str, ids: Sequence[str]) -> None:
        """Puts those of the requests that are the key's and wait into the order of `ids`, in their own turns."""
        async with self._database.write() as connection:
            mine = and_(request.c.id.in_(ids), request.c.key_id == key_id, request.c.state == State.IN_QUEUE)
            rows = sorted(await lock(connection, mine), key=lambda row: ids.index(row.id))
            if turns := dealt_out(rows):
                ordered = update(request).where(request.c.id.in_(turns))
                await connection.execute(ordered.values(turn=case(turns, value=request.c.id)))
        self._changes.announce(Topic.QUEUED)

    async def forget(self, request_id: str, by: Actor = SERVER) -> bool:
        """Lets a completed request, its inputs and its video expire now, and frees its idempotency key.

        Returns False if it is not completed or does not exist.
        """
        condition = (request.c.id == request_id) & (request.c.state == State.COMPLETED)
        values = {"expires_at": self._now, "idempotency_key": None, "idempotency_digest": None}
        async with self._database.write() as connection:
            forgotten = await connection.execute(update(request).where(condition).values(values))
            if forgotten.rowcount:
                videos = file.c.object.startswith(f"out/{request_id}/", autoescape=True)
                await connection.execute(update(file).where(videos).values(expires_at=self._now))
                await discard_inputs(connection, self._now, [request_id])
                await record(connection, self._now, by, Action.REQUEST_DELETED, request_id)
        return forgotten.rowcount > 0

    async def reap(self) -> Reaped:
        """Releases expired leases, completes requests past their start deadline and deletes expired ones."""
        expired = and_(request.c.state == State.IN_PROGRESS, request.c.lease_until <= self._now)
        too_long = overlong_leases(self._now)
        # Read first: every process reaps, and usually nothing is due.
        if not await self._is_any(expired, too_long, *self._late(), request.c.expires_at <= self._now):
            return Reaped(0, 0, 0)
        async with self._database.write() as connection:
            await self._database.serialise(connection, _SWEEP)
            await connection.execute(update(request).where(too_long).values(lease_until=self._now + LEASE))
            released = await release_all(connection, self._now, expired)
            reaped = Reaped(released, await self._time_out(connection), await self._delete_expired(connection))
        if reaped != Reaped(0, 0, 0):
            self._changes.announce(Topic.QUEUED if reaped.released else Topic.STATE)
        return reaped

    def _lease_first(self, candidates: Select[tuple[int]], worker: str) -> Executable:
        """Begins the next attempt at the first of the candidates."""
        first = candidates.order_by(*order_of(_waiting)).limit(1).with_for_update(skip_locked=True).scalar_subquery()
        return (
            update(request)
            .where(request.c.seq == first)
            .values(
                state=State.IN_PROGRESS,
                attempt=request.c.attempt + 1,
                worker=worker,
                lease_until=self._now + LEASE,
                started=self._now,
                progress=None,
                device_since=None,
            )
            .returning(*(request.c[name] for name in Lease.__slots__))
        )

    def _ready(self, pool: str, at_least: Priority) -> Select[tuple[int]]:
        """Selects the requests of the pool that can be claimed."""
        return select(_waiting.c.seq).where(
            _waiting.c.state == State.IN_QUEUE,
            _waiting.c.pool == pool,
            _waiting.c.priority <= at_least,
            or_(_waiting.c.not_before <= self._now, _waiting.c.not_before > self._now + LONGEST_RETRY_PAUSE),
            or_(_waiting.c.start_deadline.is_(None), _waiting.c.start_deadline > self._now),
            _waiting.c.key_id.not_in(keys_at_their_limit(self._database)),
        )

    async def _replay(self, new: NewRequest) -> Submitted | None:
        """Returns the request of an earlier submit with the same idempotency key, if any. Raises IdempotencyError."""
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
            await check_queue_length(self._database, connection, new)
            await check_submit(self._database, connection, new.key_id)
            request_id = str(uuid4())
            await connection.execute(self._insertion, first_row(new, request_id))
            await hold_inputs(connection, request_id, new)
            place_in_queue = await connection.scalar(select(position).where(request.c.id == request_id))
        self._changes.announce(Topic.QUEUED)
        if new.start_timeout is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(new.start_timeout + _CLOCK_STEP, self._changes.wake, Topic.DEADLINE)
        return Submitted(request_id, place_in_queue, replayed=False)

    async def _change_held(self, lease: Lease, **values: Any) -> bool:
        async with self._database.write_once() as connection:
            return (await connection.execute(update(request).where(held_by(lease)).values(values))).rowcount > 0

    async def _finished_before(self, connection: AsyncConnection, lease: Lease, outcome: Outcome) -> bool:
        """Returns whether this attempt has already completed the request with this outcome."""
        conditions = (request.c.id == lease.id, request.c.attempt == lease.attempt)
        row = (await connection.execute(select(*outcome_columns).where(*conditions))).one_or_none()
        return row is not None and outcome_of(row) == outcome

    async def _cancel(self, connection: AsyncConnection, condition: ColumnElement[bool], state: str) -> Cancellation:
        match state:
            case State.IN_QUEUE:
                await complete(connection, self._now, condition, CANCELLED)
                return Cancellation.REMOVED
            case State.IN_PROGRESS:
                await connection.execute(update(request).where(condition).values(cancel_requested=True))
                return Cancellation.REQUESTED
        return Cancellation.ALREADY_COMPLETED

    async def _return_to_queue(self, lease: Lease, failure: Failure | None) -> None:
        async with self._database.write() as connection:
            rows = await lock(connection, held_by(lease))
            if not rows:
                raise LeaseLostError(lease)
            pause = 0.0 if failure is None else RETRY_PAUSE * 2 ** rows[0].failures
            await release(connection, self._now, rows[0], failure, pause)
        self._changes.announce(Topic.QUEUED, after=pause)

    async def _time_out(self, connection: AsyncConnection) -> int:
        """Completes waiting requests past their start deadline. Returns their number."""
        ids = [row.id for row in await lock(connection, or_(*self._late()), skip_locked=True)]
        return len(await complete(connection, self._now, request.c.id.in_(ids), START_TIMEOUT))

    def _late(self) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """Returns the conditions for requests past their start deadline: in the queue, and waiting for a device."""
        is_late = request.c.start_deadline <= self._now
        return and_(request.c.state == State.IN_QUEUE, is_late), and_(*_waits_for_device(request), is_late)

    async def _is_any(self, *conditions: ColumnElement[bool]) -> bool:
        """Returns whether a request meets one of the conditions, each of which is looked up in an index of its own."""
        found = or_(*(select(request.c.seq).where(condition).exists() for condition in conditions))
        async with self._database.read() as connection:
            return bool(await connection.scalar(select(found)))

    async def _delete_expired(self, connection: AsyncConnection) -> int:
        """Deletes expired requests and their inputs, except those with a pending delivery, which needs the outcome."""
        pending = exists().where(delivery.c.request_id == request.c.id, delivery.c.state == "PENDING")
        expired = select(request.c.id).where(request.c.expires_at <= self._now, ~pending).limit(_SWEEP_LIMIT)
        ids = (await connection.execute(expired)).scalars().all()
        await discard_inputs(connection, self._now, ids)
        return (await connection.execute(delete(request).where(request.c.id.in_(ids)))).rowcount


def _held_up(pool: str, worker: str) -> Select[tuple[int]]:
    """Selects the requests of the pool that wait for the device of another worker than this one."""
    return select(_waiting.c.seq).where(
        *_waits_for_device(_waiting), _waiting.c.pool == pool, _waiting.c.worker != worker
    )


def _waits_for_device(row: FromClause) -> tuple[ColumnElement[bool], ...]:
    has_none = row.c.device_since.is_(None), row.c.progress["stage"].as_string() == WAITING
    return row.c.state == State.IN_PROGRESS, row.c.cancel_requested.is_(false()), *has_none
