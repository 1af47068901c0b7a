"""The supervisor of one device: it outlives its children, says how the worker is, and leaves in good order."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from keyreel.errors import ModelError
from keyreel.marking import open_marker
from keyreel.store.records import Worker
from keyreel.worker import metrics
from keyreel.worker.attempt import STORE_ERRORS
from keyreel.worker.context import WorkerContext
from keyreel.worker.guard import WorkerGuard
from keyreel.worker.inputs import Preparer
from keyreel.worker.messages import Load, LoadFailed, Ready
from keyreel.worker.process import CHILD, GUARD, PREPARER, Process, ProcessGoneError
from keyreel.worker.session import Session
from keyreel.worker.waiting import first_of

REPORT_EVERY = 10.0
"""Seconds."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
"""Seconds from a child's death to the next child: the double of the last time, unless it made a video."""

_log = structlog.get_logger(__name__)


async def supervise(
    context: WorkerContext,
    *,
    model: str,
    device: str | None,
    stop: asyncio.Event,
    child: Sequence[str] = CHILD,
    preparer: Sequence[str] = PREPARER,
    guard: Sequence[str] = GUARD,
) -> None:
    """Serves until `stop` is set; then finishes or hands back what it has and returns.

    child, preparer, guard: the programs to run. Raises ModelError when the model cannot be loaded here.
    """
    settings = context.settings
    supervisor = Supervisor(
        context, Load(model, device, settings.cache_dir, settings.wishes), stop, child, preparer, guard
    )
    over = asyncio.Event()
    presence = asyncio.create_task(supervisor.report_presence(over))
    try:
        await supervisor.run()
    finally:
        over.set()
        await presence


class Supervisor:
    def __init__(
        self,
        context: WorkerContext,
        load: Load,
        stop: asyncio.Event,
        child: Sequence[str],
        preparer: Sequence[str],
        guard: Sequence[str],
    ) -> None:
        self._context = context
        self._load_order = load
        self._stop = stop
        self._child = child
        self._preparer = Preparer(preparer)
        self._guard = WorkerGuard(context.settings, guard)
        self._marker = open_marker(context.settings)
        self._worker = Worker(context.name, context.pool, load.device or "", load.model, ready=False)
        self._worker_changed = asyncio.Event()
        self._was_ready = False

    async def run(self) -> None:
        folder = _empty_folder(self._context.spool / self._context.name)
        pause = FIRST_PAUSE
        await self._disown()
        await self._preparer.start()
        try:
            while not self._stop.is_set():
                if await self._one_child(folder):
                    pause = FIRST_PAUSE
                await first_of(self._stop, timeout=pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            await self._preparer.close()
            await self._guard.close()
            shutil.rmtree(folder, ignore_errors=True)

    async def report_presence(self, over: asyncio.Event) -> None:
        """The worker's row, as long as there is a worker."""
        workers = self._context.store.workers
        try:
            while not over.is_set():
                self._worker_changed.clear()
                await workers.report(self._worker)
                await first_of(over, self._worker_changed, timeout=REPORT_EVERY)
            await workers.remove(self._worker.name)
        except STORE_ERRORS:
            _log.warning("presence_not_reported", exc_info=True)

    async def _one_child(self, folder: Path) -> int:
        """From its start to its end; how many videos it made."""
        process = await Process.start(self._child)
        try:
            facts = await self._load(process)
            await self._open_guard(facts)
            _log.info("ready", model=facts.name, device=facts.device, pid=process.pid)
            self._become(replace(self._worker, device=facts.device, ready=True))
            session = Session(
                self._context, process, facts, self._preparer, self._guard, self._marker, folder, self._stop
            )
            await session.serve()
            return session.made
        except ProcessGoneError as error:
            if not self._stop.is_set():
                _log.error("not_loaded", reason=str(error))
            return 0
        finally:
            self._become(replace(self._worker, ready=False))
            await process.close()
            if not self._stop.is_set():
                metrics.restarts.inc()

    async def _load(self, process: Process) -> Ready:
        """Raises ProcessGoneError, also when the supervisor is told to stop; ModelError if it never worked."""
        impatience = asyncio.create_task(self._kill_on_stop(process))
        try:
            await process.send(self._load_order)
            answer = await process.receive()
        finally:
            impatience.cancel()
        if isinstance(answer, Ready):
            self._was_ready = True
            return answer
        reason = answer.message if isinstance(answer, LoadFailed) else f"answered with {type(answer).__name__}"
        # A model that has been loaded before will be loaded again, when the disk or the memory is back.
        raise ProcessGoneError(reason) if self._was_ready else ModelError(reason)

    async def _open_guard(self, model: Ready) -> None:
        """Raises ProcessGoneError when the supervisor is told to stop, ModelError if a checker cannot be loaded."""
        impatience = asyncio.create_task(self._close_guard_on_stop())
        try:
            await self._guard.open(model)
        finally:
            impatience.cancel()

    async def _close_guard_on_stop(self) -> None:
        await self._stop.wait()
        await self._guard.close()

    async def _kill_on_stop(self, process: Process) -> None:
        await self._stop.wait()
        process.kill()

    async def _disown(self) -> None:
        """Requests that a killed process of this name has left need not wait for their leases to expire."""
        try:
            if disowned := await self._context.store.queue.disown(self._context.name):
                _log.warning("taken_back", requests=disowned)
        except STORE_ERRORS:
            _log.warning("not_taken_back", exc_info=True)

    def _become(self, worker: Worker) -> None:
        self._worker = worker
        self._worker_changed.set()


def _empty_folder(path: Path) -> Path:
    """What a killed supervisor of the same name left there goes."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
