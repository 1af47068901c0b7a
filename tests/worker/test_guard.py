import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyreel.errors import RequestError
from keyreel.fal.schema import Request
from keyreel.safety.moderation import UNCHECKED
from keyreel.store.records import NewFile
from keyreel.video.canvas import Grid
from keyreel.worker.guard import WorkerGuard
from keyreel.worker.messages import Ready
from keyreel.worker.process import GUARD_PROCESS
from keyreel.worker.spool import write_preview
from tests.safety.chat_server import Chat, chat, completion
from tests.safety.test_moderation import ASTRONAUT
from tests.small_models import language_model, picture_classifier
from tests.worker.conftest import FAKE_DECODE_PROCESS, Bench, Gate
from tests.worker.faces import FACES, PORTRAIT
from tests.worker.processes import children

__all__ = ["chat"]


def stored_videos(bench: Bench) -> list[Path]:
    """Returns the videos in the object store, which is a folder here."""
    return list((bench.context.spool.parent / "objects").rglob("*.mp4"))


@pytest.mark.slow
async def test_a_picture_that_is_not_allowed_is_refused(bench: Bench) -> None:
    portrait: dict[str, Any] = {"images": [{"image_url": PORTRAIT}]}
    async with bench.worker(settings=bench.settings(**FACES)):
        refused = await bench.submit(**portrait, enable_safety_checker=True)
        failure = await bench.failure(refused)
        assert failure.type == "content_policy_violation"
        assert failure.detail[0]["loc"] == ["body", "images", 0, "image_url"]
        assert (await bench.completed(refused)).attempt == 1
        assert not stored_videos(bench)
        await bench.output(await bench.submit(**portrait))
        fine = await bench.submit(enable_safety_checker=True)
        await bench.output(fine)
        assert UNCHECKED not in await bench.log(fine)
        assert (await bench.log(fine)).count("Checking the content") == 2


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["key", "another"])
async def test_a_refused_upload_is_deleted_if_the_requests_key_owns_it(bench: Bench, owner: str) -> None:
    new = NewFile(key_id=owner, object="in/portrait.jpg", name="portrait.jpg", content_type="image/jpeg", size=1)
    file = await bench.store.files.add(new)
    await bench.context.objects.put(file.object, ASTRONAUT.read_bytes())
    url = bench.context.links.file_url(file)
    async with bench.worker(settings=bench.settings(**FACES)):
        refused = await bench.submit(images=[{"image_url": url}], enable_safety_checker=True)
        assert (await bench.failure(refused)).type == "content_policy_violation"
    kept = (await bench.store.files.get(file.id)) is not None
    assert kept == (owner == "another")
    assert (bench.context.spool.parent / "objects" / "in" / "portrait.jpg").exists() == kept


@pytest.mark.slow
async def test_a_video_that_is_not_allowed_is_not_stored(bench: Bench, tmp_path: Path) -> None:
    """The fake engine draws grey of level 5, and this checker refuses everything but black."""
    checker = picture_classifier(tmp_path / "checker", safe_below=0.005)
    async with bench.worker(settings=bench.settings(image_checker=str(checker))):
        failure = await bench.failure(await bench.submit(enable_safety_checker=True))
        assert failure.type == "content_policy_violation"
        assert failure.detail[0]["loc"] == ["body"]
        assert not stored_videos(bench)


@pytest.mark.slow
async def test_previews_are_checked_like_the_video(bench: Bench, tmp_path: Path) -> None:
    checker = picture_classifier(tmp_path / "checker")
    guard = WorkerGuard(bench.settings(image_checker=str(checker)))
    await guard.open(Ready("fake", "0" * 64, "cpu", Grid(32, 8), {}))
    try:
        await guard.check_preview(write_preview(np.full((2, 4, 8, 3), 20, np.uint8), tmp_path))
        with pytest.raises(RequestError):
            await guard.check_preview(write_preview(np.full((2, 4, 8, 3), 200, np.uint8), tmp_path))
    finally:
        await guard.close()


