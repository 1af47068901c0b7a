"""The files that requests made and clients uploaded, behind signed links."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from keyreel.links import Access, access
from keyreel.objects import Stat
from keyreel.server.dependencies import CurrentServices, Services, require_key
from keyreel.store.records import File

router = APIRouter(tags=["files"])

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_MEDIA = re.compile(r"(image|video|audio)/(?!svg)")
"""What a browser shows without running anything in it."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` to before `end`; empty when there are none such in the file."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return max(0, self.end - self.start)


@router.head("/files/{token}/{name}", include_in_schema=False)
@router.get("/files/{token}/{name}", summary="Read a file")
async def read_file(token: str, request: Request, services: CurrentServices) -> Response:
    """A file by its link, or one range of it. 410: it has expired."""
    file = await _find(token, request, services)
    stat = await services.objects.stat(file.object)
    if stat is None:
        raise _no_such_file()
    headers = _headers(file, stat)
    if stat.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(stat.size)})
    return _content(services, file, stat, headers, _asked(request.headers, stat))


def parse_range(header: str, size: int) -> Span | None:
    """None: the whole file, also for what is not understood and for several ranges, as RFC 9110 has it."""
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if not match or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return Span(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return Span(int(first), min(int(last) + 1, size) if last else size)


async def _find(token: str, request: Request, services: Services) -> File:
    ref = services.links.open_file_token(token)
    if ref is None:
        raise _no_such_file()
    file = await services.store.files.get(ref.id)
    if file is None:
        raise HTTPException(410, "This file has expired.")  # we signed its link, so there was one
    match access(file, await _reader(request, services) if file.acl else None):
        case Access.HIDE:
            raise _no_such_file()
        case Access.FORBID:
            raise HTTPException(403, "You may not read this file.")
    return file


async def _reader(request: Request, services: Services) -> str | None:
    """The id of the key that was sent along. Links need none, so a wrong one is as good as none."""
    try:
        return (await require_key(request, services)).id
    except HTTPException:
        return None


def _headers(file: File, stat: Stat) -> dict[str, str]:
    headers = {
        "Content-Type": file.content_type,
        "Content-Disposition": f"inline; filename*=utf-8''{quote(file.name)}",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "ETag": stat.etag,
        "Cache-Control": "no-cache",  # may be kept, but it expires and its rules count at each reading
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    if not _MEDIA.match(file.content_type):
        # Whoever uploads a page with a script shall not get it run in our origin.
        headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return headers


def _asked(headers: Mapping[str, str], stat: Stat) -> Span | None:
    """A range of another version of the file would be worthless: If-Range says which version is meant."""
    if headers.get("if-range", stat.etag) != stat.etag:
        return None
    return parse_range(headers.get("range", ""), stat.size)


def _content(services: Services, file: File, stat: Stat, headers: dict[str, str], span: Span | None) -> Response:
    if span is None:
        body = services.objects.stream(file.object)
        return StreamingResponse(body, 200, headers | {"Content-Length": str(stat.size)})
    if not span.size:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{stat.size}"})
    part = {"Content-Range": f"bytes {span.start}-{span.end - 1}/{stat.size}", "Content-Length": str(span.size)}
    return StreamingResponse(services.objects.stream(file.object, span.start, span.end), 206, headers | part)


def _no_such_file() -> HTTPException:
    return HTTPException(404, "There is no such file.")
