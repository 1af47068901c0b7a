"""One child while it lives: requests are claimed for it, prepared while it is busy, and given to it one by one."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from keyreel.endpoints import ENDPOINTS
from keyreel.errors import RequestError
from keyreel.events import Notice, Stage, Step
from keyreel.marking import Marker
from keyreel.provenance import metadata
from keyreel.schema import Request
from keyreel.store.records import Lease, LeaseLostError, State
from keyreel.worker.attempt import STORE_ERRORS, Attempt, InterruptedAttemptError, Interruption
from keyreel.worker.context import WorkerContext
from keyreel.worker.endings import complete, give_up, refuse, retry
from keyreel.worker.guard import WorkerGuard
from keyreel.worker.inputs import MachineError, Preparer, forget_refused, prepare_inputs, redacted
from keyreel.worker.messages import Failed, Finished, Previewed, Ready, Refused, Run, Spooled, Stop, Stopped
from keyreel.worker.previews import Previews
from keyreel.worker.process import Process, ProcessGoneError
from keyreel.worker.waiting import first_of

POLL = 1.0
"""Seconds from one look into the queue to the next, when nothing tells that it has changed."""
POLL_PAUSE = 0.05
"""Seconds between two looks, at least."""

_log = structlog.get_logger(__name__)


class Session:
    """`child` has loaded `model`. The session closes when `stop` is set or the child is gone.

    folder: for what is under way. made: videos so far.
    """

    def __init__(
        self,
        context: WorkerContext,
        child: Process,
        model: Ready,
        preparer: Preparer,
        guard: WorkerGuard,
        marker: Marker | None,
        folder: Path,
        stop: asyncio.Event,
    ) -> None:
        self.made = 0
        self._context = context
        self._child = child
        self._model = model
        self._preparer = preparer
        self._guard = guard
        self._marker = marker
        self._folder = folder
        self._stop = stop
        self._device = asyncio.Lock()
        self._idle = asyncio.Event()
        self._running: Attempt | None = None
        self._attempts: set[Attempt] = set()

    async def serve(self) -> None:
        """Until the session is closed and every request is finished or handed back."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._close_in_time())
            while lease := await self._claim():
                # The next one is claimed when this one has the device, or needs it no more: never more than one waits.
                under_way = asyncio.Event()
                tasks.create_task(self._attempt(lease, under_way))
                await under_way.wait()

    @property
    def _is_closing(self) -> bool:
        return self._stop.is_set() or self._child.gone.is_set()

    async def _claim(self) -> Lease | None:
        """The next request; None when the session closes."""
        store, context = self._context.store, self._context
        while not self._is_closing:
            changed = store.database.changed
            try:
                if await self._has_work() and (lease := await store.queue.claim(context.name, context.pool)):
                    return lease
            except STORE_ERRORS:
                _log.warning("no_claim", exc_info=True)
            await first_of(self._stop, self._child.gone, timeout=POLL_PAUSE)
            await first_of(self._stop, self._child.gone, changed, timeout=POLL - POLL_PAUSE)
        return None

    async def _has_work(self) -> bool:
        """Read, not tried: a claim writes, and each write wakes the other workers."""
        depths = await self._context.store.requests.depths()
        return any(depth.pool == self._context.pool and depth.state == State.IN_QUEUE for depth in depths)

    async def _close_in_time(self) -> None:
        """Hands back what has not begun; what has is given some time."""
        await first_of(self._stop, self._child.gone)
        for attempt in self._attempts - {self._running}:
            attempt.interrupt(Interruption.RELEASED)
        if running := self._running:
            await first_of(self._idle, timeout=self._context.grace)
            running.interrupt(Interruption.RELEASED)

    async def _attempt(self, lease: Lease, under_way: asyncio.Event) -> None:
        """Never raises: one request's trouble is not another's."""
        attempt = Attempt(self._context.store, lease)
        self._attempts.add(attempt)
        if self._is_closing:
            attempt.interrupt(Interruption.RELEASED)
        with structlog.contextvars.bound_contextvars(request_id=lease.id, attempt=lease.attempt):
            try:
                async with attempt.kept():
                    await self._settle(attempt, under_way)
            except LeaseLostError:
                _log.info("lease_lost")
            except Exception:  # noqa: BLE001
                _log.exception("not_settled")  # the lease expires, and the request is taken up again
            finally:
                under_way.set()
                self._attempts.discard(attempt)

    async def _settle(self, attempt: Attempt, under_way: asyncio.Event) -> None:
        """Makes the video, or writes down why not."""
        queue = self._context.store.queue
        try:
            await self._make(attempt, under_way)
        except InterruptedAttemptError as error:
            await give_up(queue, attempt, error.why)
        except RequestError as error:
            await refuse(queue, attempt, ENDPOINTS[attempt.lease.endpoint].blame(error))
        except LeaseLostError:
            raise
        except Exception as error:  # noqa: BLE001
            _log.warning("attempt_failed", reason=str(error), exc_info=not isinstance(error, MachineError))
            await retry(queue, attempt, error)

    async def _make(self, attempt: Attempt, under_way: asyncio.Event) -> None:
        lease = attempt.lease
        with TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            request = ENDPOINTS[lease.endpoint].read({**lease.input, "seed": lease.seed})
            spooled = await attempt.unless_interrupted(self._prepare(attempt, request, folder))
            order = self._order(attempt, request, spooled, folder)
            check = self._guard.check_preview if self._guard.checks_video(request) else None
            async with Previews(self._context, attempt, check).shown() as previews:
                await self._take_device(attempt)
                try:
                    under_way.set()
                    await self._run(attempt, order, previews)
                finally:
                    self._leave_device()
                await self._approve(attempt, request, order)
                used = request.model_copy(update={"prompt": spooled.prepared.job.prompt})
                await complete(self._context, attempt, used, order.video)
        self.made += 1

    async def _prepare(self, attempt: Attempt, request: Request, folder: Path) -> Spooled:
        if notice := self._guard.notice(request):
            attempt.note(Notice(notice))
        if request.images or request.videos or request.loras:
            attempt.note(Stage("inputs"))
        key_id = attempt.lease.key_id
        spooled = await prepare_inputs(request, key_id, self._context, self._preparer, self._model, folder)
        if request.expand_prompt:
            attempt.note(Stage("expand"))
            spooled = await self._guard.expand(spooled, folder)
        if self._guard.checks(request):
            attempt.note(Stage("check"))
            try:
                await self._guard.check_inputs(request, spooled, folder)
            except RequestError as error:
                await forget_refused(request, key_id, self._context, error)
                raise
        return spooled

    async def _approve(self, attempt: Attempt, request: Request, order: Run) -> None:
        """Has the video checked and marked. The device is at the next request already."""
        if self._guard.checks_video(request):
            attempt.note(Stage("check"))
            await self._guard.check_video(order.video)
        if self._marker:
            await asyncio.to_thread(self._marker.mark, order.video, order.metadata)

    def _order(self, attempt: Attempt, request: Request, spooled: Spooled, folder: Path) -> Run:
        links = self._context.links
        facts = metadata(request, spooled.prepared, self._model, lambda source: redacted(source, links))
        return Run(attempt.id, spooled, folder, folder / "video.mp4", facts)

    async def _take_device(self, attempt: Attempt) -> None:
        if self._device.locked():
            attempt.report.write("Waiting for the device")
        await attempt.unless_interrupted(self._device.acquire())
        self._running = attempt
        self._idle.clear()

    def _leave_device(self) -> None:
        self._running = None
        self._idle.set()
        self._device.release()

    async def _run(self, attempt: Attempt, order: Run, previews: Previews) -> None:
        """Returns when the video is there. Raises InterruptedAttemptError, RequestError or MachineError."""
        if self._is_closing:
            attempt.interrupt(Interruption.RELEASED)
        attempt.check()
        await self._child.send(order)
        stopper = asyncio.create_task(self._stop_when_interrupted(attempt, order))
        try:
            await self._follow(attempt, previews)
        except TimeoutError:
            raise self._lost(f"gave no sign of life for {self._context.patience:g} s") from None
        except ProcessGoneError as error:
            raise self._lost(str(error)) from None
        finally:
            stopper.cancel()

    async def _follow(self, attempt: Attempt, previews: Previews) -> None:
        while True:
            async with asyncio.timeout(self._context.patience):
                message = await self._child.receive()
            match message:
                case Stage() | Step() | Notice():
                    attempt.note(message)
                case Previewed(pixels):
                    previews.offer(pixels)
                case Finished():
                    return
                case Stopped():
                    raise InterruptedAttemptError(await attempt.interrupted())
                case Refused(problems):
                    raise RequestError(*problems)
                case Failed(reason, poisoned):
                    raise self._lost(f"lost its device: {reason}") if poisoned else MachineError(reason)
                case _:
                    raise self._lost(f"answered with {type(message).__name__}")

    async def _stop_when_interrupted(self, attempt: Attempt, order: Run) -> None:
        await attempt.interrupted()
        await self._child.send(Stop(order.id))

    def _lost(self, how: str) -> MachineError:
        """Nobody else shall get this child."""
        self._child.kill()
        return MachineError(f"The process on the device {how}")
