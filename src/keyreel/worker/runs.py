"""The runs of one engine process: one that the device draws, and drawn ones whose videos are still being written."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from keyreel.errors import RequestError
from keyreel.store.submission import MAX_FAILURES
from keyreel.video.events import Notice, Stage, Step
from keyreel.worker.attempt import FENCE_MARGIN, Attempt, InterruptedAttemptError, Interruption
from keyreel.worker.checkpoints import Checkpoints
from keyreel.worker.inputs import RetryableError
from keyreel.worker.messages import (
    Checkpointed,
    Drawn,
    Failed,
    Finished,
    Message,
    Preload,
    Previewed,
    Refused,
    Run,
    Stop,
    Stopped,
    Unwritten,
)
from keyreel.worker.previews import Previews
from keyreel.worker.process import Process, ProcessGoneError


class Runs:
    """Sends runs to the engine process, and gives each of them the messages about it.

    patience: seconds that the process may be silent about a run.
    """

    def __init__(self, engine: Process, patience: float) -> None:
        self.engine = engine
        self.patience = patience
        self.drawing: str | None = None
        """The run that has the device."""
        self.blamed: str | None = None
        """The run at which the process ended."""
        self._inboxes: dict[str, asyncio.Queue[Message | None]] = {}
        self.is_over = False

    @asynccontextmanager
    async def routing(self) -> AsyncIterator[None]:
        """Routes messages during the block."""
        router = asyncio.create_task(self._route())
        try:
            yield
        finally:
            router.cancel()
            await asyncio.wait([router])

    @contextmanager
    def open(self, attempt: Attempt, run: Run) -> Iterator["EngineRun"]:
        inbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self._inboxes[run.id] = inbox
        if self.is_over:
            inbox.put_nowait(None)
        try:
            yield EngineRun(self, attempt, run, inbox)
        finally:
            del self._inboxes[run.id]

    async def _route(self) -> None:
        try:
            while True:
                self._deliver(await self.engine.receive())
        except ProcessGoneError:
            self.is_over = True
            self.blamed = self.blamed or self.drawing
            for inbox in self._inboxes.values():
                inbox.put_nowait(None)

    def _deliver(self, message: Message) -> None:
        """Puts a message into the inbox of its run. Those without an id are about the run on the device."""
        match message:
            case Drawn(run_id) | Finished(run_id) | Unwritten(run_id) | Stopped(run_id):
                inbox = self._inboxes.get(run_id)
            case _:
                inbox = self._inboxes.get(self.drawing or "")
        if inbox:
            inbox.put_nowait(message)


class EngineRun:
    """The run of one attempt. First `draw` it on the device, then `finish` it while the device does other work."""

    def __init__(self, runs: Runs, attempt: Attempt, run: Run, inbox: "asyncio.Queue[Message | None]") -> None:
        self._runs = runs
        self._attempt = attempt
        self._run = run
        self._inbox = inbox

    async def preload(self) -> None:
        """Has the engine process read the run's LoRAs while it draws another run."""
        adapters = self._run.spooled.prepared.job.adapters
        if adapters and self._runs.drawing:
            await self._runs.engine.send(Preload(adapters))

    async def draw(self, previews: Previews, checkpoints: Checkpoints) -> None:
        """Returns when the last frame has left the device.

        Raises InterruptedAttemptError, RequestError or RetryableError.
        """
        self._attempt.raise_if_interrupted()
        self._runs.drawing = self._run.id
        try:
            await self._runs.engine.send(self._run)
            async with _beside(self._stop_drawing()):
                await self._receive_until_drawn(previews, checkpoints)
        finally:
            self._runs.drawing = None

    async def finish(self) -> None:
        """Returns when the video is written. Raises InterruptedAttemptError or RetryableError."""
        self._attempt.forget_preemption()
        async with _beside(self._stop()):
            match await self._receive():
                case Finished():
                    return
                case Stopped():
                    raise self._stopped()
                case Unwritten(_, reason):
                    raise RetryableError(f"The video could not be written: {reason}")
                case message:
                    raise self._abandon_engine(f"answered with {type(message).__name__}")

    async def _stop_drawing(self) -> None:
        if await self._stop() is Interruption.CUT_OFF:
            await asyncio.sleep(FENCE_MARGIN)
            self._runs.engine.kill()  # one step outlasted the lease: another worker may run the request by now

    async def _stop(self) -> Interruption:
        """Stops the run when the attempt is interrupted. Returns why."""
        why = await self._attempt.wait_for_interruption()
        await self._runs.engine.send(Stop(self._run.id, keep=why in (Interruption.RELEASED, Interruption.PREEMPTED)))
        return why

    async def _receive_until_drawn(self, previews: Previews, checkpoints: Checkpoints) -> None:
        while True:
            match await self._receive():
                case (Stage() | Step() | Notice()) as event:
                    self._attempt.record(event)
                case Previewed(pixels):
                    previews.offer(pixels)
                case Checkpointed(file):
                    checkpoints.offer(file)
                case Drawn():
                    return
                case Stopped():
                    raise self._stopped()
                case Refused(problems):
                    raise RequestError(*problems)
                case Failed(reason, poisoned):
                    raise self._abandon_engine(f"lost its device: {reason}") if poisoned else RetryableError(reason)
                case message:
                    raise self._abandon_engine(f"answered with {type(message).__name__}")

    async def _receive(self) -> Message:
        """Returns the next message about the run. Raises InterruptedAttemptError or RetryableError."""
        try:
            async with asyncio.timeout(self._runs.patience):
                message = await self._inbox.get()
            return message or await self._runs.engine.receive()
        except TimeoutError:
            raise self._abandon_engine(f"did not respond for {self._runs.patience:g} s") from None
        except ProcessGoneError as error:
            self._attempt.raise_if_interrupted()
            self._raise_if_blameless()
            raise self._abandon_engine(str(error)) from None

    def _stopped(self) -> RetryableError:
        """Raises the interruption that stopped the run, or returns an error: a dying process stops what it writes."""
        self._attempt.raise_if_interrupted()
        self._raise_if_blameless()
        return self._abandon_engine("stopped the run unasked")

    def _raise_if_blameless(self) -> None:
        """Has the request handed back if the engine process ended at another one, so that this counts as no failure.

        A deadly request ends it MAX_FAILURES times. After that, this one may itself be at fault.
        """
        if self._runs.blamed in (None, self._run.id) or self._attempt.lease.attempt > MAX_FAILURES:
            return
        self._attempt.report.write("The engine process ended at another request; this one will continue")
        raise InterruptedAttemptError(Interruption.RELEASED)

    def _abandon_engine(self, how: str) -> RetryableError:
        """Kills the engine process, so that no other request uses it, and returns the error to raise."""
        self._runs.blamed = self._runs.blamed or self._run.id
        self._runs.engine.kill()
        return RetryableError(f"The engine process {how}")


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, object]) -> AsyncIterator[None]:
    """Does `work` during the block, as far as it comes."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
