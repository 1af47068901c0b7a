"""Receives uploads, whole or in parts, into the object store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import HTTPException
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect, Request

from keyreel.files.disk import Disk, DiskLowError
from keyreel.files.objects import IN_MEMORY, parts_folder
from keyreel.server.bodies import Incoming, lift_limit
from keyreel.server.dependencies import Services
from keyreel.settings import Settings
from keyreel.store.records import File, LimitError
from keyreel.worker.waiting import start_shared

MAX_PARTS = 10_000


class Part(BaseModel):
    """An uploaded part. The field names are those of fal's clients."""

    partNumber: int = Field(ge=1, le=MAX_PARTS)  # noqa: N815
    etag: str


async def receive(request: Request, services: Services, file: File) -> None:
    """Stores the content of `file`. A repeated upload replaces it: clients repeat uploads when a response is lost."""
    async with _discarded_if_refused(services, file):
        await services.store.files.check(file, int(request.headers.get("content-length", 0)))
    async with services.bodies.receive(file.key_id) as incoming:
        body = _limited(request, services.disk, incoming, _Room(_max_bytes(services.settings)))
        size = await services.objects.put(file.object, body, file.content_type)
    await _arrived(services, file, size)


async def receive_part(request: Request, services: Services, file: File, number: int) -> Part:
    """Stores one part of `file`. All its parts together may not exceed the size limit of a file."""
    path = _part_path(file, number)
    async with _room_of(services, file) as room, services.bodies.receive(file.key_id) as incoming:
        replaced = await services.objects.size(path) or 0
        room.left += replaced
        try:
            await services.objects.put(path, _limited(request, services.disk, incoming, room))
        except BaseException:
            room.left -= replaced
            raise
    await _check_parts(services, file, path)
    return Part(partNumber=number, etag=await _etag(services, path) or "")


async def join(services: Services, file: File, parts: tuple[Part, ...]) -> None:
    """Joins the parts of `file` in the order of their numbers."""
    if file.size is not None:
        return  # a repeated call: the response to the first one was lost
    services.disk.require(await services.objects.folder_size(parts_folder(file.id)))
    paths = [_part_path(file, part.partNumber) for part in sorted(parts, key=lambda part: part.partNumber)]
    for part in parts:
        if part.etag != await _etag(services, _part_path(file, part.partNumber)):
            raise HTTPException(400, f"Part {part.partNumber} is missing or has another etag. Upload it again.")
    await _arrived(services, file, await services.objects.compose(file.object, paths, file.content_type))
    await services.objects.delete_folder(parts_folder(file.id))


async def discard(services: Services, file: File) -> None:
    """Deletes a file whose upload is refused or broke off."""
    await services.objects.delete(file.object)
    await services.store.files.remove(file.id)


async def _arrived(services: Services, file: File, size: int) -> None:
    """Records the content, or deletes it again if it is more than the key may store or upload."""
    async with _discarded_if_refused(services, file):
        await services.store.files.uploaded(file, size)


@asynccontextmanager
async def _discarded_if_refused(services: Services, file: File) -> AsyncIterator[None]:
    """Deletes the file if a limit of its key refuses it."""
    try:
        yield
    except LimitError:
        await services.objects.delete_folder(parts_folder(file.id))
        await discard(services, file)
        raise


@dataclass(slots=True)
class _Room:
    """The bytes that a file may still grow by. Uploads of its parts that run at a time share one."""

    left: int

    def take(self, size: int) -> None:
        if size > self.left:
            raise _too_large()
        self.left -= size


@dataclass(slots=True)
class _SharedRoom:
    room: asyncio.Task[_Room]
    uploads: int = 0


_rooms: dict[str, _SharedRoom] = {}
"""Of the files of which parts arrive in this process."""


@asynccontextmanager
async def _room_of(services: Services, file: File) -> AsyncIterator[_Room]:
    """Yields the room that `file` has beside its stored parts, the same to all that upload parts meanwhile."""
    if file.id not in _rooms:
        _rooms[file.id] = _SharedRoom(start_shared(_measured(services, file)))
    shared = _rooms[file.id]
    shared.uploads += 1
    try:
        yield await asyncio.shield(shared.room)
    finally:
        shared.uploads -= 1
        if not shared.uploads:
            del _rooms[file.id]


async def _measured(services: Services, file: File) -> _Room:
    return _Room(_max_bytes(services.settings) - await services.objects.folder_size(parts_folder(file.id)))


async def _check_parts(services: Services, file: File, path: str) -> None:
    """Deletes a part again if other processes have received too many bytes of other parts meanwhile."""
    if await services.objects.folder_size(parts_folder(file.id)) > _max_bytes(services.settings):
        await services.objects.delete(path)
        raise _too_large()


async def _limited(request: Request, disk: Disk, incoming: Incoming, room: _Room) -> AsyncIterator[bytes]:
    """Yields the content. Raises DiskLowError before anything is written, or as soon as it shows without a length."""
    lift_limit(request)
    declared = int(request.headers.get("content-length", 0))
    if declared > room.left:
        raise _too_large()
    disk.require(declared)
    received, on_disk, is_complete = 0, disk.room, False
    try:
        async for chunk in request.stream():
            room.take(len(chunk))
            received += len(chunk)
            if received > on_disk or disk.is_low:  # what was received may not be on the disk yet
                raise DiskLowError
            if incoming.size < IN_MEMORY:
                incoming.add(len(chunk))
            yield chunk
        is_complete = True
    except ClientDisconnect:
        raise HTTPException(400, "The connection ended before the upload was complete. Upload it again.") from None
    finally:
        if not is_complete:
            room.left += received


def _too_large() -> HTTPException:
    return HTTPException(413, "The file is larger than this server allows.")


def _max_bytes(settings: Settings) -> int:
    """Returns the largest size that any kind of input may have: all uploads are inputs."""
    return max(settings.max_image_bytes, settings.max_video_bytes, settings.max_lora_bytes)


async def _etag(services: Services, path: str) -> str | None:
    stat = await services.objects.stat(path)
    return stat.etag if stat else None


def _part_path(file: File, number: int) -> str:
    return f"{parts_folder(file.id)}/{number}"
