"""What polling clients are told, at little cost to the database.

A copy of the running requests and of the places in the queue answers for a server that has the database for itself, as
long as nothing has changed since. In a fleet another process may have told of a change that is not known here, so the
state is read again, by one statement for all clients, and the copy gives the place in the queue. A status therefore
never goes back, whichever gateway is asked.

Of the requests that wait, only ids and places are read each time. Nothing else of them changes until they are claimed,
so their rows are read once.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import structlog

from keyreel import metrics
from keyreel.server.shared_reads import SharedReads
from keyreel.store import STORE_ERRORS, Store, Topic
from keyreel.store.errors import described
from keyreel.store.records import LogEntry, State, Status
from keyreel.store.requests import Place
from keyreel.worker.waiting import wait_for_any

PERIOD = 1.0
"""Seconds until a change is visible here at the latest: progress in another process, or a lost notification."""
COST_SHARE = 10
"""Each pause is at least this many times as long as the refresh before it: a long queue must not take all the time."""
LONGEST_PAUSE = 2.0
"""Seconds between two refreshes, at most, so that a slow database does not make the snapshot stale."""
NEW_ROWS = 1000
"""Rows of waiting requests that a refresh reads at most: a process that starts must not read a long queue at once."""
RECOVERY = 1.0
"""Seconds to wait after a failed refresh."""
STALE = 5.0
"""Seconds after which a copy is too old for a place in the queue: the process was stopped, or a refresh failed."""
ANSWER_TIMEOUT = 2.0
"""Seconds that the database has to tell a state, twice, before a client is told what was last known."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Log:
    """A copy of a live request's log. The lock makes sure that each line is read once."""

    entries: list[LogEntry] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Snapshot:
    """The live requests. `changed` is set and replaced after each refresh: get it before reading, then wait for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reads = SharedReads(store.requests)
        self._running: dict[str, Status] = {}
        self._queue: dict[str, Place] = {}
        self._waiting: dict[str, Status] = {}
        self._outdated_by = self._next_changes()
        self._logs: dict[str, _Log] = {}
        self._refreshed = False
        self._copied = -math.inf
        self._refreshing = asyncio.Lock()
        self.changed = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the snapshot fresh during the block."""
        await self.refresh()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._follow())
            try:
                yield
            finally:
                task.cancel()

    async def status(self, request_id: str) -> Status | None:
        """Returns the status as of after the call. None: not found.

        While the database does not answer, it is what was last known of a live request.
        """
        known = self._known(request_id)
        if known and self._is_current():
            return known
        # Twice: one connection may have broken, and a process that was stopped finds that its time is over.
        for _ in range(2):
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT if known else None):
                    return await self._read(request_id)
            except STORE_ERRORS:
                if known is None:
                    raise
        return known

    async def completed(self, request_id: str) -> Status:
        """Waits until a request is completed and returns its status. Raises LookupError when it does not exist."""
        while True:
            changed = self.changed
            status = await self.status(request_id)
            if status is None:
                raise LookupError(f"Request {request_id} does not exist any more.")
            if status.state is State.COMPLETED:
                return status
            await changed.wait()

    def position(self, request_id: str) -> int | None:
        """Returns how many requests go before one that waits, as of the last refresh. None: it did not wait then."""
        place = self._queue.get(request_id)
        return place.position if place else None

    async def log(self, status: Status) -> list[LogEntry]:
        """Returns the request's log, with at least the lines that it had when `status` was read."""
        if status.state is State.COMPLETED or not self._is_live(status.id):
            return await self._store.requests.log(status.id)
        log = self._logs.setdefault(status.id, _Log())
        async with log.lock:
            if len(log.entries) < status.log_lines:
                last = log.entries[-1].number if log.entries else 0
                log.entries += await self._store.requests.log(status.id, after=last)
        return log.entries

    async def refresh(self) -> None:
        """Reads the live requests. What was committed before the call is visible after it."""
        async with self._refreshing:
            changes = self._next_changes()
            # In this order: what is claimed between the two is in both, and runs.
            queue = await self._store.requests.queue()
            running = {status.id: status for status in await self._store.requests.running()}
            waiting = await self._rows_of(queue)
            self._measure(running)
            self._running, self._queue, self._waiting = running, queue, waiting
            self._outdated_by, self._refreshed = changes, True
            self._logs = {key: log for key, log in self._logs.items() if self._is_live(key)}
            self._copied = time.monotonic()
        # Set even if nothing seems to have changed: a short request can start and end between two refreshes.
        self.changed.set()
        self.changed = asyncio.Event()

    async def _read(self, request_id: str) -> Status | None:
        status = await self._reads.status(request_id)
        if status is None or status.state is not State.IN_QUEUE:
            return status
        # It may have only just come into the queue.
        if not self._is_placed(status) or time.monotonic() > self._copied + STALE:
            return await self._store.requests.status(request_id)
        return self._placed(status)

    async def _rows_of(self, queue: dict[str, Place]) -> dict[str, Status]:
        """Returns the rows of requests that wait: those that are known, and some that are new in the queue."""
        known = self._waiting
        rows = {key: row for key, at in queue.items() if (row := known.get(key)) and row.attempt == at.attempt}
        new = islice((key for key in queue if key not in rows), NEW_ROWS)
        return rows | await self._store.requests.statuses(list(new))

    def _known(self, request_id: str) -> Status | None:
        """Returns the status of a live request as the copy has it, if it does."""
        if running := self._running.get(request_id):
            return running
        waiting = self._waiting.get(request_id)
        return self._placed(waiting) if waiting and self._is_placed(waiting) else None

    def _placed(self, status: Status) -> Status:
        return replace(status, position=self._queue[status.id].position)

    def _is_placed(self, status: Status) -> bool:
        """Returns whether the copy has the place of a request that waits, and not of an earlier time in the queue."""
        place = self._queue.get(status.id)
        return place is not None and place.attempt == status.attempt and status.state is State.IN_QUEUE

    def _is_live(self, request_id: str) -> bool:
        return request_id in self._running or request_id in self._queue

    def _is_current(self) -> bool:
        """Returns whether the copy's states are those in the database. In a fleet that is not known."""
        return not (self._store.database.is_shared or any(change.is_set() for change in self._outdated_by))

    def _next_changes(self) -> tuple[asyncio.Event, ...]:
        """Returns the events that the next change of a state sets."""
        changes = self._store.database.changes
        return changes.of(Topic.QUEUED), changes.of(Topic.CANCEL), changes.of(Topic.STATE)

    def _measure(self, running: dict[str, Status]) -> None:
        """Records how long the requests that have just started had to wait."""
        if not self._refreshed:
            return
        for status in running.values():
            if status.started and status.attempt == 1 and status.id not in self._running:
                metrics.QUEUE_WAIT.labels(status.pool).observe(status.started - status.created)

    async def _follow(self) -> None:
        while True:
            committed = self._store.database.changes.any
            start = time.monotonic()
            try:
                await self.refresh()
            except STORE_ERRORS as error:
                # The last snapshot stays in use; routes that need the database report its failure themselves.
                _log.error("snapshot not refreshed", **described(error))
                await asyncio.sleep(RECOVERY)
                continue
            pause = pause_after(time.monotonic() - start)
            await asyncio.sleep(pause)
            await wait_for_any(committed, timeout=max(0.0, PERIOD - pause))


def pause_after(cost: float) -> float:
    """Returns the seconds to pause after a refresh that took `cost` seconds."""
    return min(COST_SHARE * cost, LONGEST_PAUSE)
