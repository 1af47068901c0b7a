"""Receives uploads, whole or in parts, into the object store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import HTTPException
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect, Request

from keyreel.files.disk import Disk, DiskLowError
from keyreel.files.objects import parts_folder
from keyreel.server.dependencies import Services
from keyreel.settings import Settings
from keyreel.store.records import File, LimitError

MAX_PARTS = 10_000


class Part(BaseModel):
    """An uploaded part. The field names are those of fal's clients."""

    partNumber: int = Field(ge=1, le=MAX_PARTS)  # noqa: N815
    etag: str


async def receive(request: Request, services: Services, file: File) -> None:
    """Stores the content of `file`. A repeated upload replaces it: clients repeat uploads when a response is lost."""
    async with _discarded_if_refused(services, file):
        await services.store.files.check(file, int(request.headers.get("content-length", 0)))
    body = _limited(request, services.disk, _max_bytes(services.settings))
    await _arrived(services, file, await services.objects.put(file.object, body, file.content_type))


async def receive_part(request: Request, services: Services, file: File, number: int) -> Part:
    """Stores one part of `file`. All its parts together may not exceed the size limit of a file."""
    path = _part_path(file, number)
    others = await services.objects.folder_size(parts_folder(file.id)) - (await services.objects.size(path) or 0)
    await services.objects.put(path, _limited(request, services.disk, _max_bytes(services.settings) - others))
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


async def _limited(request: Request, disk: Disk, max_bytes: int) -> AsyncIterator[bytes]:
    """Yields the content. Raises DiskLowError before anything is written, or as soon as it shows without a length."""
    declared = int(request.headers.get("content-length", 0))
    _check_size(declared, max_bytes)
    disk.require(declared)
    received, room = 0, disk.room
    try:
        async for chunk in request.stream():
            received += len(chunk)
            _check_size(received, max_bytes)
            if received > room or disk.is_low:  # what was received may not be on the disk yet
                raise DiskLowError
            yield chunk
    except ClientDisconnect:
        raise HTTPException(400, "The connection ended before the upload was complete. Upload it again.") from None


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise HTTPException(413, "The file is larger than this server allows.")


def _max_bytes(settings: Settings) -> int:
    """Returns the largest size that any kind of input may have: all uploads are inputs."""
    return max(settings.max_image_bytes, settings.max_video_bytes, settings.max_lora_bytes)


async def _etag(services: Services, path: str) -> str | None:
    stat = await services.objects.stat(path)
    return stat.etag if stat else None


def _part_path(file: File, number: int) -> str:
    return f"{parts_folder(file.id)}/{number}"
