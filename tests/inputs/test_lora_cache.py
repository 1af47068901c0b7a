"""LoRAs from URLs and hub repositories are downloaded once, and kept up to a size."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from keyreel.errors import RequestError
from keyreel.fal.schema import LoRA
from keyreel.inputs.fetch import Fetcher
from keyreel.inputs.lora_cache import LoRACache
from keyreel.inputs.loras import find_lora
from keyreel.video.job import InputFile
from tests.inputs.test_loras import ANYWHERE, LOC, WEIGHTS, Hub, hub

__all__ = ["hub"]


@dataclass
class Source:
    """Serves LoRAs. `/private/x` needs `?key=right`, `/moved/x` redirects to `/x`, `/plain/x` has only a weak ETag."""

    contents: dict[str, bytes] = field(default_factory=dict)
    downloads: list[str] = field(default_factory=list)
    url: str = ""
    allowed_key: str = "right"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path.startswith("/moved/"):
            raise web.HTTPFound(path.removeprefix("/moved"))
        if path.startswith("/private/") and request.query.get("key") != self.allowed_key:
            raise web.HTTPForbidden
        content = self.contents[path]
        etag = f'"{hash(content)}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304)
        self.downloads.append(path)
        return web.Response(body=content, headers={"ETag": f"W/{etag}" if path.startswith("/plain/") else etag})


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    source = Source()
    app = web.Application()
    app.router.add_get("/{path:.+}", source.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    source.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield source
    await runner.cleanup()


@pytest.fixture
def loras(tmp_path: Path) -> LoRACache:
    return LoRACache(tmp_path / "loras", 3 * len(WEIGHTS))


class Requests:
    """Each call is a request of its own, with a folder of its own."""

    def __init__(self, folder: Path, loras: LoRACache) -> None:
        self._folder = folder
        self._loras = loras
        self._number = 0

    async def fetch(self, path: str, hub: Hub | None = None, max_bytes: int = 10**6) -> InputFile:
        self._number += 1
        async with Fetcher(self._folder / str(self._number), ANYWHERE, 10, loras=self._loras) as fetcher:
            lora = LoRA(path=path)
            return await find_lora(lora, fetcher, max_bytes=max_bytes, loc=LOC, api=hub.api if hub else None)


@pytest.fixture
def requests(tmp_path: Path, loras: LoRACache) -> Requests:
    return Requests(tmp_path / "requests", loras)


@pytest.mark.parametrize("path", ["/style.safetensors", "/moved/style.safetensors"])
async def test_a_url_is_downloaded_once_until_it_changes(source: Source, requests: Requests, path: str) -> None:
    source.contents["/style.safetensors"] = WEIGHTS
    files = [await requests.fetch(source.url + path) for _ in range(20)]
    assert len(source.downloads) == 1
    assert {(file.sha256, file.name) for file in files} == {(files[0].sha256, "style.safetensors")}
    assert {file.path.read_bytes() for file in files} == {WEIGHTS}
    assert len({file.path for file in files}) == 20
    source.contents["/style.safetensors"] = b"changed"
    assert (await requests.fetch(source.url + path)).path.read_bytes() == b"changed"
    assert len(source.downloads) == 2


async def test_a_source_with_a_weak_etag_is_downloaded_each_time(source: Source, requests: Requests) -> None:
    source.contents["/plain/a"] = WEIGHTS
    for _ in range(2):
        assert (await requests.fetch(f"{source.url}/plain/a")).path.read_bytes() == WEIGHTS
    assert len(source.downloads) == 2


async def test_the_source_decides_for_each_request_who_may_have_it(source: Source, requests: Requests) -> None:
    source.contents["/private/a"] = WEIGHTS
    await requests.fetch(f"{source.url}/private/a?key=right")
    with pytest.raises(RequestError, match="403"):
        await requests.fetch(f"{source.url}/private/a?key=wrong")
    source.allowed_key = "another"
    with pytest.raises(RequestError, match="403"):  # the link was withdrawn
        await requests.fetch(f"{source.url}/private/a?key=right")
    assert (await requests.fetch(f"{source.url}/private/a?key=another")).path.read_bytes() == WEIGHTS


async def test_those_not_used_for_longest_are_deleted_and_requests_keep_theirs(
    source: Source, requests: Requests, loras: LoRACache
) -> None:
    contents = {name: bytes([index]) * len(WEIGHTS) for index, name in enumerate("abcd")}
    source.contents = {f"/{name}": content for name, content in contents.items()}
    files = {}
    for age, name in zip((300, 200, 100), "abc", strict=True):
        files[name] = await requests.fetch(f"{source.url}/{name}")
        kept = loras.folder / "files" / files[name].sha256
        os.utime(kept, (kept.stat().st_atime - age, kept.stat().st_mtime - age))
    await requests.fetch(f"{source.url}/a")  # used again, so b is next
    files["d"] = await requests.fetch(f"{source.url}/d")
    assert {path.name for path in (loras.folder / "files").iterdir()} == {files[name].sha256 for name in "acd"}
    assert len(list((loras.folder / "sources").iterdir())) == 3
    assert files["b"].path.read_bytes() == contents["b"]
    source.downloads.clear()
    for name in "acd":
        await requests.fetch(f"{source.url}/{name}")
    assert not source.downloads


async def test_a_damaged_file_is_downloaded_again(source: Source, requests: Requests, loras: LoRACache) -> None:
    source.contents["/a"] = WEIGHTS
    first = await requests.fetch(f"{source.url}/a")
    (loras.folder / "files" / first.sha256).write_bytes(b"damaged")
    assert (await requests.fetch(f"{source.url}/a")).path.read_bytes() == WEIGHTS
    assert len(source.downloads) == 2


async def test_the_size_limit_holds_for_a_kept_file(source: Source, requests: Requests) -> None:
    source.contents["/a"] = WEIGHTS
    await requests.fetch(f"{source.url}/a")
    with pytest.raises(RequestError, match="larger than"):
        await requests.fetch(f"{source.url}/a", max_bytes=10)


async def test_a_hub_file_is_kept_and_deleted_like_the_others(hub: Hub, requests: Requests, loras: LoRACache) -> None:
    hub.repositories = {f"ann/{name}": {"a.safetensors": name.encode() * len(WEIGHTS)} for name in "abcd"}
    first = await requests.fetch("ann/a", hub)
    again = await requests.fetch("ann/a", hub)
    assert len(hub.downloads) == 1
    assert first.path != again.path
    assert first.path.read_bytes() == again.path.read_bytes() == b"a" * len(WEIGHTS)
    blob = next(loras.hub.glob("*--a/blobs/*"))
    os.utime(blob, (0, 0))
    for name in "bcd":
        await requests.fetch(f"ann/{name}", hub)
    assert not blob.exists()
    assert first.path.read_bytes() == b"a" * len(WEIGHTS)
    assert (await requests.fetch("ann/a", hub)).sha256 == first.sha256
    assert len(hub.downloads) == 5


async def test_a_damaged_hub_file_is_downloaded_again(hub: Hub, requests: Requests, loras: LoRACache) -> None:
    hub.repositories = {"ann/a": {"a.safetensors": WEIGHTS}}
    await requests.fetch("ann/a", hub)
    next(loras.hub.glob("*/blobs/*")).write_bytes(b"damaged")
    assert (await requests.fetch("ann/a", hub)).path.read_bytes() == WEIGHTS


async def test_what_the_operator_has_in_the_hubs_cache_is_used_and_stays(
    hub: Hub, requests: Requests, tmp_path: Path, loras: LoRACache
) -> None:
    hub.repositories = {"ann/a": {"a.safetensors": WEIGHTS}}
    async with Fetcher(tmp_path / "line", ANYWHERE, 10) as command_line:
        await find_lora(LoRA(path="ann/a"), command_line, max_bytes=10**6, loc=LOC, api=hub.api)
    file = await requests.fetch("ann/a", hub)
    assert file.path.is_relative_to(tmp_path / "hub")
    assert not loras.hub.exists()
    assert len(hub.downloads) == 1
