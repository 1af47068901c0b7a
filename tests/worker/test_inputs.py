import base64
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from keyreel.canvas import Size
from keyreel.media.clips import read_clip
from keyreel.media.limits import Limits
from keyreel.settings import Settings
from keyreel.store.records import NewFile
from keyreel.worker.inputs import _environment, _settings
from tests.worker.conftest import FAKE_PREPARER, Bench, Gate
from tests.worker.fake_preparer import BOMB, FLOOD
from tests.worker.processes import children
from tests.worker.site import Site, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEN = (0, 200, 0)
LIMITS = Limits.from_settings(Settings())


async def keep(served: Bench, content: bytes, **changes: Any) -> str:
    """Our own URL of a file that was uploaded."""
    facts = {"key_id": "key", "object": "in/file.png", "name": "file.png", "content_type": "image/png"}
    file = await served.store.files.add(NewFile(**{**facts, "size": len(content), **changes}))
    await served.context.objects.put(file.object, content)
    return served.context.links.file_url(file)


async def test_our_own_files_are_read_where_they_are_kept(served: Bench, tmp_path: Path) -> None:
    """The links' host does not even exist."""
    url = await keep(served, picture(GREEN))
    videos = []
    for index, source in enumerate((url, data_uri(picture(GREEN)))):
        request = await served.submit(images=[{"image_url": source, "start_frame_number": 8}])
        videos.append(await served.video(request, tmp_path / f"{index}.mp4"))
    frames = [read_clip(tmp_path / f"{index}.mp4", Size(480, 480), range(9), LIMITS, ()) for index in (0, 1)]
    assert np.array_equal(frames[0], frames[1])
    assert np.abs(frames[0][8].astype(int) - GREEN).max() < 8
    assert url.split("/")[-2].encode() not in videos[0]  # it would be a permission to read the input


@pytest.mark.parametrize("case", ["expired", "of another", "without object"])
async def test_what_is_not_to_be_read_is_not_there(served: Bench, case: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "expired": {"lifetime": 0.0},
        "of another": {"key_id": "another", "acl": {"default": "forbid"}},
        "without object": {},
    }
    url = await keep(served, picture(), **cases[case])
    if case == "without object":
        await served.context.objects.delete("in/file.png")
    failure = await served.failure(await served.submit(images=[{"image_url": url}]))
    assert failure.type == "file_download_error"
    assert failure.detail[0]["loc"] == ["body", "images", 0, "image_url"]


async def test_every_bad_input_is_named_in_fals_form(served: Bench, site: Site) -> None:
    request = await served.submit(
        images=[
            {"image_url": "http://10.0.0.1/private.png"},
            {"image_url": "ftp://example.com/x.png"},
            {"image_url": site.add("fine.png", picture())},
        ],
        loras=[{"path": site.url("missing.safetensors")}],
    )
    failure = await served.failure(request)
    status = await served.completed(request)
    assert status.attempt == 1
    assert failure.type == "file_download_error"
    assert [detail["loc"] for detail in failure.detail] == [
        ["body", "images", 0, "image_url"],
        ["body", "images", 1, "image_url"],
        ["body", "loras", 0, "path"],
    ]
    assert {detail["url"] for detail in failure.detail} == {"https://docs.fal.ai/errors#file_download_error"}
    assert (await served.log(request))[-1] == failure.message


async def test_what_is_wrong_with_a_file_is_told_with_its_figures(served: Bench, site: Site) -> None:
    text = await served.submit(images=[{"image_url": site.add("text.png", b"no picture")}])
    outside = await served.submit(images=[{"image_url": data_uri(picture()), "start_frame_number": 100}])
    wrong = await served.submit(prompt="x", number_of_frames=1000)
    assert (await served.failure(text)).type == "unsupported_image_format"
    (detail,) = (await served.failure(outside)).detail
    assert detail | {"msg": ""} == {
        "loc": ["body", "images", 0, "start_frame_number"],
        "msg": "",
        "type": "less_than_equal",
        "url": "https://docs.fal.ai/errors#less_than_equal",
        "ctx": {"le": 8},
    }
    assert (await served.failure(wrong)).detail[0]["loc"] == ["body", "number_of_frames"]


async def test_a_lora_is_refused_while_the_device_is_busy(
    served: Bench, gate: Gate, site: Site, tmp_path: Path
) -> None:
    save_file({"transformer.other.lora_A.weight": np.zeros((4, 16), np.float32)}, tmp_path / "lora.safetensors")
    url = site.add("lora.safetensors", (tmp_path / "lora.safetensors").read_bytes())
    busy = await served.submit(gate.prompt)
    failure = await served.failure(await served.submit(loras=[{"path": url}]))
    assert failure.type == "lora_load_error"
    assert "lora.safetensors" in failure.message
    gate.open(2)
    await served.output(busy)


async def test_a_file_that_kills_the_decoder_fails_its_request_only(served: Bench, site: Site) -> None:
    hostile = await served.submit(images=[{"image_url": site.add("bomb.png", BOMB)}])
    other = await served.submit(images=[{"image_url": site.add("fine.png", picture())}])
    failure = await served.failure(hostile)
    await served.output(other)
    assert failure.type == "file_decode_error"
    assert (await served.completed(hostile)).attempt == 1


async def test_the_decoder_may_take_so_much_memory_and_no_more(served: Bench, site: Site) -> None:
    failure = await served.failure(await served.submit(images=[{"image_url": site.add("flood.png", FLOOD)}]))
    assert "more memory" in failure.message


async def test_an_idle_preparer_that_died_is_replaced(served: Bench) -> None:
    await served.output(await served.submit())
    (pid,) = children(FAKE_PREPARER[-1])
    os.kill(pid, signal.SIGKILL)
    await served.output(await served.submit())


async def test_secrets_stay_with_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYREEL_ADMIN_KEY", "id:SECRET")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("HF_TOKEN", "SECRET")
    assert "SECRET" not in str(_environment())
    assert "SECRET" not in str(_settings(Settings()))


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
