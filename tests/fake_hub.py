"""A small Hugging Face Hub with the part of its HTTP API that downloads use."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from aiohttp import web

MAIN = "0123456789abcdef0123456789abcdef01234567"
OLD = "89abcdef0123456789abcdef0123456789abcdef"
CHUNK = 1 << 20


@dataclass
class FakeHub:
    """A hub on 127.0.0.1. repositories: folders by repository and commit.

    gated: accepted tokens by repository. As on the real hub, everybody may list the files of these repositories.
    cut: (path, bytes); the next download of that file is cut after that many bytes.
    log: (path, Range header) of each download.
    """

    repositories: dict[str, dict[str, Path]]
    gated: dict[str, str] = field(default_factory=dict)
    cut: tuple[str, int] | None = None
    log: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def served(self) -> Iterator["FakeHub"]:
        """Serves the hub from a thread during the block. `url` is its address."""
        loop = asyncio.new_event_loop()
        thread = Thread(target=loop.run_forever)
        thread.start()
        try:
            runner = asyncio.run_coroutine_threadsafe(self._start(), loop).result()
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/api/models/{repo:[^/]+/[^/]+}", self._info)
        app.router.add_get("/api/models/{repo:[^/]+/[^/]+}/revision/{revision}", self._revision)
        app.router.add_get("/api/models/{repo:[^/]+/[^/]+}/tree/{revision}", self._tree)
        app.router.add_get("/{repo:[^/]+/[^/]+}/resolve/{revision}/{path:.+}", self._file)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _revision(self, request: web.Request) -> web.StreamResponse:
        commit, _ = self._find(request)
        return web.json_response({"id": request.match_info["repo"], "sha": commit})

    async def _info(self, request: web.Request) -> web.StreamResponse:
        commit, folder = self._repository(request)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        siblings = [{"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size} for path in files]
        gated = "manual" if request.match_info["repo"] in self.gated else False
        return web.json_response(
            {"id": request.match_info["repo"], "sha": commit, "gated": gated, "siblings": siblings}
        )

    async def _tree(self, request: web.Request) -> web.StreamResponse:
        _, folder = self._find(request)
        return web.json_response([_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        commit, folder = self._find(request)
        path = folder / request.match_info["path"]
        if not path.is_file():
            raise refusal(404, "EntryNotFound")
        content = path.read_bytes()
        byte_range = request.headers.get("Range")
        start = int(byte_range.removeprefix("bytes=").removesuffix("-")) if byte_range else 0
        headers = {
            "ETag": f'"{_etag(path)}"',
            "X-Repo-Commit": commit,
            "Content-Length": str(len(content) - start),
            "Accept-Ranges": "bytes",
        }
        if byte_range:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        response = web.StreamResponse(status=206 if byte_range else 200, headers=headers)
        await response.prepare(request)
        if request.method == "GET":
            self.log.append((request.match_info["path"], byte_range))
            await self._send(request, response, content[start:])
        return response

    async def _send(self, request: web.Request, response: web.StreamResponse, content: bytes) -> None:
        is_cut = self.cut is not None and self.cut[0] == request.match_info["path"]
        stop = self.cut[1] if self.cut and is_cut else len(content)
        for begin in range(0, stop, CHUNK):
            await response.write(content[begin : min(begin + CHUNK, stop)])
        if is_cut and request.transport:
            self.cut = None
            request.transport.close()

    def _find(self, request: web.Request) -> tuple[str, Path]:
        repo = request.match_info["repo"]
        if (token := self.gated.get(repo)) and (sent := request.headers.get("Authorization")) != f"Bearer {token}":
            raise refusal(403 if sent else 401, "GatedRepo")
        return self._repository(request)

    def _repository(self, request: web.Request) -> tuple[str, Path]:
        commits = self.repositories.get(request.match_info["repo"])
        if commits is None:
            raise refusal(401, "RepoNotFound")
        revision = request.match_info.get("revision", "main")
        commit = {"main": MAIN, "v1": OLD}.get(revision, revision)
        if commit not in commits:
            raise refusal(404, "RevisionNotFound")
        return commit, commits[commit]


def refusal(status: int, code: str) -> web.HTTPException:
    kinds: dict[int, type[web.HTTPException]] = {
        401: web.HTTPUnauthorized,
        403: web.HTTPForbidden,
        404: web.HTTPNotFound,
    }
    return kinds[status](headers={"X-Error-Code": code})


def _entry(path: Path, folder: Path) -> dict[str, object]:
    size, etag = path.stat().st_size, _etag(path)
    entry = {"type": "file", "path": path.relative_to(folder).as_posix(), "oid": etag[:40], "size": size}
    large = {"lfs": {"oid": etag, "size": size, "pointerSize": 134}}
    return entry | (large if _is_large(path) else {})


def _is_large(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _etag(path: Path) -> str:
    """Returns the hub's ETag: SHA-256 of a large file, git's hash of a small one."""
    content = path.read_bytes()
    if _is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324 (git's hash)
