"""The newest preview of a request that is being made, where its owner can see it until the video is there."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import structlog
from PIL import Image

from keyreel.errors import RequestError
from keyreel.job import Pixels
from keyreel.store.records import File, NewFile
from keyreel.worker.attempt import STORE_ERRORS, Attempt
from keyreel.worker.context import WorkerContext
from keyreel.worker.inputs import MachineError
from keyreel.worker.spool import read_pixels

_log = structlog.get_logger(__name__)

Check = Callable[[Path], Awaitable[None]]
"""Raises RequestError for what nobody may see."""


class Previews:
    """Of one attempt. What comes while another one is on its way takes its place: the device never waits.

    check: of a file of pixels; None: nothing is checked.
    """

    def __init__(self, context: WorkerContext, attempt: Attempt, check: Check | None) -> None:
        self._context = context
        self._attempt = attempt
        self._check = check
        self._waiting: asyncio.Queue[Path] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._file: File | None = None
        self._shown = 0

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[Self]:
        """During the block. What is left of them goes with it."""
        try:
            yield self
        finally:
            if self._task:
                self._task.cancel()
                await asyncio.wait([self._task])
            await self._remove()

    def offer(self, pixels: Path) -> None:
        """A file that is deleted when it has been read."""
        while not self._waiting.empty():
            self._waiting.get_nowait().unlink(missing_ok=True)
        self._waiting.put_nowait(pixels)
        self._task = self._task or asyncio.create_task(self._show_all())

    async def _show_all(self) -> None:
        """Nobody is to miss a video because its previews cannot be shown."""
        while True:
            path = await self._waiting.get()
            try:
                if self._check:
                    await self._check(path)
                await self._show(await asyncio.to_thread(read_pixels, path))
            except (RequestError, MachineError, *STORE_ERRORS) as error:
                _log.info("no_preview", reason=str(error))
            finally:
                path.unlink(missing_ok=True)

    async def _show(self, pixels: Pixels) -> None:
        self._file = self._file or await self._add()
        await self._context.objects.put(self._file.object, await asyncio.to_thread(strip, pixels))
        self._shown += 1
        # The same file with other content: a browser asks again for another address only.
        self._attempt.report.preview(f"{self._context.links.file_url(self._file)}?{self._shown}", len(pixels))

    async def _add(self) -> File:
        """Without a size: should we die, it expires as a file does whose content has not come."""
        lease = self._attempt.lease
        name = f"previews/{lease.id}/{lease.attempt}.jpg"
        new = NewFile(
            key_id=lease.key_id, object=name, name="preview.jpg", content_type="image/jpeg", acl=lease.output_acl
        )
        return await self._context.store.files.add(new)

    async def _remove(self) -> None:
        if not self._file:
            return
        try:
            await self._context.objects.delete(self._file.object)
            await self._context.store.files.remove(self._file.id)
        except STORE_ERRORS:
            _log.warning("preview_not_removed", exc_info=True)


def strip(pixels: Pixels) -> bytes:
    """(n, height, width, 3) as one JPEG, the frames below each other."""
    out = io.BytesIO()
    Image.fromarray(pixels.reshape(-1, *pixels.shape[2:])).save(out, "JPEG", quality=80)
    return out.getvalue()
