"""Serves generated and uploaded files behind signed links."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from keyreel.files.links import Access, access
from keyreel.files.objects import ObjectChangedError, Stat
from keyreel.server.dependencies import OPEN, CurrentServices, Needs, Services, require_key
from keyreel.server.openapi import FILE, FILE_NAME
from keyreel.store.records import File
from keyreel.store.scopes import Scope

router = APIRouter(tags=["files"])

READS = 3
"""How often a file is read while uploads replace it."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_MEDIA = re.compile(r"(image|video|audio)/(?!svg)")
"""Content types that a browser shows without running code from the file."""
_OF_REDIRECTS = ("Cache-Control", "Access-Control-Allow-Origin", "Cross-Origin-Resource-Policy")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from `start` up to but not including `end`. Empty when the file has no such bytes."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return max(0, self.end - self.start)


@router.head("/files/{token}/{name}", include_in_schema=False, dependencies=[OPEN])
@router.get(
    "/files/{token}/{name}",
    summary="Read a file",
    dependencies=[OPEN],
    response_class=Response,
    responses=FILE,
    openapi_extra=FILE_NAME,
)
async def read_file(token: str, request: Request, services: CurrentServices) -> Response:
    """Returns the file of a signed link, or one range of it. Answers 410 when the file has expired."""
    file = await _find(token, request, services)
    for _ in range(READS):
        with suppress(ObjectChangedError):
            return await _answer(file, request, services)
    raise HTTPException(503, "The file is being replaced. Try again.", {"Retry-After": "1"})


async def _answer(file: File, request: Request, services: Services) -> Response:
    """Raises ObjectChangedError if an upload replaces the file between its headers and its content."""
    stat = await services.objects.stat(file.object)
    if stat is None:
        raise _no_such_file()
    headers = _headers(file, stat)
    if stat.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(stat.size)})
    if services.presigner and _may_be_redirected(request, file):
        url = await services.presigner.url(file.object)
        return RedirectResponse(url, 307, {name: headers[name] for name in _OF_REDIRECTS})
    return await _content(services, file, stat, headers, _requested_range(request.headers, stat))


def _may_be_redirected(request: Request, file: File) -> bool:
    """Returns whether the bucket may serve the file: it knows the type, but neither the name nor our other headers.

    So a file that could run code stays with us, and so does one that a browser opens or saves under its name.
    """
    return bool(_MEDIA.match(file.content_type)) and request.headers.get("sec-fetch-mode") != "navigate"


def parse_range(header: str, size: int) -> ByteRange | None:
    """Parses a Range header. None means the whole file; also for invalid and multiple ranges, as RFC 9110 allows."""
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if not match or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return ByteRange(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return ByteRange(int(first), min(int(last) + 1, size) if last else size)


async def _find(token: str, request: Request, services: Services) -> File:
    ref = services.links.open_file_token(token)
    if ref is None:
        raise _no_such_file()
    file = await services.store.files.get(ref.id)
    if file is None:
        raise HTTPException(410, "This file has expired.")  # the link is signed, so the file existed
    match access(file, await _reader(request) if file.acl else None):
        case Access.HIDE:
            raise _no_such_file()
        case Access.FORBID:
            raise HTTPException(403, "You may not read this file.")
    return file


async def _reader(request: Request) -> str | None:
    """Returns the id of the caller's key. Links work without a key, so one that may not read is ignored."""
    try:
        return (await Needs(Scope.READ)(await require_key(request))).id
    except HTTPException:
        return None


def _headers(file: File, stat: Stat) -> dict[str, str]:
    headers = {
        "Content-Type": file.content_type,
        "Content-Disposition": f"inline; filename*=utf-8''{quote(file.name)}",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": stat.etag,
        "Cache-Control": "no-cache",  # the file may expire, and each read checks its rules
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if not _MEDIA.match(file.content_type):
        # The scripts of an uploaded page must not run in our origin.
        headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return headers


def _requested_range(headers: Mapping[str, str], stat: Stat) -> ByteRange | None:
    """Returns None, the whole file, when If-Range names another version of the file than the current one."""
    if headers.get("if-range", stat.etag) != stat.etag:
        return None
    return parse_range(headers.get("range", ""), stat.size)


async def _content(
    services: Services, file: File, stat: Stat, headers: dict[str, str], part: ByteRange | None
) -> Response:
    if part is None:
        body = await _started(services.objects.stream(file.object, version=stat))
        return StreamingResponse(body, 200, headers | {"Content-Length": str(stat.size)})
    if not part.size:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{stat.size}"})
    headers |= {"Content-Range": f"bytes {part.start}-{part.end - 1}/{stat.size}", "Content-Length": str(part.size)}
    body = await _started(services.objects.stream(file.object, part.start, part.end, stat))
    return StreamingResponse(body, 206, headers)


async def _started(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Reads the first chunk, so that a store that is away is noticed while the answer can still be 503."""
    first = await anext(chunks, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return whole()


def _no_such_file() -> HTTPException:
    return HTTPException(404, "There is no such file.")
