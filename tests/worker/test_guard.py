"""What a worker does to prompts, and with content that is not allowed."""

import asyncio
import base64
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest

from keyreel.canvas import Grid
from keyreel.errors import ModelError, RequestError
from keyreel.moderation import UNCHECKED
from keyreel.schema import Request
from keyreel.settings import Settings
from keyreel.store.records import NewFile
from keyreel.worker.guard import WorkerGuard
from keyreel.worker.messages import Ready
from keyreel.worker.process import GUARD
from keyreel.worker.spool import write_preview
from keyreel.worker.supervisor import supervise
from tests.small_models import language_model, picture_classifier
from tests.test_expansion import Chat, chat, completion
from tests.test_moderation import ASTRONAUT
from tests.worker.conftest import FAKE_CHILD, FAKE_PREPARER, Bench, Gate
from tests.worker.processes import children

__all__ = ["chat"]

PORTRAIT = f"data:image/jpeg;base64,{base64.b64encode(ASTRONAUT.read_bytes()).decode()}"
FACES = {"image_checker": "nudenet", "image_checker_labels": "FACE_FEMALE=0.4"}


def settings(bench: Bench, **changes: Any) -> Settings:
    return bench.context.settings.model_copy(update=changes)


async def stored(bench: Bench) -> list[Path]:
    """Videos in the object store, which is a folder here."""
    return list((bench.context.spool.parent / "objects").rglob("*.mp4"))


async def test_a_picture_that_is_not_allowed_is_refused(bench: Bench) -> None:
    portrait: dict[str, Any] = {"images": [{"image_url": PORTRAIT}]}
    async with bench.worker(settings=settings(bench, **FACES)):
        refused = await bench.submit(**portrait, enable_safety_checker=True)
        failure = await bench.failure(refused)
        assert failure.type == "content_policy_violation"
        assert failure.detail[0]["loc"] == ["body", "images", 0, "image_url"]
        assert (await bench.completed(refused)).attempt == 1
        assert not await stored(bench)
        await bench.output(await bench.submit(**portrait))
        fine = await bench.submit(enable_safety_checker=True)
        await bench.output(fine)
        assert UNCHECKED not in await bench.log(fine)
        assert (await bench.log(fine)).count("Checking the content") == 2


@pytest.mark.parametrize("owner", ["key", "another"])
async def test_what_is_refused_is_forgotten_by_whoever_brought_it(bench: Bench, owner: str) -> None:
    new = NewFile(key_id=owner, object="in/portrait.jpg", name="portrait.jpg", content_type="image/jpeg", size=1)
    file = await bench.store.files.add(new)
    await bench.context.objects.put(file.object, ASTRONAUT.read_bytes())
    url = bench.context.links.file_url(file)
    async with bench.worker(settings=settings(bench, **FACES)):
        refused = await bench.submit(images=[{"image_url": url}], enable_safety_checker=True)
        assert (await bench.failure(refused)).type == "content_policy_violation"
    kept = (await bench.store.files.get(file.id)) is not None
    assert kept == (owner == "another")
    assert (bench.context.spool.parent / "objects" / "in" / "portrait.jpg").exists() == kept


async def test_a_video_that_is_not_allowed_is_not_stored(bench: Bench, tmp_path: Path) -> None:
    """The model draws grey, of level 5; to this checker anything but black is indecent."""
    checker = picture_classifier(tmp_path / "checker", safe_below=0.005)
    async with bench.worker(settings=settings(bench, image_checker=str(checker))):
        failure = await bench.failure(await bench.submit(enable_safety_checker=True))
        assert failure.type == "content_policy_violation"
        assert failure.detail[0]["loc"] == ["body"]
        assert not await stored(bench)


async def test_previews_are_checked_like_the_video(bench: Bench, tmp_path: Path) -> None:
    checker = picture_classifier(tmp_path / "checker")
    guard = WorkerGuard(settings(bench, image_checker=str(checker)))
    await guard.open(Ready("fake", "0" * 64, "cpu", Grid(32, 8), {}))
    try:
        await guard.check_preview(write_preview(np.full((2, 4, 8, 3), 20, np.uint8), tmp_path))
        with pytest.raises(RequestError):
            await guard.check_preview(write_preview(np.full((2, 4, 8, 3), 200, np.uint8), tmp_path))
    finally:
        await guard.close()


async def test_the_device_does_not_wait_for_the_checker(bench: Bench, gate: Gate) -> None:
    """The checker stands still with the first video; the second request is made from start to end meanwhile."""
    async with bench.worker(settings=settings(bench, **FACES), preparer=FAKE_PREPARER):
        await bench.output(await bench.submit(enable_safety_checker=True))
        (guard,) = children(GUARD[-1])
        checked = await bench.submit(gate.prompt, enable_safety_checker=True)
        gate.open()
        await bench.at_step(checked, 1)  # its inputs are checked
        os.kill(guard, signal.SIGSTOP)
        gate.open()
        await bench.output(await bench.submit())
        assert (await bench.store.requests.status(checked)).outcome is None  # type: ignore[union-attr]
        os.kill(guard, signal.SIGCONT)
        await bench.output(checked)


