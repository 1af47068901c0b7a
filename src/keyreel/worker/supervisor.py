"""The supervisor of one device: starts its processes, replaces those that die, reports its state and drains."""

import asyncio
import shutil
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import structlog

from keyreel import metrics
from keyreel.checkpoints import hub
from keyreel.errors import ModelError
from keyreel.safety.c2pa import open_marker
from keyreel.store import STORE_ERRORS
from keyreel.store.errors import described
from keyreel.store.records import Worker
from keyreel.worker.context import WorkerContext
from keyreel.worker.environment import of_models
from keyreel.worker.guard import WorkerGuard
from keyreel.worker.inputs import Decoder
from keyreel.worker.messages import Load, LoadFailed, Ready
from keyreel.worker.process import DECODE_PROCESS, ENGINE_PROCESS, GUARD_PROCESS, Process, ProcessGoneError
from keyreel.worker.sandbox import probe, require
from keyreel.worker.session import Session
from keyreel.worker.waiting import wait_for_any

REPORT_INTERVAL = 10.0
"""Seconds between two reports of the worker's state."""
FIRST_PAUSE = 0.5
"""Seconds before a dead engine process is replaced. The pause doubles each time, until a process makes a video."""
LONGEST_PAUSE = 60.0

_log = structlog.get_logger(__name__)


async def supervise(
    context: WorkerContext,
    *,
    model: str,
    device: str | None,
    stop: asyncio.Event,
    engine_process: Sequence[str] = ENGINE_PROCESS,
    decode_process: Sequence[str] = DECODE_PROCESS,
    guard_process: Sequence[str] = GUARD_PROCESS,
) -> None:
    """Serves requests until `stop` is set, then finishes or hands back the ones it holds.

    engine_process, decode_process, guard_process: the programs to run.
    Raises ModelError when the model or a checker cannot be loaded, and KeyreelError when the settings demand a sandbox
    that this system does not offer.
    """
    settings = context.settings
    if settings.sandbox == "required":
        require(await asyncio.to_thread(probe))
    load = Load(model, device, settings.cache_dir, settings.recipe_settings, hub.own_token())
    supervisor = Supervisor(context, load, stop, engine_process, decode_process, guard_process)
    done = asyncio.Event()
    presence = asyncio.create_task(supervisor.report_presence(done))
    try:
        await supervisor.run()
    finally:
        done.set()
        await presence


