"""The supervisor of one device: it outlives its children, says how the worker is, and leaves in good order."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from keyreel.errors import ModelError
from keyreel.store.records import Worker
from keyreel.worker import metrics
from keyreel.worker.attempt import STORE_ERRORS
from keyreel.worker.context import WorkerContext
from keyreel.worker.inputs import Preparer
from keyreel.worker.messages import Load, LoadFailed, Ready
from keyreel.worker.process import CHILD, PREPARER, Process, ProcessGoneError
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
) -> None:
    """Serves until `stop` is set; then finishes or hands back what it has and returns.

    child, preparer: the programs to run. Raises ModelError when the model cannot be loaded here.
    """
    supervisor = Supervisor(context, Load(model, device, context.settings.cache_dir), stop, child, preparer)
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
    ) -> None:
        self._context = context
        self._load_order = load
        self._stop = stop
        self._child = child
        self._preparer = Preparer(preparer)
        self._worker = Worker(context.name, context.pool, load.device or "", load.model, ready=False)
        self._worker_changed = asyncio.Event()
        self._was_ready = False

    async def run(self) -> None:
        folder = _empty_folder(self._context.spool / self._context.name)
        pause = FIRST_PAUSE
        await self._preparer.start()
        try:
            while not self._stop.is_set():
                if await self._one_child(folder):
                    pause = FIRST_PAUSE
                await first_of(self._stop, timeout=pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            await self._preparer.close()
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
            _log.info("ready", model=facts.name, device=facts.device, pid=process.pid)
            self._become(replace(self._worker, device=facts.device, ready=True))
            session = Session(self._context, process, facts, self._preparer, folder, self._stop)
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

    async def _kill_on_stop(self, process: Process) -> None:
        await self._stop.wait()
        process.kill()

    def _become(self, worker: Worker) -> None:
        self._worker = worker
        self._worker_changed.set()


def _empty_folder(path: Path) -> Path:
    """What a killed supervisor of the same name left there goes."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
