"""The data folder becomes read-only while the server runs, as when ext4 finds an error of its disk, and recovers."""

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.server.chaos import TIMEOUT, check_video, ended, ready
from tests.server.live import APP, ENDPOINT
from tests.server.requests_table import check_integrity, read_requests
from tests.server.whole import HEADERS, small, whole_server
from tests.store.postgres import DATABASES
from tests.worker.conftest import Gate, gate
from tests.worker.site import picture

__all__ = ["gate"]

PICTURE = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The library that refuses to write, for `LD_PRELOAD`. The sandboxed processes of a worker do not load it."""
    path = tmp_path / "read_only.so"
    source = Path(__file__).with_name("read_only.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", path, source, "-ldl"], check=True)
    return path


async def post(http: aiohttp.ClientSession, work: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with http.post(f"/queue/{ENDPOINT}", json=work) as answer:
        return answer.status, await answer.json()


async def submit(http: aiohttp.ClientSession, work: dict[str, Any]) -> str:
    status, body = await post(http, work)
    assert status == HTTPStatus.OK, body
    return str(body["request_id"])


async def steps_done(http: aiohttp.ClientSession, request_id: str) -> int:
    async with http.get(f"/queue/{APP}/requests/{request_id}/status") as answer:
        progress = (await answer.json()).get("progress") or {}
    return int(progress["step"]) if progress.get("stage") == "denoise" else 0


@asynccontextmanager
async def read_only(mark: Path) -> AsyncIterator[None]:
    mark.touch()
    try:
        yield
    finally:
        mark.unlink()


@pytest.mark.slow
async def test_a_folder_that_becomes_read_only_costs_no_accepted_request(
    new_url: str, tmp_path: Path, gate: Gate, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = tmp_path / "data", tmp_path / "mark"
    folder.mkdir()
    is_local = new_url.startswith(DATABASES[0])
    url = f"sqlite:///{folder / 'keyreel.db'}" if is_local else new_url
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("READ_ONLY_FOLDER", str(folder))
    monkeypatch.setenv("READ_ONLY_WHILE", str(mark))
    async with whole_server(folder, database=url) as server, asyncio.timeout(TIMEOUT):
        async with aiohttp.ClientSession(server.url, headers=HEADERS) as http:
            await ready(http)
            finished = await submit(http, small(images=[{"image_url": PICTURE}]))
            await ended(http, finished)
            running = await submit(http, small(gate.prompt))
            queued = await submit(http, small("pace=0.01"))
            gate.open()
            while not await steps_done(http, running):
                await asyncio.sleep(0.05)
            async with read_only(mark):
                gate.open()
                status, body = await post(http, small(images=[{"image_url": PICTURE}]))
                assert status == HTTPStatus.SERVICE_UNAVAILABLE, body
                assert await check_video(http, finished)
                status, body = await post(http, small("pace=0.01"))
                assert (status == HTTPStatus.OK) != is_local, body
            accepted = [finished, running, queued, *([] if is_local else [body["request_id"]])]
            accepted.append(await submit(http, small("pace=0.01", images=[{"image_url": PICTURE}])))
            for request_id in accepted:
                await ended(http, request_id)
                assert await check_video(http, request_id)
        await server.end()
    check_integrity(url)
    assert [row.id for row in await read_requests(url, "id")] == accepted
