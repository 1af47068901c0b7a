import base64
import os
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import close_session, constants
from tenacity import wait_none

from keyreel.errors import RequestError
from keyreel.fal.schema import LoRA
from keyreel.files.objects import Objects, ObjectStoreError, Stat
from keyreel.inputs.loras import find_lora
from keyreel.media.clips import read_clip
from keyreel.media.limits import Limits
from keyreel.settings import Settings
from keyreel.store.records import NewFile
from keyreel.video.canvas import Size
from keyreel.worker import retries
from keyreel.worker.inputs import RequestFetcher
from tests.fake_hub import MAIN, FakeHub
from tests.worker.conftest import FAKE_DECODE_PROCESS, Bench
from tests.worker.processes import children
from tests.worker.site import Site, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEN = (0, 200, 0)
LIMITS = Limits.from_settings(Settings())


async def store_file(shared_bench: Bench, content: bytes, **changes: Any) -> str:
    """Stores a file as an upload would and returns its URL on this server."""
    facts = {"key_id": "key", "object": "in/file.png", "name": "file.png", "content_type": "image/png"}
    file = await shared_bench.store.files.add(NewFile(**{**facts, "size": len(content), **changes}))
    await shared_bench.context.objects.put(file.object, content)
    return shared_bench.context.links.file_url(file)


@pytest.mark.slow
async def test_files_of_this_server_are_read_from_the_object_store(shared_bench: Bench, tmp_path: Path) -> None:
    """Not over HTTP: the links' host does not exist."""
    url = await store_file(shared_bench, picture(GREEN))
    videos = []
    for index, source in enumerate((url, data_uri(picture(GREEN)))):
        request = await shared_bench.submit(images=[{"image_url": source, "start_frame_number": 8}])
        videos.append(await shared_bench.video(request, tmp_path / f"{index}.mp4"))
    frames = [read_clip(tmp_path / f"{index}.mp4", Size(480, 480), range(9), LIMITS, ()) for index in (0, 1)]
    assert np.array_equal(frames[0], frames[1])
    assert np.abs(frames[0][8].astype(int) - GREEN).max() < 8
    assert url.split("/")[-2].encode() not in videos[0]  # the link would let everybody read the input


class FlakyObjects(Objects):
    """A store that is away for the first reads."""

    failures = 3

    async def stream(
        self, path: str, start: int = 0, end: int | None = None, version: Stat | None = None
    ) -> AsyncIterator[bytes]:
        if FlakyObjects.failures:
            FlakyObjects.failures -= 1
            raise ObjectStoreError("unreachable")
        async for chunk in super().stream(path, start, end, version):
            yield chunk


