"""Stores the checkpoints of a running request, and fetches the one that an earlier attempt left."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import structlog

from keyreel.errors import RequestError
from keyreel.store import STORE_ERRORS
from keyreel.store.errors import described
from keyreel.store.records import File, Lease, LeaseLostError, NewFile
from keyreel.worker.attempt import Attempt, InterruptedAttemptError, Interruption
from keyreel.worker.attempt_file import AttemptFile
from keyreel.worker.checkpoint_file import SavedCheckpoint, UnusableCheckpointError, read_checkpoint
from keyreel.worker.context import WorkerContext

SETTLE_TIMEOUT = 15.0
"""Seconds that the end of an attempt waits for its newest checkpoint to be stored."""

_log = structlog.get_logger(__name__)


class Checkpoints:
    """The checkpoints of one attempt. A new one replaces a waiting one, so that the device never waits.

    All checkpoints of an attempt are one object, which is replaced: readers see the old one or the new one. Its row in
    `file` expires when a later attempt stores a checkpoint or the request is completed (`store.queue`).
    """

    def __init__(self, context: WorkerContext, attempt: Attempt) -> None:
        self._context = context
        self._attempt = attempt
        self._waiting: asyncio.Queue[Path] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._file = AttemptFile(context.store.files, _new_file(attempt.lease))
        self._is_recorded = False
        self._fetched: tuple[Path, SavedCheckpoint] | None = None

    @property
    def prompt(self) -> str | None:
        """The prompt of the fetched checkpoint: expanding it again might give another video."""
        return self._fetched[1].prompt if self._fetched else None

    async def fetch(self, folder: Path) -> None:
        """Fetches the checkpoint of an earlier attempt into `folder`, if there is a sound one."""
        stored, path = self._attempt.lease.checkpoint, folder / "resume.safetensors"
        if stored is None:
            return
        try:
            if (file := await self._context.store.files.get(stored)) is None:
                raise UnusableCheckpointError("it has expired")
            await self._context.objects.download(file.object, path)
            self._fetched = path, await asyncio.to_thread(read_checkpoint, path)
        except (UnusableCheckpointError, *STORE_ERRORS) as error:
            self._report_unusable(str(error))

    def resume_from(self, identity: Mapping[str, str]) -> Path | None:
        """Returns the file of the fetched checkpoint if a run with this identity can go on from it."""
        if self._fetched is None:
            return None
        path, saved = self._fetched
        try:
            saved.check(identity)
        except UnusableCheckpointError as error:
            self._report_unusable(str(error))
            return None
        step, number = saved.checkpoint.step, saved.checkpoint.index + 1
        _log.info("resumed", step=step, denoising_pass=number)
        self._attempt.report.write(f"Continuing from a checkpoint: step {step} of pass {number}")
        return path

    @asynccontextmanager
    async def storing(self) -> AsyncIterator[Self]:
        """Stores the offered checkpoints during the block. If another attempt follows, the newest is stored first."""
        try:
            yield self
        except Exception as error:
            if _is_followed(error):
                with suppress(TimeoutError):
                    async with asyncio.timeout(SETTLE_TIMEOUT):
                        await self._waiting.join()
            raise
        finally:
            if self._task:
                self._task.cancel()
                await asyncio.wait([self._task])
            if file := await self._file.added():
                await self._remove_orphan(file)

    def offer(self, path: Path) -> None:
        """Queues a file to be stored. It is deleted afterwards."""
        while not self._waiting.empty():
            self._waiting.get_nowait().unlink(missing_ok=True)
            self._waiting.task_done()
        self._waiting.put_nowait(path)
        self._task = self._task or asyncio.create_task(self._store_all())

    async def _store_all(self) -> None:
        """Stores checkpoints as they come. Errors are only logged: the video does not depend on its checkpoints."""
        while True:
            path = await self._waiting.get()
            try:
                await self._store(path)
            except LeaseLostError:
                self._attempt.interrupt(Interruption.LOST)
            except STORE_ERRORS as error:
                _log.warning("checkpoint_not_stored", reason=str(error))
            finally:
                path.unlink(missing_ok=True)
                self._waiting.task_done()

    async def _store(self, path: Path) -> None:
        file = await self._file.get()
        await self._context.objects.put(file.object, path)
        if not self._is_recorded:
            await self._context.store.queue.save_checkpoint(self._attempt.lease, file.id)
            self._is_recorded = True

    async def _remove_orphan(self, file: File) -> None:
        """Deletes a checkpoint that no request knows: the attempt ended while it was stored, or had lost its lease.

        Also one whose row is gone: a worker that was paused may have written the object again after the sweep.
        """
        store, lease = self._context.store, self._attempt.lease
        try:
            if await store.files.get(file.id) is None or await store.requests.checkpoint(lease.id) != file.id:
                await self._context.objects.delete(file.object)
                await store.files.remove(file.id)
        except STORE_ERRORS as error:
            _log.warning("checkpoint_not_removed", **described(error))

    def _report_unusable(self, reason: str) -> None:
        _log.warning("checkpoint_unusable", reason=reason)
        self._attempt.report.write(f"Starting from the first step, because the checkpoint cannot be used: {reason}")


def _is_followed(error: Exception) -> bool:
    """Whether another attempt follows one that ends with this error."""
    if isinstance(error, InterruptedAttemptError):
        return error.why in (Interruption.RELEASED, Interruption.PREEMPTED)
    return not isinstance(error, RequestError | LeaseLostError)


def _new_file(lease: Lease) -> NewFile:
    """Returns a file without a size: it expires like an unfinished upload, if nothing ends it earlier."""
    return NewFile(
        key_id=lease.key_id,
        object=f"checkpoints/{lease.id}/{lease.attempt}.safetensors",
        name="checkpoint.safetensors",
        content_type="application/octet-stream",
    )
