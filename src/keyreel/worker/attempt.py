"""One attempt at a request: renews the lease, reports progress and notices when the attempt must end early."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Any, TypeVar

import structlog

from keyreel.store import STORE_ERRORS, Store
from keyreel.store.errors import described
from keyreel.store.records import Lease, LeaseStatus
from keyreel.store.transitions import LEASE
from keyreel.video.events import Notice, Stage, Step
from keyreel.worker.report import Report
from keyreel.worker.stopwatch import Stopwatch
from keyreel.worker.waiting import wait_for_any

T = TypeVar("T")

HEARTBEAT_INTERVAL = 2.0
"""Maximum seconds between two heartbeats."""
HEARTBEAT_PAUSE = 1.0
"""Minimum seconds between two heartbeats: each is a write to the database."""
STAGE_PAUSE = 0.25
"""Minimum seconds between a heartbeat and one that tells of a new stage."""
FENCE_MARGIN = 5.0
"""Seconds before the lease expires at which a worker without a successful heartbeat stops."""

_log = structlog.get_logger(__name__)


class Interruption(Enum):
    """Why an attempt ends early."""

    CANCELLED = auto()
    LOST = auto()
    """The lease expired and was taken back, or the request is completed."""
    CUT_OFF = auto()
    """The database could not be reached for almost the time of a lease. Another worker may take the request soon."""
    RELEASED = auto()
    """The worker is shutting down; another worker takes the request."""
    PREEMPTED = auto()
    """A request of higher priority needs the device. The request goes on later."""


class InterruptedAttemptError(Exception):
    """The attempt was interrupted. `why` tells the reason."""

    def __init__(self, why: Interruption) -> None:
        super().__init__(why.name)
        self.why = why


class Attempt:
    """The lease of one request, with its log, its timing and its interruption.

    The lease is renewed only within the block of `heartbeats`. The first interruption counts; later ones are ignored.

    ended: set when nothing of the attempt runs any more.
    """

    def __init__(self, store: Store, lease: Lease, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease = lease
        self.report = Report()
        self.stopwatch = Stopwatch()
        self.ended = asyncio.Event()
        self._store = store
        self._clock = clock
        self._renewed = clock()
        self._heartbeat_lock = asyncio.Lock()
        self._interruption = _undecided()

    @property
    def id(self) -> str:
        return f"{self.lease.id}-{self.lease.attempt}"

    def interrupt(self, why: Interruption) -> None:
        if not self._interruption.done():
            self._interruption.set_result(why)

    def forget_preemption(self) -> None:
        """Ignores a preemption that came too late: the device is free already."""
        if self._interruption.done() and self._interruption.result() is Interruption.PREEMPTED:
            self._interruption = _undecided()

    def record(self, event: Stage | Step | Notice) -> None:
        self.report.record(event)
        self.stopwatch.record(event)

    async def wait_for_interruption(self) -> Interruption:
        """Waits until the attempt is interrupted and returns the reason."""
        return await asyncio.shield(self._interruption)

    def raise_if_interrupted(self) -> None:
        """Raises InterruptedAttemptError if the attempt was interrupted."""
        if self._interruption.done():
            raise InterruptedAttemptError(self._interruption.result())

    @asynccontextmanager
    async def heartbeats(self) -> AsyncIterator[None]:
        """Renews the lease throughout the block. A block that hangs keeps its lease, so it needs its own timeouts."""
        done = asyncio.Event()
        # In this order: a cancel that the first heartbeat does not see wakes the watch.
        loops = self._watch_for_cancel, self._send_heartbeats, self._watch_lease
        tasks = [asyncio.create_task(loop(done)) for loop in loops]
        try:
            yield
        finally:
            done.set()
            # Not cancelled: a task may be in the middle of a transaction.
            await asyncio.gather(*tasks)

    async def unless_interrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns the result of `work`. An interruption cancels `work` and raises InterruptedAttemptError."""
        task = asyncio.create_task(work)
        futures: list[asyncio.Future[Any]] = [task, self._interruption]
        try:
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        raise InterruptedAttemptError(self._interruption.result())

    async def heartbeat(self) -> None:
        """Renews the lease and sends the report. When the store fails, the next heartbeat sends the report again."""
        async with self._heartbeat_lock:
            progress, lines = self.report.unsent()
            sent = self._clock()
            try:
                status = await self._store.queue.heartbeat(self.lease, progress, lines)
            except STORE_ERRORS as error:
                _log.warning("heartbeat_failed", **described(error))
                return
            self._renewed = sent
            self.report.mark_sent(progress, len(lines))
        if status is LeaseStatus.CANCELLED:
            self.interrupt(Interruption.CANCELLED)
        elif status is LeaseStatus.LOST:
            self.interrupt(Interruption.LOST)

    async def enter_device(self) -> None:
        """Begins to count the time on the device as used by the request's key. Notices a lost lease."""
        if await self._count(self._store.queue.enter_device(self.lease)) is False:
            self.interrupt(Interruption.LOST)

    async def leave_device(self) -> None:
        await self._count(self._store.queue.leave_device(self.lease))

    async def _count(self, recording: Coroutine[Any, Any, T]) -> T | None:
        """Records a use. That it cannot be recorded must not fail the request."""
        try:
            return await recording
        except STORE_ERRORS as error:
            _log.warning("device_time_not_recorded", **described(error))
            return None

    async def _send_heartbeats(self, done: asyncio.Event) -> None:
        while not done.is_set():
            await self.heartbeat()
            await wait_for_any(done, timeout=STAGE_PAUSE)
            await wait_for_any(done, self.report.stage_changed, timeout=HEARTBEAT_PAUSE - STAGE_PAUSE)
            await wait_for_any(done, self.report.changed, timeout=HEARTBEAT_INTERVAL - HEARTBEAT_PAUSE)

    async def _watch_lease(self, done: asyncio.Event) -> None:
        """Interrupts the attempt before its lease can expire. A lease counts from when its heartbeat was sent."""
        while not done.is_set():
            left = self._renewed + LEASE - FENCE_MARGIN - self._clock()
            if left <= 0:
                self.interrupt(Interruption.CUT_OFF)
                return
            await wait_for_any(done, timeout=left)

    async def _watch_for_cancel(self, done: asyncio.Event) -> None:
        """Sends a heartbeat, which brings back the cancel, as soon as this process hears of one."""
        while not (done.is_set() or self._interruption.done()):
            cancelled = self._store.database.changes.cancel_of(self.lease.id)
            await wait_for_any(done, cancelled)
            if cancelled.is_set():
                await self.heartbeat()


def _undecided() -> asyncio.Future[Interruption]:
    return asyncio.get_running_loop().create_future()
