"""Publishes the newest preview of a running request until its video is ready."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import structlog
from PIL import Image

from keyreel.errors import RequestError
from keyreel.store import STORE_ERRORS
from keyreel.store.errors import described
from keyreel.store.records import Lease, NewFile
from keyreel.video.job import Pixels
from keyreel.worker.attempt import Attempt
from keyreel.worker.attempt_file import AttemptFile
from keyreel.worker.context import WorkerContext
from keyreel.worker.inputs import RetryableError
from keyreel.worker.spool import read_pixels

_log = structlog.get_logger(__name__)

Check = Callable[[Path], Awaitable[None]]
"""Checks a file of pixels. Raises RequestError if the preview must not be shown."""


class Previews:
    """The previews of one attempt. A new preview replaces a waiting one, so that the device never waits.

    check: called before a preview is published; None publishes without a check.
    """

    def __init__(self, context: WorkerContext, attempt: Attempt, check: Check | None) -> None:
        self._context = context
        self._attempt = attempt
        self._check = check
        self._waiting: asyncio.Queue[Path] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._file = AttemptFile(context.store.files, _new_file(attempt.lease))
        self._published = 0

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[Self]:
        """Publishes the offered previews during the block, and deletes the last one at its end."""
        try:
            yield self
        finally:
            if self._task:
                self._task.cancel()
                await asyncio.wait([self._task])
            await self._remove()

    def offer(self, pixels: Path) -> None:
        """Queues a file of pixels for publication. The file is deleted after it has been read."""
        while not self._waiting.empty():
            self._waiting.get_nowait().unlink(missing_ok=True)
        self._waiting.put_nowait(pixels)
        self._task = self._task or asyncio.create_task(self._publish_all())

    async def _publish_all(self) -> None:
        """Publishes previews as they come. Errors are only logged: the video does not depend on its previews."""
        while True:
            path = await self._waiting.get()
            try:
                if self._check:
                    await self._check(path)
                await self._publish(await asyncio.to_thread(read_pixels, path))
            except (RequestError, RetryableError, *STORE_ERRORS) as error:
                _log.info("preview_not_published", reason=str(error))
            finally:
                path.unlink(missing_ok=True)

    async def _publish(self, pixels: Pixels) -> None:
        file = await self._file.get()
        strip = await asyncio.to_thread(encode_strip, pixels)
        await self._context.objects.put(file.object, strip, file.content_type)
        self._published += 1
        # The file keeps its address, so the query makes a browser fetch the new content.
        self._attempt.report.set_preview(f"{self._context.links.file_url(file)}?{self._published}", len(pixels))

    async def _remove(self) -> None:
        if not (file := await self._file.added()):
            return
        try:
            await self._context.objects.delete(file.object)
            await self._context.store.files.remove(file.id)
        except STORE_ERRORS as error:
            _log.warning("preview_not_removed", **described(error))


def _new_file(lease: Lease) -> NewFile:
    """Returns a file without a size: if the worker dies, it expires like an unfinished upload."""
    return NewFile(
        key_id=lease.key_id,
        object=f"previews/{lease.id}/{lease.attempt}.jpg",
        name="preview.jpg",
        content_type="image/jpeg",
        acl=lease.output_acl,
    )


def encode_strip(pixels: Pixels) -> bytes:
    """Returns frames (n, height, width, 3) as one JPEG, one frame below the other."""
    out = io.BytesIO()
    Image.fromarray(pixels.reshape(-1, *pixels.shape[2:])).save(out, "JPEG", quality=80)
    return out.getvalue()
