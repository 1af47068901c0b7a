"""One attempt at one request: its lease renewed, its progress reported, its early end brought about."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError

from keyreel.events import Notice, Stage, Step
from keyreel.store import Store
from keyreel.store.records import Lease, Standing
from keyreel.worker.metrics import Stopwatch
from keyreel.worker.report import Report
from keyreel.worker.waiting import first_of

T = TypeVar("T")

BEAT = 2.0
"""Seconds from one beat to the next, at most."""
BEAT_PAUSE = 0.25
"""Seconds from one beat to the next, at least."""
LOOK_PAUSE = 0.02
"""Seconds between two looks at whether the request is cancelled, at least."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds between tries to write down an outcome: together about as long as a lease lasts."""
STORE_ERRORS = (DBAPIError, OSError)
"""The database is away, busy or full."""

_log = structlog.get_logger(__name__)


class Interruption(Enum):
    """Why an attempt ends before its time."""

    CANCELLED = auto()
    LOST = auto()
    """Somebody else has the request."""
    RELEASED = auto()
    """The worker leaves: somebody else shall have the request."""


class InterruptedAttemptError(Exception):
    def __init__(self, why: Interruption) -> None:
        super().__init__(why.name)
        self.why = why


class Attempt:
    """Create it with the lease and keep it with `kept`. The first interruption counts."""

    def __init__(self, store: Store, lease: Lease) -> None:
        self.lease = lease
        self.report = Report()
        self.stopwatch = Stopwatch()
        self._store = store
        self._beating = asyncio.Lock()
        self._interruption: asyncio.Future[Interruption] = asyncio.get_running_loop().create_future()

    @property
    def id(self) -> str:
        return f"{self.lease.id}-{self.lease.attempt}"

    def interrupt(self, why: Interruption) -> None:
        if not self._interruption.done():
            self._interruption.set_result(why)

    def note(self, event: Stage | Step | Notice) -> None:
        self.report.show(event)
        self.stopwatch.note(event)

    async def interrupted(self) -> Interruption:
        """Waits for it."""
        return await asyncio.shield(self._interruption)

    def check(self) -> None:
        """Raises InterruptedAttemptError."""
        if self._interruption.done():
            raise InterruptedAttemptError(self._interruption.result())

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Beats throughout the block. The block itself has to end when what it waits for shows no life."""
        over = asyncio.Event()
        tasks = asyncio.create_task(self._keep(over)), asyncio.create_task(self._look_out(over))
        try:
            yield
        finally:
            over.set()
            await asyncio.gather(*tasks)  # not cancelled: they may be in the middle of a transaction

    async def unless_interrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result. An interruption cancels the work and is raised."""
        task = asyncio.create_task(work)
        either: list[asyncio.Future[Any]] = [task, self._interruption]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        raise InterruptedAttemptError(self._interruption.result())

    async def beat(self) -> None:
        """One beat. When the store does not answer, the lease grows older: no more than that."""
        async with self._beating:
            progress, lines = self.report.news()
            try:
                standing = await self._store.queue.beat(self.lease, progress, lines)
            except STORE_ERRORS:
                _log.warning("no_beat", exc_info=True)
                return
            self.report.told(progress, len(lines))
        if standing is Standing.CANCELLED:
            self.interrupt(Interruption.CANCELLED)
        elif standing is Standing.LOST:
            self.interrupt(Interruption.LOST)

    async def _keep(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self.beat()
            await first_of(over, timeout=BEAT_PAUSE)
            await first_of(over, self.report.changed, timeout=BEAT - BEAT_PAUSE)

    async def _look_out(self, over: asyncio.Event) -> None:
        """A cancel that came through this process is seen before the next beat."""
        while not over.is_set():
            changed = self._store.database.changed
            if await self._is_cancelled():
                self.interrupt(Interruption.CANCELLED)
                return
            await first_of(over, timeout=LOOK_PAUSE)
            await first_of(over, changed)

    async def _is_cancelled(self) -> bool:
        try:
            status = await self._store.requests.status(self.lease.id)
        except STORE_ERRORS:
            return False
        return status is not None and status.cancel_requested


async def insist(action: Callable[[], Awaitable[None]]) -> None:
    """Does it again while the database is away: an outcome is worth waiting for."""
    for pause in PAUSES:
        try:
            return await action()
        except STORE_ERRORS:
            _log.warning("store_failed", exc_info=True)
            await asyncio.sleep(pause)
    return await action()
