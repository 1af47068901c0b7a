"""From the body of a request into the object store, whole or in parts."""

from collections.abc import AsyncIterator

from fastapi import HTTPException
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect, Request

from keyreel.objects import parts_folder
from keyreel.server.dependencies import Services
from keyreel.settings import Settings
from keyreel.store.records import File

MAX_PARTS = 10_000


class Part(BaseModel):
    """The field names are those of fal's clients."""

    partNumber: int = Field(ge=1, le=MAX_PARTS)  # noqa: N815
    etag: str


async def receive(request: Request, services: Services, file: File) -> None:
    """The content of `file`. Sending it again replaces it: clients repeat themselves when an answer is lost."""
    body = _limited(request, _max_bytes(services.settings))
    await services.store.files.uploaded(file.id, await services.objects.put(file.object, body))


async def receive_part(request: Request, services: Services, file: File, number: int) -> Part:
    path = _part_path(file, number)
    others = await services.objects.folder_size(parts_folder(file.id)) - (await services.objects.size(path) or 0)
    await services.objects.put(path, _limited(request, _max_bytes(services.settings) - others))
    return Part(partNumber=number, etag=await _etag(services, path) or "")


async def join(services: Services, file: File, parts: tuple[Part, ...]) -> None:
    """Makes the file of its parts, in the order of their numbers."""
    if file.size is not None:
        return  # it was answered before, and the answer was lost
    paths = [_part_path(file, part.partNumber) for part in sorted(parts, key=lambda part: part.partNumber)]
    for part in parts:
        if part.etag != await _etag(services, _part_path(file, part.partNumber)):
            raise HTTPException(400, f"Part {part.partNumber} is not the one that was uploaded. Upload it again.")
    await services.store.files.uploaded(file.id, await services.objects.compose(file.object, paths))
    await services.objects.delete_folder(parts_folder(file.id))


async def _limited(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    _check_size(int(request.headers.get("content-length", 0)), max_bytes)
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            _check_size(received, max_bytes)
            yield chunk
    except ClientDisconnect:
        raise HTTPException(400, "The upload broke off.") from None


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise HTTPException(413, "The file is larger than the server takes.")


def _max_bytes(settings: Settings) -> int:
    """Files are uploaded to be inputs: no input may be larger."""
    return max(settings.max_image_bytes, settings.max_video_bytes, settings.max_lora_bytes)


async def _etag(services: Services, path: str) -> str | None:
    stat = await services.objects.stat(path)
    return stat.etag if stat else None


def _part_path(file: File, number: int) -> str:
    return f"{parts_folder(file.id)}/{number}"
