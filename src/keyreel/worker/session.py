"""Runs requests on one engine process.

The device waits for nothing but its next order: the next request is prepared while it is busy, and a drawn video is
encoded, checked, signed and stored while it draws the next one.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from opentelemetry.trace import SpanKind

from keyreel import traces
from keyreel.errors import RequestError
from keyreel.fal.endpoints import ENDPOINTS
from keyreel.fal.schema import Request
from keyreel.safety.c2pa import Marker
from keyreel.safety.provenance import metadata
from keyreel.store import STORE_ERRORS, Topic
from keyreel.store.errors import described
from keyreel.store.queue import WAITING
from keyreel.store.records import Lease, LeaseLostError, Priority
from keyreel.video.events import Notice, Stage
from keyreel.worker.attempt import Attempt, InterruptedAttemptError, Interruption
from keyreel.worker.checkpoint_file import identity_of
from keyreel.worker.checkpoints import Checkpoints
from keyreel.worker.claimed import read_claimed
from keyreel.worker.completion import complete, give_up, refuse, retry
from keyreel.worker.context import WorkerContext
from keyreel.worker.device import DeviceLock
from keyreel.worker.guard import WorkerGuard, with_prompt
from keyreel.worker.inputs import Decoder, RetryableError, delete_refused, prepare_inputs, redacted
from keyreel.worker.messages import Ready, Run, Spooled
from keyreel.worker.previews import Previews
from keyreel.worker.process import Process
from keyreel.worker.runs import EngineRun, Runs
from keyreel.worker.waiting import wait_for_any

POLL_INTERVAL = 5.0
"""Seconds between two looks into the queue when nothing is announced: a notification may be lost."""
POLL_PAUSE = 0.05
"""Minimum seconds between two looks into the queue."""
PROBE = "probe"
"""An object that does not exist. Only whether the object store answers is asked."""
PROBE_TIMEOUT = 5.0
COURTESY = 0.2
"""Seconds by which a worker with a busy device looks later than an idle one after a submit."""

_log = structlog.get_logger(__name__)


class Session:
    """The time of one engine process, which has loaded `model`.

    The session closes when `stop` is set or the engine process is gone.

    folder: for the temporary files of its requests.
    videos_made: how many videos it has completed.
    """

    def __init__(
        self,
        context: WorkerContext,
        engine: Process,
        model: Ready,
        decoder: Decoder,
        guard: WorkerGuard,
        marker: Marker | None,
        folder: Path,
        stop: asyncio.Event,
    ) -> None:
        self.videos_made = 0
        self._context = context
        self._engine = engine
        self._runs = Runs(engine, context.patience)
        self._model = model
        self._decoder = decoder
        self._guard = guard
        self._marker = marker
        self._folder = folder
        self._stop = stop
        self._doubts_storage = False
        """Whether an attempt has failed since the object store last answered."""
        self._device: DeviceLock[Attempt] = DeviceLock()
        self._attempts: set[Attempt] = set()
        self._begun: set[Attempt] = set()
        """Those that have, or had, the device."""

    async def serve(self) -> None:
        """Runs requests until the session is closed and every request is finished or handed back."""
        async with self._runs.routing(), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._release_on_close())
            if self._context.settings.preempt:
                tasks.create_task(self._serve_urgent())
            while lease := await self._claim():
                # At most one request waits: the next is claimed when this one has taken the device or has ended.
                may_claim_next = asyncio.Event()
                tasks.create_task(self._run_attempt(lease, may_claim_next))
                await may_claim_next.wait()

    async def _serve_urgent(self) -> None:
        """Runs normal requests, one by one, that would wait behind low ones. They take the device from a low one."""
        while lease := await self._claim(Priority.NORMAL):
            await self._run_attempt(lease, asyncio.Event())

    @property
    def _is_closing(self) -> bool:
        return self._stop.is_set() or self._engine.gone.is_set()

    @property
    def _is_held_up(self) -> bool:
        """Whether every request that is here has a low priority, so that a normal one would wait behind them."""
        return bool(self._attempts) and all(attempt.lease.priority > Priority.NORMAL for attempt in self._attempts)

    @property
    def _is_idle(self) -> bool:
        """Whether the device is free, and nobody is about to take it."""
        return self._device.holder is None and self._attempts <= self._begun

    async def _may_claim(self, at_least: Priority) -> bool:
        is_due = at_least is Priority.LOW or self._is_held_up
        return is_due and not self._context.disk.is_low and await self._has_storage()

    async def _has_storage(self) -> bool:
        """Asks after a failed attempt whether the object store answers: while it does not, each attempt would fail."""
        if not self._doubts_storage:
            return True
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._context.objects.stat(PROBE)
        except OSError as error:
            _log.warning("object_store_unavailable", reason=str(error) or "it does not answer")
            return False
        self._doubts_storage = False
        return True

    async def _claim(self, at_least: Priority = Priority.LOW) -> Lease | None:
        """Waits for the next request. Returns None when the session closes."""
        database = self._context.store.database
        while not self._is_closing:
            queued = database.changes.of(Topic.QUEUED)
            try:
                if await self._may_claim(at_least) and (lease := await self._find(at_least)):
                    return lease
            except STORE_ERRORS as error:
                _log.warning("claim_failed", **described(error))
            await wait_for_any(self._stop, self._engine.gone, timeout=POLL_PAUSE)
            await wait_for_any(self._stop, self._engine.gone, queued, timeout=POLL_INTERVAL - POLL_PAUSE)
            if not self._is_idle:
                await wait_for_any(self._stop, self._engine.gone, timeout=COURTESY)
        return None

    async def _find(self, at_least: Priority) -> Lease | None:
        """Claims a request. With an idle device, it also takes over one that waits for the device of another worker."""
        queue, name, pool = self._context.store.queue, self._context.name, self._context.pool
        if not await queue.has_work(pool, at_least, besides=name if self._is_idle else None):
            return None
        if lease := await queue.claim(name, pool, at_least):
            return lease
        return await queue.take_over(name, pool) if self._is_idle else None

    async def _release_on_close(self) -> None:
        """Hands back requests that have not had the device. The others have some time to finish."""
        await wait_for_any(self._stop, self._engine.gone)
        for attempt in self._attempts - self._begun:
            attempt.interrupt(Interruption.RELEASED)
        begun = self._attempts & self._begun
        with suppress(TimeoutError):
            async with asyncio.timeout(self._context.grace):
                for attempt in begun:
                    await attempt.ended.wait()
        for attempt in begun:
            attempt.interrupt(Interruption.RELEASED)

    async def _run_attempt(self, lease: Lease, may_claim_next: asyncio.Event) -> None:
        """Runs one attempt. It never raises, so that a failure cannot affect other requests."""
        attempt = Attempt(self._context.store, lease)
        self._attempts.add(attempt)
        if self._is_closing:
            attempt.interrupt(Interruption.RELEASED)
        if lease.attempt == 1:
            traces.record("queue", lease.created, lease.traceparent)
        facts: dict[str, str | int] = {"request_id": lease.id, "attempt": lease.attempt}
        with (
            structlog.contextvars.bound_contextvars(**facts),
            traces.span("attempt", lease.traceparent, SpanKind.CONSUMER, worker=self._context.name, **facts),
        ):
            try:
                async with attempt.heartbeats():
                    await self._make_or_fail(attempt, may_claim_next)
            except LeaseLostError:
                _log.info("lease_lost")
            except Exception:  # noqa: BLE001
                # The lease expires, and the request goes back into the queue.
                _log.exception("outcome_not_recorded")
            finally:
                attempt.stopwatch.close()
                may_claim_next.set()
                attempt.ended.set()
                self._attempts.discard(attempt)
                self._begun.discard(attempt)

    async def _make_or_fail(self, attempt: Attempt, may_claim_next: asyncio.Event) -> None:
        """Makes the video or records why that failed."""
        queue = self._context.store.queue
        try:
            await self._make_video(attempt, may_claim_next)
        except InterruptedAttemptError as error:
            await give_up(queue, attempt, error.why)
        except RequestError as error:
            await refuse(queue, attempt, ENDPOINTS[attempt.lease.endpoint].translate_error(error))
        except LeaseLostError:
            raise
        except Exception as error:  # noqa: BLE001
            self._doubts_storage = True
            _log.warning("attempt_failed", reason=str(error), exc_info=not isinstance(error, RetryableError))
            await retry(queue, attempt, error)

    async def _make_video(self, attempt: Attempt, may_claim_next: asyncio.Event) -> None:
        with TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            request = self._read(attempt)
            checkpoints = Checkpoints(self._context, attempt)
            await attempt.unless_interrupted(checkpoints.fetch(folder))
            spooled = await attempt.unless_interrupted(self._prepare(attempt, request, folder, checkpoints.prompt))
            run = self._new_run(attempt, request, spooled, folder, checkpoints)
            check = self._guard.check_preview if self._guard.checks_video(request) else None
            async with Previews(self._context, attempt, check).publishing() as previews, checkpoints.storing():
                with self._runs.open(attempt, run) as engine_run:
                    await engine_run.preload()
                    await self._take_device(attempt)
                    may_claim_next.set()
                    await self._draw(attempt, engine_run, previews, checkpoints)
                    await engine_run.finish()
                await self._check_and_sign(attempt, request, run)
                await complete(self._context, attempt, spooled.prepared.job.prompt, run.video)
        self.videos_made += 1

    async def _draw(self, attempt: Attempt, run: EngineRun, previews: Previews, checkpoints: Checkpoints) -> None:
        """Draws the video on the device, which the attempt has taken, and frees the device."""
        try:
            await attempt.enter_device()
            if self._is_closing:
                attempt.interrupt(Interruption.RELEASED)
            await run.draw(previews, checkpoints)
        finally:
            self._device.release()
            await attempt.leave_device()

    def _read(self, attempt: Attempt) -> Request:
        setting, can_expand = self._context.settings.recipe, self._guard.can_expand
        request, notices = read_claimed(attempt.lease, self._model, setting, can_expand=can_expand)
        for notice in notices:
            attempt.record(Notice(notice))
        return request

    async def _prepare(self, attempt: Attempt, request: Request, folder: Path, expanded: str | None) -> Spooled:
        """expanded: the prompt as an earlier attempt has expanded it."""
        if notice := self._guard.notice(request):
            attempt.record(Notice(notice))
        if request.images or request.videos or request.loras:
            attempt.record(Stage("inputs"))
        key_id = attempt.lease.key_id
        spooled = await prepare_inputs(request, key_id, self._context, self._decoder, self._model, folder)
        if request.expand_prompt and expanded is not None:
            spooled = with_prompt(spooled, expanded)
        elif request.expand_prompt:
            attempt.record(Stage("expand"))
            spooled = await self._guard.expand(spooled, folder)
        if self._guard.checks_inputs(request):
            attempt.record(Stage("check"))
            try:
                await self._guard.check_inputs(request, spooled, folder)
            except RequestError as error:
                await delete_refused(request, key_id, self._context, error)
                raise
        return spooled

    async def _check_and_sign(self, attempt: Attempt, request: Request, run: Run) -> None:
        """Has the video checked and signed, while the device works on the next request."""
        if self._guard.checks_video(request):
            attempt.record(Stage("check"))
            await attempt.unless_interrupted(self._guard.check_video(run.video))
        if self._marker:
            await asyncio.to_thread(self._marker.mark, run.video, run.metadata)

    def _new_run(
        self, attempt: Attempt, request: Request, spooled: Spooled, folder: Path, checkpoints: Checkpoints
    ) -> Run:
        links = self._context.links
        details = metadata(request, spooled.prepared, self._model, lambda source: redacted(source, links))
        identity = identity_of(details, spooled.prepared.job, self._model)
        return Run(
            attempt.id,
            spooled,
            folder,
            folder / "video.mp4",
            details,
            self._context.settings.checkpoint_every,
            identity,
            checkpoints.resume_from(identity),
        )

    async def _take_device(self, attempt: Attempt) -> None:
        priority = attempt.lease.priority
        if running := self._device.holder:
            attempt.record(Stage(WAITING))
            if self._context.settings.preempt and running.lease.priority > priority:
                running.report.write("Stopping for a request of higher priority; it will continue later")
                running.interrupt(Interruption.PREEMPTED)
        await attempt.unless_interrupted(self._device.acquire(attempt, priority))
        self._begun.add(attempt)