class Supervisor:
    """Keeps one engine process running, with the decode process and the guard process beside it."""

    def __init__(
        self,
        context: WorkerContext,
        load: Load,
        stop: asyncio.Event,
        engine_process: Sequence[str],
        decode_process: Sequence[str],
        guard_process: Sequence[str],
    ) -> None:
        self._context = context
        self._load_message = load
        self._stop = stop
        self._engine_process = engine_process
        self._decoder = Decoder(decode_process)
        self._guard = WorkerGuard(context.settings, guard_process)
        self._marker = open_marker(context.settings)
        self._worker = Worker(context.name, context.pool, load.device or "", load.model, ready=False)
        self._worker_changed = asyncio.Event()
        self._was_ready = False

    async def run(self) -> None:
        """Runs one engine process after the other until the supervisor is told to stop. Raises WorkerNameTakenError."""
        async with AsyncExitStack() as stack:
            if await self._take_name(stack):
                await self._run()

    async def _take_name(self, stack: AsyncExitStack) -> bool:
        """Holds the name until `stack` is closed, once the database answers. Returns False when told to stop."""
        while not self._stop.is_set():
            try:
                await stack.enter_async_context(self._context.store.database.hold_name(self._context.name))
                return True
            except STORE_ERRORS as error:
                _log.warning("name_not_taken", **described(error))
            await wait_for_any(self._stop, timeout=FIRST_PAUSE)
        return False

    async def _run(self) -> None:
        folder = _empty_folder(self._context.spool / self._context.name)
        pause = FIRST_PAUSE
        await self._release_stale_requests()
        await self._decoder.start()
        try:
            while not self._stop.is_set():
                if await self._run_engine(folder):
                    pause = FIRST_PAUSE
                await wait_for_any(self._stop, timeout=pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            await self._decoder.close()
            await self._guard.close()
            shutil.rmtree(folder, ignore_errors=True)

    async def report_presence(self, done: asyncio.Event) -> None:
        """Keeps the worker's row up to date until `done` is set, then removes it. A failed report is repeated later."""
        workers = self._context.store.workers
        while not done.is_set():
            self._worker_changed.clear()
            await self._report(workers.report(self._presence()))
            await wait_for_any(done, self._worker_changed, timeout=REPORT_INTERVAL)
        await self._report(workers.remove(self._worker.name))

    def _presence(self) -> Worker:
        """Returns what the worker reports. While its disk is low it takes no request, so it is not ready."""
        disk = self._context.disk
        if not disk.is_low:
            return self._worker
        _log.warning("disk_low", folder=str(disk.folders[0]), free=disk.free, floor=disk.floor)
        return replace(self._worker, ready=False)

    async def _report(self, statement: Awaitable[None]) -> None:
        try:
            await statement
        except STORE_ERRORS as error:
            _log.warning("presence_not_reported", **described(error))

    async def _run_engine(self, folder: Path) -> int:
        """Runs one engine process from start to end. Returns how many videos it made."""
        process = await Process.start(self._engine_process, of_models())
        try:
            facts = await self._load(process)
            await self._open_guard(facts)
            _log.info("ready", model=facts.name, device=facts.device, pid=process.pid)
            self._set_worker(replace(self._worker, device=facts.device, ready=True))
            session = Session(
                self._context, process, facts, self._decoder, self._guard, self._marker, folder, self._stop
            )
            await session.serve()
            return session.videos_made
        except ProcessGoneError as error:
            if not self._stop.is_set():
                _log.error("not_loaded", reason=str(error))
            return 0
        finally:
            self._set_worker(replace(self._worker, ready=False))
            await process.close()
            if not self._stop.is_set():
                metrics.ENGINE_RESTARTS.inc()

    async def _load(self, process: Process) -> Ready:
        """Loads the model.

        Raises ProcessGoneError, also when the supervisor is told to stop, or ModelError if loading never succeeded.
        """
        watcher = asyncio.create_task(self._kill_on_stop(process))
        try:
            await process.send(self._load_message)
            answer = await process.receive()
        finally:
            watcher.cancel()
        if isinstance(answer, Ready):
            self._was_ready = True
            return answer
        unexpected = f"The engine process answered with {type(answer).__name__}"
        reason = answer.message if isinstance(answer, LoadFailed) else unexpected
        # A model that has been loaded before is retried: the disk or the memory may be available again later.
        raise ProcessGoneError(reason) if self._was_ready else ModelError(reason)

    async def _open_guard(self, model: Ready) -> None:
        """Loads the guard.

        Raises ProcessGoneError when the supervisor is told to stop, or ModelError if a checker cannot be loaded.
        """
        watcher = asyncio.create_task(self._close_guard_on_stop())
        try:
            await self._guard.open(model)
        finally:
            watcher.cancel()

    async def _close_guard_on_stop(self) -> None:
        await self._stop.wait()
        await self._guard.close()

    async def _kill_on_stop(self, process: Process) -> None:
        await self._stop.wait()
        process.kill()

    async def _release_stale_requests(self) -> None:
        """Releases requests that a killed supervisor of this name held, so that they need not wait for lease expiry."""
        try:
            if released := await self._context.store.queue.release_worker(self._context.name):
                _log.warning("stale_requests_released", requests=released)
        except STORE_ERRORS as error:
            _log.warning("stale_requests_not_released", **described(error))

    def _set_worker(self, worker: Worker) -> None:
        self._worker = worker
        self._worker_changed.set()


def _empty_folder(path: Path) -> Path:
    """Creates the folder, without what a killed supervisor of the same name left there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
