"""Prompts expanded and content checked on behalf of a worker, before its device is needed and after.

What runs here runs in a process of its own (`keyreel.worker.guard_process`), so that the device goes on meanwhile.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from keyreel.errors import ModelError, RequestError
from keyreel.expansion import ChatServer, ExpansionError, ask, find_expander, not_configured
from keyreel.guard import GuardPlan, condition_places
from keyreel.moderation import UNCHECKED
from keyreel.schema import Request
from keyreel.settings import Settings
from keyreel.worker.inputs import MachineError
from keyreel.worker.messages import (
    Check,
    Expand,
    Expanded,
    Failed,
    Guarding,
    LoadFailed,
    LoadGuard,
    Message,
    Ready,
    Refused,
    Spooled,
)
from keyreel.worker.process import GUARD, Process, ProcessGoneError
from keyreel.worker.spool import pixels_path, read_pixels

PATIENCE = 300.0
"""Seconds for one answer. An expander has a limit of its own."""


class WorkerGuard:
    """Open it when the video model is loaded. One request at a time gets its process; a dead one is replaced."""

    def __init__(self, settings: Settings, command: Sequence[str] = GUARD) -> None:
        self._settings = settings
        self._command = command
        self._plan: GuardPlan | None = None
        self._configured = find_expander(settings, "")
        self._expander = self._configured
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def open(self, model: Ready) -> None:
        """Loads what is configured. Raises ModelError, and ProcessGoneError when it is closed meanwhile.

        The demo model's own expander is loaded when the first request asks for it: most never do.
        """
        self._expander = find_expander(self._settings, model.name)
        plan = GuardPlan.of(self._settings, self._expander, model.device)
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

    def notice(self, request: Request) -> str | None:
        """What the request's owner should know before anything else. Raises RequestError if it asks for too much."""
        if request.expand_prompt and self._expander is None:
            raise not_configured()
        unchecked = request.enable_safety_checker and not (self._plan and self._plan.pictures)
        return UNCHECKED if unchecked else None

    def checks(self, request: Request) -> bool:
        return bool(self._plan and self._plan.needed_for(request).checks)

    def checks_video(self, request: Request) -> bool:
        return bool(self._plan and self._plan.needed_for(request).pictures)

    async def expand(self, spooled: Spooled, folder: Path) -> Spooled:
        """The job with its prompt expanded. Raises MachineError."""
        job = spooled.prepared.job
        picture = pixels_path(folder, 0) if spooled.pins else None
        if isinstance(self._expander, ChatServer):
            prompt = await _ask(self._expander, job.prompt, job.seed, picture)
        else:
            answer = await self._ask(Expand(job.prompt, job.seed, picture))
            if not isinstance(answer, Expanded):
                raise MachineError(f"The guard answered with {type(answer).__name__}")
            prompt = answer.prompt
        return replace(spooled, prepared=replace(spooled.prepared, job=replace(job, prompt=prompt)))

    async def check_inputs(self, request: Request, spooled: Spooled, folder: Path) -> None:
        """Prompt, pictures and clips. Raises RequestError or MachineError."""
        prompts = tuple(dict.fromkeys((request.prompt, spooled.prepared.job.prompt)))
        places = condition_places(spooled.prepared.inputs)
        files = tuple((loc, pixels_path(folder, index)) for index, loc in enumerate(places))
        await self._ask(Check(prompts=prompts, conditions=files))

    async def check_video(self, video: Path) -> None:
        """Raises RequestError or MachineError."""
        await self._ask(Check(video=video))

    async def check_preview(self, pixels: Path) -> None:
        """Raises RequestError or MachineError."""
        await self._ask(Check(preview=pixels))

    async def _ask(self, order: Expand | Check) -> Message:
        """Goes on when the caller is cancelled: what is loaded costs too much to be thrown away."""
        task = asyncio.create_task(self._exchange(order))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        answer = await asyncio.shield(task)
        match answer:
            case Refused(problems):
                raise RequestError(*problems)
            case Failed(message):
                raise MachineError(message)
        return answer

    async def _exchange(self, order: Expand | Check) -> Message:
        async with self._turn:
            try:
                process = await self._living()
                await process.send(order)
                async with asyncio.timeout(PATIENCE):
                    return await process.receive()
            except TimeoutError:
                await self.close()
                raise MachineError(f"Expander and checkers gave no answer for {PATIENCE:g} s") from None
            except ProcessGoneError as error:
                raise MachineError(f"The process of expander and checkers {error}") from None
            except ModelError as error:
                raise MachineError(str(error)) from None

    async def _living(self) -> Process:
        if self._process and self._process.gone.is_set():
            await self.close()
        if self._plan is None:
            raise MachineError("The guard is not open")
        return self._process or await self._start(self._plan)

    async def _start(self, plan: GuardPlan) -> Process:
        """Raises ModelError or ProcessGoneError."""
        process = self._process = await Process.start(self._command)
        await process.send(LoadGuard(plan))
        match await process.receive():
            case Guarding():
                return process
            case LoadFailed(message):
                await self.close()
                raise ModelError(message)
        await self.close()
        raise ModelError("The process of expander and checkers does not start.")


async def _ask(server: ChatServer, prompt: str, seed: int, picture: Path | None) -> str:
    pixels = await asyncio.to_thread(read_pixels, picture) if picture else None
    try:
        return await ask(server, prompt, seed, None if pixels is None else pixels[0])
    except ExpansionError as error:
        raise MachineError(str(error)) from None
