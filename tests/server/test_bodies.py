"""How large bodies may be, and how much of them is in memory at a time."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keyreel.files.objects import IN_MEMORY
from keyreel.server import bodies
from keyreel.server.bodies import DEFAULT_LIMIT, LARGE
from keyreel.server.options import MAX_VALUES
from keyreel.server.submit import MAX_INPUT
from tests.files.test_objects import files_in
from tests.server.live import ENDPOINT
from tests.server.storage_api import KIB, Api, initiate, open_api

QUEUE = f"/queue/{ENDPOINT}"
LIMIT = 4 * LARGE


@pytest.fixture
async def narrow(tmp_path: Path) -> AsyncIterator[Api]:
    """An API that keeps no more than 4 MiB in memory, half of it for one key."""
    limits = {"max_bytes_in_flight": LIMIT, "max_bytes_in_flight_per_key": LIMIT // 2, "max_body_bytes": 3 * LIMIT}
    async with open_api(tmp_path, **limits) as api:
        yield api


class Slow:
    """A body of which the server gets the first part at once, and the rest when it is released."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b" " * self._size
        self.arrived.set()
        await self.release.wait()
        yield b'{"prompt": "a fox"}'


def picture(size: int) -> dict[str, Any]:
    return {"image_url": "data:image/png;base64," + base64.b64encode(bytes(size)).decode()}


class Endless:
    """A body that goes on for as long as it is read."""

    def __init__(self) -> None:
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.read += 64 * KIB
            yield b" " * (64 * KIB)


@pytest.mark.parametrize("path", ["/tokens", "/storage/upload/initiate", "/keys"])
async def test_a_body_that_no_route_asked_for_is_small(api: Api, path: str) -> None:
    """FastAPI reads it before it looks for the caller's key."""
    body = Endless()
    answer = await api.client.post(path, content=body.__aiter__(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json() == {"detail": f"The body is larger than {DEFAULT_LIMIT} bytes."}
    assert body.read <= DEFAULT_LIMIT + 64 * KIB


async def test_nothing_is_read_of_a_stranger(api: Api) -> None:
    body = Endless()
    assert (await api.client.post(QUEUE, content=body.__aiter__())).status_code == 401
    assert body.read == 0


async def test_a_key_may_not_send_too_much_at_a_time(narrow: Api) -> None:
    slow = Slow(LIMIT // 2 - 100)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(narrow.client.post(QUEUE, content=slow.__aiter__(), headers=narrow.auth()))
        await slow.arrived.wait()
        second = await narrow.client.post(QUEUE, content=b" " * 200, headers=narrow.auth())
        assert second.status_code == 429
        assert second.headers["retry-after"] == "5"
        assert second.json()["detail"].startswith("Your key is sending more than")
        other = await narrow.client.post(QUEUE, json={"prompt": "a fox"}, headers=narrow.auth(narrow.other))
        assert other.status_code == 200
        slow.release.set()
    assert first.result().status_code == 200
    assert (await narrow.client.post(QUEUE, json={"prompt": "a"}, headers=narrow.auth())).status_code == 200


async def test_all_keys_together_may_not_send_too_much(narrow: Api) -> None:
    keys = [narrow.key, narrow.other]
    slow = [Slow(LIMIT // 2 - 100) for _ in keys]
    third = await narrow.services.store.keys.create("third")
    async with asyncio.TaskGroup() as tasks:
        for key, body in zip(keys, slow, strict=True):
            tasks.create_task(narrow.client.post(QUEUE, content=body.__aiter__(), headers=narrow.auth(key)))
            await body.arrived.wait()
        answer = await narrow.client.post(QUEUE, content=b" " * 300, headers=narrow.auth(third))
        for body in slow:
            body.release.set()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


@pytest.mark.slow
async def test_uploads_count_with_what_is_in_memory(tmp_path: Path) -> None:
    limits = {"max_bytes_in_flight_per_key": IN_MEMORY, "max_lora_bytes": 2 * IN_MEMORY}
    async with open_api(tmp_path, **limits) as api:
        urls = [await initiate(api) for _ in range(2)]
        large = await api.client.put(urls[0]["upload_url"], content=pieces(IN_MEMORY // KIB + 100))
        assert large.status_code == 200, "most of it was on the disk"
        small = await api.client.put(urls[1]["upload_url"], content=b"x")
        assert small.status_code == 200


async def pieces(number: int) -> AsyncIterator[bytes]:
    for _ in range(number):
        yield bytes(KIB)


async def test_large_bodies_take_turns(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third is read, but waits until one of the two before it is stored."""
    waiting, go = asyncio.Semaphore(0), asyncio.Event()
    put = api.services.objects.put

    async def blocked(*arguments: Any) -> int:
        waiting.release()
        await go.wait()
        return await put(*arguments)

    monkeypatch.setattr(type(api.services.objects), "put", lambda _self, *arguments: blocked(*arguments))
    body = {"prompt": "a fox", "images": [picture(LARGE)]}
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(api.client.post(QUEUE, json=body, headers=api.auth())) for _ in range(3)]
        for _ in range(bodies.TURNS):
            await waiting.acquire()
        small = await api.client.post(QUEUE, json={"prompt": "a cat"}, headers=api.auth())
        assert small.status_code == 200, "small bodies do not wait"
        assert waiting.locked(), "the third large one does"
        go.set()
    assert [call.result().status_code for call in calls] == [200, 200, 200]


async def test_an_input_is_small_without_its_data_uris(api: Api, tmp_path: Path) -> None:
    large = {"prompt": "a fox", "images": [picture(2 * MAX_INPUT)]}
    assert (await api.client.post(QUEUE, json=large, headers=api.auth())).status_code == 200
    stored = files_in(tmp_path / "files")
    for wrong in (
        large | {"prompt": "x" * MAX_INPUT},
        {"prompt": "a", "images": [{"image_url": "data:" + "x" * MAX_INPUT}]},
    ):
        answer = await api.client.post(QUEUE, json=wrong, headers=api.auth())
        assert answer.status_code == 413
        assert "without pictures and clips in valid data URIs" in answer.json()["detail"]
    assert files_in(tmp_path / "files") == stored, "files of a refused request are deleted"


async def test_a_body_has_a_limit_of_values(api: Api) -> None:
    content = json.dumps({"prompt": "a fox", "x": [{}] * MAX_VALUES})
    answer = await api.client.post(QUEUE, content=content, headers=api.auth())
    assert answer.status_code == 413
    assert answer.json() == {"detail": f"The body has more than {MAX_VALUES} values."}


async def test_a_large_body_is_parsed_beside_the_event_loop(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    to_thread = asyncio.to_thread

    async def counted(work: Any, *arguments: Any) -> Any:
        moved.append(work.__name__)
        return await to_thread(work, *arguments)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    body = {"prompt": "a fox", "images": [picture(LARGE)]}
    assert (await api.client.post(QUEUE, json=body, headers=api.auth())).status_code == 200
    assert {"parse_json", "parse_data_uri"} <= set(moved)
