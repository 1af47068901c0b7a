"""A web server that serves inputs to workers."""

import asyncio
import io
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image


class Site:
    """Serves `files` by path. `asked` is set at the first request. sent: the paths of the answers with a file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sent: list[str] = []
        self.asked = asyncio.Event()
        app = web.Application()
        app.router.add_get("/{path}", self._answer)
        self.server = TestServer(app)

    def add(self, path: str, content: bytes) -> str:
        self.files[path] = content
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.port}/{path}"

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.set()
        path = request.match_info["path"]
        content = self.files.get(path)
        if content is None:
            return web.Response(status=404)
        etag = f'"{zlib.crc32(content)}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        self.sent.append(path)
        return web.Response(body=content, headers={"ETag": etag})


@asynccontextmanager
async def open_site() -> AsyncIterator[Site]:
    site = Site()
    async with site.server:
        yield site


def picture(colour: tuple[int, int, int] = (200, 30, 30), size: int = 64) -> bytes:
    """Returns a plain square PNG."""
    file = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), colour, np.uint8)).save(file, "PNG")
    return file.getvalue()