async def test_a_store_that_is_away_for_a_moment_costs_no_attempt(
    shared_bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(retries, "PAUSES", wait_none())
    url = await store_file(shared_bench, picture(GREEN))
    context = replace(shared_bench.context, objects=FlakyObjects(shared_bench.context.objects.store))
    async with RequestFetcher(context, "key", tmp_path) as fetcher:
        file = await fetcher.fetch(url, max_bytes=10_000, loc=("images", 0, "image_url"))
    assert not FlakyObjects.failures
    assert file.name == "file.png"


@pytest.mark.parametrize(("limit", "downloads"), [(10_000, 1), (0, 2)])
async def test_a_worker_keeps_loras_within_its_limit(
    shared_bench: Bench, site: Site, tmp_path: Path, limit: int, downloads: int
) -> None:
    settings = shared_bench.settings(lora_cache_bytes=limit)
    context = replace(shared_bench.context, settings=settings, spool=tmp_path / "spool")
    url = site.add("style.safetensors", b"weights")
    for folder in (tmp_path / "one", tmp_path / "two"):
        async with RequestFetcher(context, "key", folder) as fetcher:
            file = await find_lora(LoRA(path=url), fetcher, max_bytes=10_000, loc=("loras", 0, "path"))
            assert file.path.read_bytes() == b"weights"
            assert file.path.parent == folder
    assert len(site.sent) == downloads


class CountingObjects(Objects):
    """Notes which objects are read."""

    read: list[str] = []  # noqa: RUF012

    async def stream(
        self, path: str, start: int = 0, end: int | None = None, version: Stat | None = None
    ) -> AsyncIterator[bytes]:
        self.read.append(path)
        async for chunk in super().stream(path, start, end, version):
            yield chunk


async def test_a_lora_that_was_uploaded_here_is_read_once_until_it_changes(shared_bench: Bench, tmp_path: Path) -> None:
    objects = CountingObjects(shared_bench.context.objects.store)
    context = replace(shared_bench.context, objects=objects, spool=tmp_path / "spool")
    url = await store_file(shared_bench, b"weights", object="in/lora", acl={"default": "forbid"})

    async def fetch(key_id: str = "key") -> bytes:
        async with RequestFetcher(context, key_id, tmp_path / secrets.token_hex(4)) as fetcher:
            file = await find_lora(LoRA(path=url), fetcher, max_bytes=10_000, loc=("loras", 0, "path"))
            return file.path.read_bytes()

    assert [await fetch() for _ in range(3)] == [b"weights"] * 3
    assert objects.read == ["in/lora"]
    with pytest.raises(RequestError, match="has no such file"):
        await fetch("another")
    await objects.put("in/lora", b"other weights")
    assert [await fetch() for _ in range(2)] == [b"other weights"] * 2
    assert objects.read == ["in/lora"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("case", ["expired", "another key's", "no object"])
async def test_a_stored_file_that_may_not_be_read_counts_as_missing(shared_bench: Bench, case: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "expired": {"lifetime": 0.0},
        "another key's": {"key_id": "another", "acl": {"default": "forbid"}},
        "no object": {},
    }
    url = await store_file(shared_bench, picture(), **cases[case])
    if case == "no object":
        await shared_bench.context.objects.delete("in/file.png")
    failure = await shared_bench.failure(await shared_bench.submit(images=[{"image_url": url}]))
    assert failure.type == "file_download_error"
    assert failure.detail[0]["loc"] == ["body", "images", 0, "image_url"]


@pytest.mark.slow
async def test_all_inputs_that_cannot_be_fetched_are_listed_in_fals_format(shared_bench: Bench, site: Site) -> None:
    request = await shared_bench.submit(
        images=[
            {"image_url": "http://10.0.0.1/private.png"},
            {"image_url": "ftp://example.com/x.png"},
            {"image_url": site.add("fine.png", picture())},
        ],
        loras=[{"path": site.url("missing.safetensors")}],
    )
    failure = await shared_bench.failure(request)
    status = await shared_bench.completed(request)
    assert status.attempt == 1
    assert failure.type == "file_download_error"
    assert [detail["loc"] for detail in failure.detail] == [
        ["body", "images", 0, "image_url"],
        ["body", "images", 1, "image_url"],
        ["body", "loras", 0, "path"],
    ]
    assert {detail["url"] for detail in failure.detail} == {"https://docs.fal.ai/errors#file_download_error"}
    assert (await shared_bench.log(request))[-1] == failure.message


async def test_errors_in_a_file_or_field_name_the_place_and_the_limit(shared_bench: Bench, site: Site) -> None:
    text = await shared_bench.submit(images=[{"image_url": site.add("text.png", b"no picture")}])
    outside = await shared_bench.submit(images=[{"image_url": data_uri(picture()), "start_frame_number": 100}])
    wrong = await shared_bench.submit(prompt="x", number_of_frames=1000)
    assert (await shared_bench.failure(text)).type == "unsupported_image_format"
    (detail,) = (await shared_bench.failure(outside)).detail
    assert detail | {"msg": ""} == {
        "loc": ["body", "images", 0, "start_frame_number"],
        "msg": "",
        "type": "less_than_equal",
        "url": "https://docs.fal.ai/errors#less_than_equal",
        "ctx": {"le": 8},
    }
    assert (await shared_bench.failure(wrong)).detail[0]["loc"] == ["body", "number_of_frames"]


@pytest.mark.slow
async def test_an_idle_decode_process_that_died_is_replaced(shared_bench: Bench) -> None:
    await shared_bench.output(await shared_bench.submit())
    (pid,) = children(FAKE_DECODE_PROCESS[-1])
    os.kill(pid, signal.SIGKILL)
    await shared_bench.output(await shared_bench.submit())


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="function")
async def test_a_lora_is_fetched_with_the_operators_token_only_if_the_operator_allows_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "style.safetensors").write_bytes(b"not a LoRA")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    with FakeHub({"studio/gated": {MAIN: tmp_path / "repository"}}, gated={"studio/gated": "hf_good"}).served() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        links = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", links)
        failures = []
        for allowed in (False, True):
            async with bench.worker(settings=bench.settings(hub_token_for_loras=allowed)):
                failures.append(await bench.failure(await bench.submit(loras=[{"path": "studio/gated"}])))
        close_session()
    assert [failure.type for failure in failures] == ["file_download_error", "lora_load_error"]
    assert "KEYREEL_HUB_TOKEN_FOR_LORAS" in failures[0].message


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
