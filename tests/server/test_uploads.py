"""Uploads in parts, and the limits of uploads."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keyreel.files.objects import parts_folder
from keyreel.server import uploads
from keyreel.server.dependencies import Services
from keyreel.store.records import File
from tests.files.test_objects import disk_with_room_for, files_in
from tests.server.fal_uploads import LARGE, PART
from tests.server.storage_api import KIB, Api, initiate, part_url, upload_token


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return tmp_path / "files"


async def put_parts(api: Api, upload_url: str, contents: dict[int, bytes]) -> list[Any]:
    """Uploads all parts at once."""
    puts = [api.client.put(part_url(upload_url, number), content=content) for number, content in contents.items()]
    return [answer.json() for answer in await asyncio.gather(*puts)]


def split(content: bytes) -> dict[int, bytes]:
    starts = range(0, len(content), PART)
    return {number: content[start : start + PART] for number, start in enumerate(starts, start=1)}


async def test_parts_may_arrive_in_any_order(api: Api) -> None:
    content = LARGE[: 5 * PART + 7]
    urls = await initiate(api, "initiate-multipart")
    contents = split(content)
    answers = await put_parts(api, urls["upload_url"], {number: contents[number] for number in (4, 2, 6, 1, 5, 3)})
    assert {answer["partNumber"] for answer in answers} == set(contents)
    done = await api.client.post(part_url(urls["upload_url"], "complete"), json={"parts": answers})
    assert done.status_code == 200
    assert (await api.client.get(urls["file_url"])).content == content
    file = await api.file(urls["file_url"])
    assert file is not None
    assert file.size == len(content)
    assert await api.services.objects.folder_size("parts") == 0


async def test_completing_again_changes_nothing(api: Api) -> None:
    urls = await initiate(api, "initiate-multipart")
    answers = await put_parts(api, urls["upload_url"], {1: b"one", 2: b"two"})
    for _ in range(2):
        done = await api.client.post(part_url(urls["upload_url"], "complete"), json={"parts": answers})
        assert done.status_code == 200
    assert (await api.client.get(urls["file_url"])).content == b"onetwo"


async def test_a_part_that_is_sent_again_replaces_the_first(api: Api) -> None:
    urls = await initiate(api, "initiate-multipart")
    [first] = await put_parts(api, urls["upload_url"], {1: b"first"})
    [second] = await put_parts(api, urls["upload_url"], {1: b"second, and longer"})
    complete = part_url(urls["upload_url"], "complete")
    assert (await api.client.post(complete, json={"parts": [first]})).status_code == 400
    assert (await api.client.post(complete, json={"parts": [second]})).status_code == 200
    assert (await api.client.get(urls["file_url"])).content == b"second, and longer"


@pytest.mark.parametrize(
    ("parts", "code"), [([], 422), ([{"partNumber": 2, "etag": "x"}], 400), ([{"partNumber": 0, "etag": "x"}], 422)]
)
async def test_parts_that_were_not_sent_cannot_be_joined(api: Api, parts: list[Any], code: int) -> None:
    urls = await initiate(api, "initiate-multipart")
    await put_parts(api, urls["upload_url"], {1: b"one"})
    done = await api.client.post(part_url(urls["upload_url"], "complete"), json={"parts": parts})
    assert done.status_code == code
    assert (await api.client.get(urls["file_url"])).status_code == 404


async def test_a_file_with_too_large_a_content_length_is_refused(api: Api, stored: Path) -> None:
    urls = await initiate(api)
    answer = await api.client.put(urls["upload_url"], content=bytes(129 * KIB))
    assert answer.status_code == 413
    assert files_in(stored) == []


async def test_a_file_that_is_too_large_without_a_content_length_is_refused(api: Api, stored: Path) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield bytes(16 * KIB)

    urls = await initiate(api)
    assert (await api.client.put(urls["upload_url"], content=unannounced())).status_code == 413
    answer = await api.client.post("/files/upload", content=unannounced(), headers=await upload_token(api))
    assert answer.status_code == 413
    assert files_in(stored) == []


async def test_parts_that_are_too_large_together_are_refused(api: Api) -> None:
    urls = await initiate(api, "initiate-multipart")
    codes = [
        (await api.client.put(part_url(urls["upload_url"], number), content=bytes(60 * KIB))).status_code
        for number in (1, 2, 3)
    ]
    assert codes == [200, 200, 413]
    again = await api.client.put(part_url(urls["upload_url"], 2), content=bytes(68 * KIB))
    assert again.status_code == 200


async def test_parts_that_arrive_together_are_refused_when_they_are_too_large_together(api: Api, stored: Path) -> None:
    """Three of eight have room. None is complete before all have begun."""
    urls = await initiate(api, "initiate-multipart")
    halfway = asyncio.Barrier(8)

    async def content() -> AsyncIterator[bytes]:
        yield bytes(8 * KIB)
        await halfway.wait()
        yield bytes(34 * KIB)

    puts = [api.client.put(part_url(urls["upload_url"], number), content=content()) for number in range(1, 9)]
    codes = [answer.status_code for answer in await asyncio.gather(*puts)]
    assert set(codes) == {200, 413}
    assert sum((stored / path).stat().st_size for path in files_in(stored)) == codes.count(200) * 42 * KIB <= 128 * KIB
    rest = (128 - codes.count(200) * 42) * KIB
    again = await api.client.put(part_url(urls["upload_url"], codes.index(413) + 1), content=bytes(rest))
    assert again.status_code == 200, "what was refused takes no room"


async def test_parts_that_arrive_together_are_measured_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, measure = Counter[str](), uploads._measured

    async def count(services: Services, file: File) -> uploads._Room:
        measured[file.id] += 1
        return await measure(services, file)

    monkeypatch.setattr(uploads, "_measured", count)
    urls = await initiate(api, "initiate-multipart")
    together = asyncio.Barrier(4)

    async def content() -> AsyncIterator[bytes]:
        await together.wait()
        yield bytes(KIB)

    puts = [api.client.put(part_url(urls["upload_url"], number), content=content()) for number in range(1, 5)]
    assert {answer.status_code for answer in await asyncio.gather(*puts)} == {200}
    assert list(measured.values()) == [1]


async def test_a_part_that_passes_the_limit_together_with_another_process_is_deleted(api: Api, stored: Path) -> None:
    urls = await initiate(api, "initiate-multipart")
    file = await api.file(urls["file_url"])
    assert file

    async def content() -> AsyncIterator[bytes]:
        yield bytes(40 * KIB)
        await api.services.objects.put(f"{parts_folder(file.id)}/2", bytes(100 * KIB))
        yield bytes(20 * KIB)

    assert (await api.client.put(part_url(urls["upload_url"], 1), content=content())).status_code == 413
    assert [Path(path).name for path in files_in(stored)] == ["2"]


async def test_an_upload_that_breaks_off_leaves_nothing(api: Api, stored: Path) -> None:
    """The server gets half of the body, and then the client disconnects."""
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    url = httpx.URL((await initiate(api))["upload_url"])

    async def receive() -> Any:
        return messages.pop(0)

    async def send(_message: Any) -> None:
        pass

    scope = {"type": "http", "method": "PUT", "path": url.path, "raw_path": url.raw_path.split(b"?")[0]}
    await api.app({**scope, "query_string": url.query, "headers": [], "http_version": "1.1"}, receive, send)
    assert messages == []
    assert files_in(stored) == []


async def test_a_full_disk_is_reported_and_leaves_nothing(api: Api, stored: Path) -> None:
    # There is enough room for the rows, but not for the file.
    urls, token = await initiate(api), await upload_token(api)
    with disk_with_room_for(50 * KIB):
        put = await api.client.put(urls["upload_url"], content=bytes(100 * KIB))
    assert put.status_code >= 500
    assert files_in(stored) == []
    assert (await api.client.get(urls["file_url"])).status_code == 404
    assert (await api.client.post("/files/upload", content=b"1", headers=token)).status_code == 200