async def test_a_guard_that_died_is_replaced(bench: Bench) -> None:
    async with bench.worker(settings=settings(bench, **FACES), preparer=FAKE_PREPARER):
        await bench.output(await bench.submit(enable_safety_checker=True))
        (guard,) = children(GUARD[-1])
        os.kill(guard, signal.SIGKILL)
        await bench.output(await bench.submit(enable_safety_checker=True))
        assert children(GUARD[-1]) != [guard]


async def test_no_checker_no_start(bench: Bench, tmp_path: Path) -> None:
    context = replace(bench.context, settings=settings(bench, image_checker=str(tmp_path / "missing")))
    with pytest.raises(ModelError, match=r"KEYREEL_IMAGE_CHECKER: .* is neither"):
        async with asyncio.timeout(60):
            await supervise(
                context, model="fake", device="cpu", stop=asyncio.Event(), child=FAKE_CHILD, preparer=FAKE_PREPARER
            )


async def test_a_worker_leaves_while_its_checker_loads(bench: Bench, tmp_path: Path) -> None:
    """This guard says through a named pipe that it has been started, and then loads for ever."""
    started = tmp_path / "started"
    os.mkfifo(started)
    slow = (sys.executable, "-c", f"open({str(started)!r}, 'w').close(); import signal; signal.pause()")
    stop = asyncio.Event()
    context = replace(bench.context, settings=settings(bench, **FACES))
    programs: dict[str, Any] = {"child": FAKE_CHILD, "preparer": FAKE_PREPARER, "guard": slow}
    worker = asyncio.create_task(supervise(context, model="fake", device="cpu", stop=stop, **programs))
    await asyncio.to_thread(started.read_bytes)
    stop.set()
    async with asyncio.timeout(30):
        await worker
    assert not children(str(started))


async def test_a_server_expands_prompts(bench: Bench, chat: Chat) -> None:
    chat.reply = lambda order: completion(f"{order['messages'][1]['content']} pace=0 over wet sand")
    configured = settings(bench, expander_url=chat.url, expander_model="llama")
    async with bench.worker(settings=configured, preparer=FAKE_PREPARER):
        request = await bench.submit("a red ball", expand_prompt=True)
        assert (await bench.output(request))["prompt"] == "a red ball pace=0 over wet sand"
        assert "Expanding the prompt" in await bench.log(request)
        assert not children(GUARD[-1])
        plain = await bench.output(await bench.submit("a red ball"))
        assert plain["prompt"] == "a red ball"
        chat.reply = lambda _order: {"error": "overloaded"}
        failed = await bench.failure(await bench.submit(expand_prompt=True, retry=False))
        assert failed.type == "runner_server_error"
        assert "does not answer like" in failed.message


async def test_a_model_of_ones_own_expands_prompts(bench: Bench, tmp_path: Path) -> None:
    model = language_model(tmp_path / "language")
    async with bench.worker(settings=settings(bench, expander_model=str(model)), preparer=FAKE_PREPARER):
        requests = [await bench.submit("the red circle", expand_prompt=True) for _ in (1, 2)]
        first, second = [(await bench.output(request))["prompt"] for request in requests]
    assert first == second != "the red circle"


async def test_what_is_not_configured_is_said(bench: Bench) -> None:
    async with bench.worker(preparer=FAKE_PREPARER):
        failure = await bench.failure(await bench.submit(expand_prompt=True))
        assert (failure.type, failure.detail[0]["loc"]) == ("feature_not_supported", ["body", "expand_prompt"])
        assert "KEYREEL_EXPANDER_URL" in failure.message
        unchecked = await bench.submit(enable_safety_checker=True)
        await bench.output(unchecked)
        assert (await bench.log(unchecked)).count(UNCHECKED) == 1
        unasked = await bench.submit()
        await bench.output(unasked)
        assert UNCHECKED not in await bench.log(unasked)


async def test_the_demo_models_expander_waits_until_it_is_asked_for(bench: Bench) -> None:
    guard = WorkerGuard(bench.context.settings)
    await guard.open(Ready("demo", "0" * 64, "cpu", Grid(64, 8), {}))
    assert guard.notice(Request(prompt="p", expand_prompt=True, enable_safety_checker=False)) is None
    assert not children(GUARD[-1])
    await guard.open(Ready("ltxv", "0" * 64, "cpu", Grid(64, 8), {}))
    with pytest.raises(RequestError, match="expand_prompt"):
        guard.notice(Request(prompt="p", expand_prompt=True))
    await guard.close()


async def test_videos_are_marked(bench: Bench, tmp_path: Path) -> None:
    configured = settings(bench, provenance=True, data_dir=tmp_path / "data")
    async with bench.worker(settings=configured):
        request = await bench.submit(images=[{"image_url": PORTRAIT}])
        await bench.video(request, tmp_path / "video.mp4")
    with (tmp_path / "video.mp4").open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        assert reader.get_validation_state() == "Valid"
        titles = [item["title"] for item in reader.get_active_manifest()["ingredients"]]
    assert titles == ["fake", "data:"]
    size = (await bench.output(request))["video"]["file_size"]
    assert size == (tmp_path / "video.mp4").stat().st_size
