"""Expands prompts and checks content for a worker, before and after a request uses the device.

Local models run in the guard process (`keyreel.worker.guard_process`), so that the device can work on another request.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from keyreel.checkpoints import hub
from keyreel.errors import ModelError, RequestError
from keyreel.fal.schema import Request
from keyreel.guard import condition_locs
from keyreel.safety.chat import ChatServer, ask, find_expander
from keyreel.safety.expansion import ExpansionError, not_configured
from keyreel.safety.moderation import UNCHECKED
from keyreel.safety.plan import GuardPlan
from keyreel.settings import Settings
from keyreel.worker.environment import of_models
from keyreel.worker.inputs import RetryableError
from keyreel.worker.messages import (
    Check,
    Expand,
    Expanded,
    Failed,
    GuardReady,
    LoadFailed,
    LoadGuard,
    Message,
    Ready,
    Refused,
    Spooled,
)
from keyreel.worker.process import GUARD_PROCESS, Process, ProcessGoneError
from keyreel.worker.spool import pixels_path, read_pixels
from keyreel.worker.waiting import start_shared

ANSWER_TIMEOUT = 300.0
"""Seconds for one answer. Prompt expansion has a separate limit."""
RESTART_TIMEOUT = 600.0
"""Seconds to start the process again for a request and load the models from the disk."""


class WorkerGuard:
    """Starts the guard process and serves one order at a time; a dead process is replaced.

    Call `open` when the video model is loaded.
    """

    def __init__(self, settings: Settings, command: Sequence[str] = GUARD_PROCESS) -> None:
        self._settings = settings
        self._command = command
        self._plan: GuardPlan | None = None
        self._configured = find_expander(settings, "")
        self._expander = self._configured
        self._process: Process | None = None
        self._lock = asyncio.Lock()

    async def open(self, model: Ready) -> None:
        """Loads the configured checkers and expander. Raises ModelError, or ProcessGoneError when closed meanwhile.

        The demo model's own expander is loaded when a request first asks for it, because few requests do.
        """
        self._expander = find_expander(self._settings, model.name)
        plan = GuardPlan.from_settings(self._settings, self._expander, model.device)
        if self._plan == plan:
            return
        await self.close()
        self._plan = plan
        if plan.checks or (self._configured and plan.expander):
            await self._start(plan)

    async def close(self) -> None:
        process, self._process = self._process, None
        if process:
            await process.close()

    @property
    def can_expand(self) -> bool:
        return self._expander is not None

    def notice(self, request: Request) -> str | None:
        """Returns a warning for the request's log, if any. Raises RequestError if expansion is not configured."""
        if request.expand_prompt and self._expander is None:
            raise not_configured()
        unchecked = request.enable_safety_checker and not (self._plan and self._plan.pictures)
        return UNCHECKED if unchecked else None

    def checks_inputs(self, request: Request) -> bool:
        return bool(self._plan and self._plan.needed_for(request).checks)

    def checks_video(self, request: Request) -> bool:
        return bool(self._plan and self._plan.needed_for(request).pictures)

    async def expand(self, spooled: Spooled, folder: Path) -> Spooled:
        """Returns the job with its prompt expanded. Raises RequestError or RetryableError."""
        job = spooled.prepared.job
        picture = pixels_path(folder, 0) if spooled.pins else None
        if isinstance(self._expander, ChatServer):
            prompt = await _ask_server(self._expander, job.prompt, job.seed, picture)
        else:
            answer = await self._ask(Expand(job.prompt, job.seed, picture))
            if not isinstance(answer, Expanded):
                raise RetryableError(f"The guard process answered with {type(answer).__name__}")
            prompt = answer.prompt
        return with_prompt(spooled, prompt)

    async def check_inputs(self, request: Request, spooled: Spooled, folder: Path) -> None:
        """Checks prompts, pictures and clips. Raises RequestError or RetryableError."""
        prompts = tuple(dict.fromkeys((request.prompt, spooled.prepared.job.prompt)))
        places = condition_locs(spooled.prepared.inputs)
        files = tuple((loc, pixels_path(folder, index)) for index, loc in enumerate(places))
        await self._ask(Check(prompts=prompts, conditions=files))

    async def check_video(self, video: Path) -> None:
        """Checks a finished video. Raises RequestError or RetryableError."""
        await self._ask(Check(video=video))

    async def check_preview(self, pixels: Path) -> None:
        """Checks a preview in a file of pixels. Raises RequestError or RetryableError."""
        await self._ask(Check(preview=pixels))

    async def _ask(self, order: Expand | Check) -> Message:
        """Sends an order and returns the answer.

        The exchange continues when the caller is cancelled: a restart would load the models again.
        """
        answer = await asyncio.shield(start_shared(self._exchange(order)))
        match answer:
            case Refused(problems):
                raise RequestError(*problems)
            case Failed(message):
                raise RetryableError(message)
        return answer

    async def _exchange(self, order: Expand | Check) -> Message:
        async with self._lock:
            try:
                process = await self._running_process()
                return await self._answer(process, order)
            except ProcessGoneError as error:
                raise RetryableError(f"The guard process {error}") from None
            except ModelError as error:
                raise RetryableError(str(error)) from None

    async def _running_process(self) -> Process:
        """Returns the process, started again if it has died."""
        if self._process and self._process.gone.is_set():
            await self.close()
        if self._plan is None:
            raise RetryableError("The guard process has not been started")
        if self._process:
            return self._process
        async with self._time_limit(RESTART_TIMEOUT, "did not start"):
            return await self._start(self._plan)

    async def _answer(self, process: Process, order: Expand | Check) -> Message:
        async with self._time_limit(ANSWER_TIMEOUT, "did not answer"):
            await process.send(order)
            return await process.receive()

    @asynccontextmanager
    async def _time_limit(self, seconds: float, failure: str) -> AsyncIterator[None]:
        """Kills the process and raises RetryableError if the block takes longer."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            await self.close()
            raise RetryableError(f"The guard process {failure} in {seconds:g} s") from None

    async def _start(self, plan: GuardPlan) -> Process:
        """Starts the process and loads `plan`. Raises ModelError or ProcessGoneError."""
        process = self._process = await Process.start(self._command, of_models())
        await process.send(LoadGuard(plan, hub.own_token()))
        match await process.receive():
            case GuardReady():
                return process
            case LoadFailed(message):
                await self.close()
                raise ModelError(message)
        await self.close()
        raise ModelError("The guard process, which runs the prompt expander and the checkers, did not start.")


def with_prompt(spooled: Spooled, prompt: str) -> Spooled:
    """Returns the job with another prompt."""
    prepared = spooled.prepared
    return replace(spooled, prepared=replace(prepared, job=replace(prepared.job, prompt=prompt)))


async def _ask_server(server: ChatServer, prompt: str, seed: int, picture: Path | None) -> str:
    pixels = await asyncio.to_thread(read_pixels, picture) if picture else None
    try:
        return await ask(server, prompt, seed, None if pixels is None else pixels[0])
    except ExpansionError as error:
        raise RetryableError(str(error)) from None