@pytest.mark.slow
async def test_the_device_does_not_wait_for_the_checker(bench: Bench, gate: Gate) -> None:
    """The guard process is suspended with the first video; meanwhile the second request is completed."""
    async with bench.worker(settings=bench.settings(**FACES), decode_process=FAKE_DECODE_PROCESS):
        await bench.output(await bench.submit(enable_safety_checker=True))
        (guard,) = children(GUARD_PROCESS[-1])
        checked = await bench.submit(gate.prompt, enable_safety_checker=True)
        gate.open()
        await bench.wait_for_step(checked, 1)  # its inputs have been checked
        os.kill(guard, signal.SIGSTOP)
        gate.open()
        await bench.output(await bench.submit())
        assert (await bench.store.requests.status(checked)).outcome is None  # type: ignore[union-attr]
        os.kill(guard, signal.SIGCONT)
        await bench.output(checked)


@pytest.mark.slow
async def test_a_guard_process_that_died_is_replaced(bench: Bench) -> None:
    async with bench.worker(settings=bench.settings(**FACES), decode_process=FAKE_DECODE_PROCESS):
        await bench.output(await bench.submit(enable_safety_checker=True))
        (guard,) = children(GUARD_PROCESS[-1])
        os.kill(guard, signal.SIGKILL)
        await bench.output(await bench.submit(enable_safety_checker=True))
        assert children(GUARD_PROCESS[-1]) != [guard]


@pytest.mark.slow
async def test_a_chat_server_expands_prompts(bench: Bench, chat: Chat) -> None:
    chat.reply = lambda order: completion(f"{order['messages'][1]['content']} pace=0 over wet sand")
    configured = bench.settings(expander_url=chat.url, expander_model="llama")
    async with bench.worker(settings=configured, decode_process=FAKE_DECODE_PROCESS):
        request = await bench.submit("a red ball", expand_prompt=True)
        assert (await bench.output(request))["prompt"] == "a red ball pace=0 over wet sand"
        assert "Expanding the prompt" in await bench.log(request)
        assert not children(GUARD_PROCESS[-1])
        plain = await bench.output(await bench.submit("a red ball"))
        assert plain["prompt"] == "a red ball"
        chat.reply = lambda _order: {"error": "overloaded"}
        failed = await bench.failure(await bench.submit(expand_prompt=True, retry=False))
        assert failed.type == "runner_server_error"
        assert "does not answer like" in failed.message


@pytest.mark.slow
async def test_a_local_model_expands_prompts(bench: Bench, tmp_path: Path) -> None:
    model = language_model(tmp_path / "language")
    async with bench.worker(settings=bench.settings(expander_model=str(model)), decode_process=FAKE_DECODE_PROCESS):
        requests = [await bench.submit("the red circle", expand_prompt=True) for _ in (1, 2)]
        first, second = [(await bench.output(request))["prompt"] for request in requests]
    assert first == second != "the red circle"


@pytest.mark.slow
async def test_requests_are_told_what_is_not_configured(bench: Bench) -> None:
    async with bench.worker(decode_process=FAKE_DECODE_PROCESS):
        failure = await bench.failure(await bench.submit(expand_prompt=True))
        assert (failure.type, failure.detail[0]["loc"]) == ("feature_not_supported", ["body", "expand_prompt"])
        assert "KEYREEL_EXPANDER_URL" in failure.message
        unchecked = await bench.submit(enable_safety_checker=True)
        await bench.output(unchecked)
        assert (await bench.log(unchecked)).count(UNCHECKED) == 1
        unasked = await bench.submit()
        await bench.output(unasked)
        assert UNCHECKED not in await bench.log(unasked)


async def test_the_demo_models_expander_is_not_loaded_before_a_request_needs_it(bench: Bench) -> None:
    guard = WorkerGuard(bench.context.settings)
    await guard.open(Ready("demo", "0" * 64, "cpu", Grid(64, 8), {}))
    assert guard.notice(Request(prompt="p", expand_prompt=True, enable_safety_checker=False)) is None
    assert not children(GUARD_PROCESS[-1])
    await guard.open(Ready("ltxv", "0" * 64, "cpu", Grid(64, 8), {}))
    with pytest.raises(RequestError, match="expand_prompt"):
        guard.notice(Request(prompt="p", expand_prompt=True))
    await guard.close()
