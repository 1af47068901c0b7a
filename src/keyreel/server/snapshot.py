"""The live requests as of a moment ago, so that polling does not reach the database.

A request that is not here is completed, brand-new or unknown: the database says which.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import SQLAlchemyError

from keyreel.server.measures import WAIT
from keyreel.store import Store
from keyreel.store.records import LogEntry, State, Status

PERIOD = 0.25
"""Seconds until what another process changed is seen here."""
COST_SHARE = 10
"""A pause is at least so many times as long as the refresh before it: a long queue must not take all the time."""

RECOVERY = 1.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Log:
    """A copy of a live request's log. The lock is so that each line is read once."""

    entries: list[LogEntry] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Snapshot:
    """`changed` is set, and replaced, after each refresh: take it before you look, and wait for it after."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._live: dict[str, Status] = {}
        self._logs: dict[str, _Log] = {}
        self._refreshed = False
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
        """Live from memory, completed from the database; None: there is no such request."""
        if status := self._live.get(request_id):
            return status
        # Not during a refresh, which may have read before and be told of after: a status would go back.
        async with self._refreshing:
            return self._live.get(request_id) or await self._store.requests.status(request_id)

    async def completed(self, request_id: str) -> Status:
        """Waits for the end of a request that is known."""
        while True:
            changed = self.changed
            status = await self.status(request_id)
            if status is None:
                raise LookupError(f"Request {request_id} is gone.")
            if status.state is State.COMPLETED:
                return status
            await changed.wait()

    async def log(self, status: Status) -> list[LogEntry]:
        """The request's log, at least as long as when the status was taken."""
        if status.state is State.COMPLETED or status.id not in self._live:
            return await self._store.requests.log(status.id)
        log = self._logs.setdefault(status.id, _Log())
        async with log.lock:
            if len(log.entries) < status.log_lines:
                last = log.entries[-1].number if log.entries else 0
                log.entries += await self._store.requests.log(status.id, after=last)
        return log.entries

    async def refresh(self) -> None:
        """Reads the live requests: what was committed before the call is seen after it."""
        async with self._refreshing:
            live = {status.id: status for status in await self._store.requests.live()}
            self._measure(live)
            self._logs = {request_id: log for request_id, log in self._logs.items() if request_id in live}
            self._live, self._refreshed = live, True
        # Also when nothing seems to have changed: a short request can come and go between two refreshes.
        self.changed.set()
        self.changed = asyncio.Event()

    def _measure(self, live: dict[str, Status]) -> None:
        """How long those that have just started had to wait."""
        if not self._refreshed:
            return
        for status in live.values():
            before = self._live.get(status.id)
            if status.started and status.attempt == 1 and (before is None or before.state is State.IN_QUEUE):
                WAIT.labels(status.pool).observe(status.started - status.created)

    async def _follow(self) -> None:
        while True:
            committed = self._store.database.changed
            start = time.monotonic()
            try:
                await self.refresh()
            except (SQLAlchemyError, OSError):
                # What is known stays known; the routes that need the database say themselves that it is away.
                _log.exception("snapshot not refreshed")
                await asyncio.sleep(RECOVERY)
            pause = COST_SHARE * (time.monotonic() - start)
            await asyncio.sleep(pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD - pause):
                    await committed.wait()
