import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from keyreel.files.objects import sweep_files
from keyreel.store.records import LeaseLostError, State, Status
from keyreel.store.tables import file
from keyreel.video.events import Checkpoint
from keyreel.worker.attempt import Attempt, InterruptedAttemptError, Interruption
from keyreel.worker.checkpoint_file import read_checkpoint, write_checkpoint
from keyreel.worker.checkpoints import Checkpoints
from keyreel.worker.completion import give_up
from keyreel.worker.spool import checkpoint_path
from tests.safety.chat_server import Chat, chat, completion
from tests.worker.conftest import FAKE_ENGINE_PROCESS, PATIENCE, Bench, Gate
from tests.worker.processes import children
from tests.worker.test_completion import GatedObjects, gated_objects
from tests.worker.test_session import is_completed_or_at

__all__ = ["chat", "gated_objects"]

IDENTITY = {"prompt": "a red circle", "device": "fake"}
STEPS = 50


async def next_attempt(bench: Bench) -> Attempt:
    lease = await bench.store.queue.claim("worker-1")
    assert lease
    return Attempt(bench.store, lease)


def new_file(folder: Path, step: int) -> Path:
    path = checkpoint_path(folder)
    write_checkpoint(Checkpoint(0, step, lambda: np.full((1, 2, 3), step, np.float32)), IDENTITY, path)
    return path


def objects(bench: Bench) -> Path:
    return bench.context.spool.parent / "objects" / "checkpoints"


async def released(bench: Bench, folder: Path, *steps: int) -> None:
    """Runs an attempt that makes checkpoints after these steps and is handed back then."""
    attempt = await next_attempt(bench)
    with pytest.raises(InterruptedAttemptError):
        async with Checkpoints(bench.context, attempt).storing() as checkpoints:
            for step in steps:
                checkpoints.offer(new_file(folder, step))
            raise InterruptedAttemptError(Interruption.RELEASED)
    await give_up(bench.store.queue, attempt, Interruption.RELEASED)


async def resumed(bench: Bench, folder: Path, device: str = "fake") -> tuple[int, list[str]]:
    """Runs an attempt up to its start. Returns the step where it starts, and its log."""
    attempt = await next_attempt(bench)
    checkpoints = Checkpoints(bench.context, attempt)
    await checkpoints.fetch(folder)
    path = checkpoints.resume_from({**IDENTITY, "device": device})
    lines = [line.message for line in attempt.report.unsent()[1]]
    return read_checkpoint(path).checkpoint.step if path else 0, lines


async def test_the_newest_checkpoint_is_handed_over(bench: Bench, tmp_path: Path) -> None:
    await bench.submit()
    await released(bench, tmp_path, 1, 2, 3)
    assert await resumed(bench, tmp_path) == (3, ["Continuing from a checkpoint: step 3 of pass 1"])
    assert len(list(tmp_path.glob("checkpoint-*"))) == 0, "the files are deleted when they are stored"


async def test_an_attempt_keeps_one_object_and_the_end_of_the_request_deletes_it(bench: Bench, tmp_path: Path) -> None:
    request = await bench.submit()
    await released(bench, tmp_path, 1, 2)
    await released(bench, tmp_path, 3)
    assert [path.name for path in (objects(bench) / request).iterdir()] == ["1.safetensors", "2.safetensors"]
    assert await sweep_files(bench.store, bench.context.objects) == 1
    assert [path.name for path in (objects(bench) / request).iterdir()] == ["2.safetensors"]
    await bench.store.queue.cancel(request)
    assert await sweep_files(bench.store, bench.context.objects) == 1
    assert not list(objects(bench).rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "its file is damaged"),
        (lambda path: path.write_bytes(b""), "its file cannot be read"),
        (lambda path: path.unlink(), "not found"),
    ],
    ids=["damaged", "empty", "missing"],
)
async def test_an_attempt_with_an_unusable_checkpoint_starts_over(
    bench: Bench, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    request = await bench.submit()
    await released(bench, tmp_path, 3)
    damage(objects(bench) / request / "1.safetensors")
    step, lines = await resumed(bench, tmp_path)
    assert step == 0
    assert lines[0].startswith("Starting from the first step, because the checkpoint cannot be used: ")
    assert reason in lines[0]


async def test_an_attempt_on_another_device_starts_over_with_the_same_prompt(bench: Bench, tmp_path: Path) -> None:
    await bench.submit()
    await released(bench, tmp_path, 3)
    attempt = await next_attempt(bench)
    checkpoints = Checkpoints(bench.context, attempt)
    await checkpoints.fetch(tmp_path)
    assert checkpoints.prompt == "a red circle"
    assert checkpoints.resume_from({**IDENTITY, "device": "another"}) is None
    (line,) = attempt.report.unsent()[1]
    assert line.message.endswith("the checkpoint cannot be used: it has another device")


async def test_an_expired_checkpoint_is_not_used(bench: Bench, tmp_path: Path) -> None:
    await bench.submit()
    await released(bench, tmp_path, 3)
    attempt = await next_attempt(bench)
    assert attempt.lease.checkpoint
    await bench.store.files.remove(attempt.lease.checkpoint)
    await bench.store.queue.hand_back(attempt.lease)
    step, (line,) = await resumed(bench, tmp_path)
    assert step == 0
    assert line.endswith("it has expired")


async def test_a_lost_lease_ends_the_attempt_and_leaves_no_checkpoint(bench: Bench, tmp_path: Path) -> None:
    await bench.submit()
    attempt = await next_attempt(bench)
    await bench.store.queue.hand_back(attempt.lease)
    async with asyncio.timeout(PATIENCE), Checkpoints(bench.context, attempt).storing() as checkpoints:
        checkpoints.offer(new_file(tmp_path, 1))
        assert await attempt.wait_for_interruption() is Interruption.LOST
    assert not list(objects(bench).rglob("*.safetensors"))


async def test_a_checkpoint_that_the_end_of_the_video_overtakes_leaves_no_row(
    bench: Bench, gated_objects: GatedObjects, tmp_path: Path
) -> None:
    await bench.submit()
    context = replace(bench.context, objects=gated_objects)
    attempt = await next_attempt(bench)
    async with asyncio.timeout(PATIENCE), Checkpoints(context, attempt).storing() as checkpoints:
        checkpoints.offer(new_file(tmp_path, 1))
        await gated_objects.arrived.wait()
    async with bench.store.database.read() as connection:
        assert not (await connection.execute(file.select())).all()


async def test_what_a_paused_worker_writes_after_the_sweep_is_deleted(bench: Bench, tmp_path: Path) -> None:
    request = await bench.submit()
    attempt = await next_attempt(bench)
    path = objects(bench) / request / "1.safetensors"
    with pytest.raises(LeaseLostError):
        async with Checkpoints(bench.context, attempt).storing() as checkpoints:
            checkpoints.offer(new_file(tmp_path, 1))
            await checkpoints._waiting.join()
            await bench.store.queue.hand_back(attempt.lease)
            await bench.store.queue.cancel(request)
            await sweep_files(bench.store, bench.context.objects)
            assert not path.exists()
            checkpoints.offer(new_file(tmp_path, 2))
            await checkpoints._waiting.join()
            assert path.exists()
            raise LeaseLostError(attempt.lease)
    assert not path.exists()


async def test_checkpoints_that_cannot_be_stored_do_no_harm(bench: Bench, tmp_path: Path) -> None:
    objects(bench).parent.mkdir(exist_ok=True)
    objects(bench).write_text("A file where the folder of the checkpoints should be.")
    await bench.submit()
    await released(bench, tmp_path, 1)
    assert await resumed(bench, tmp_path) == (0, [])


@pytest.mark.slow
async def test_a_drained_request_continues_on_another_worker(
    bench: Bench, gate: Gate, chat: Chat, tmp_path: Path
) -> None:
    """No step is done twice, the expander is asked once, and the video is the same."""
    tally = tmp_path / "tally"
    chat.reply = lambda _body: completion(f"{gate.prompt} tally={tally}")
    settings = bench.settings(expander_url=chat.url, expander_model="llama", checkpoint_every=1000)
    request = await bench.submit(expand_prompt=True, number_of_steps=STEPS)
    stop = asyncio.Event()
    async with bench.worker(settings=settings, stop=stop, grace=0.0):
        gate.open(3)
        await bench.wait_for_step(request, 3)
        stop.set()
        for step in range(4, 9):  # a few steps may pass before the order to stop arrives
            gate.open()
            await bench.wait_until(request, partial(is_released_or_at, step))
    before = tally.stat().st_size
    assert 4 <= before < 10
    async with bench.worker(settings=settings, name="worker-2"):
        gate.open(STEPS - before)
        video = await bench.video(request, tmp_path / "video.mp4")
        log = await bench.log(request)
        assert f"Continuing from a checkpoint: step {before} of pass 1" in log
        assert f"Denoising, {STEPS} steps, {before} of them done before" in log
        assert tally.stat().st_size == STEPS
        assert len(chat.bodies) == 1
        undisturbed = await bench.submit(expand_prompt=True, number_of_steps=STEPS)
        gate.open(STEPS)
        assert await bench.video(undisturbed, tmp_path / "video.mp4") == video


@pytest.mark.slow
async def test_a_killed_engine_process_costs_the_steps_since_the_last_checkpoint(
    bench: Bench, gate: Gate, tmp_path: Path
) -> None:
    async with bench.worker(settings=bench.settings(checkpoint_every=0.01)):
        request = await bench.submit(gate.prompt, number_of_steps=4)
        gate.open(2)
        await wait_for_checkpoint(objects(bench) / request / "1.safetensors", step=2)
        (engine,) = children(FAKE_ENGINE_PROCESS[-1])
        os.kill(engine, signal.SIGKILL)
        while engine in children(FAKE_ENGINE_PROCESS[-1]):
            await asyncio.sleep(0.01)  # a process that waits at the gate could pass it before it dies
        gate.open(2)
        video = await bench.video(request, tmp_path / "video.mp4")
        assert "Continuing from a checkpoint: step 2 of pass 1" in await bench.log(request)
        undisturbed = await bench.submit(gate.prompt, number_of_steps=4)
        gate.open(4)
        assert await bench.video(undisturbed, tmp_path / "video.mp4") == video
    await sweep_files(bench.store, bench.context.objects)
    assert not list(objects(bench).rglob("*.safetensors"))


def is_released_or_at(step: int, status: Status) -> bool:
    return status.state is State.IN_QUEUE or is_completed_or_at(step, status)


async def wait_for_checkpoint(path: Path, step: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while not path.exists() or read_checkpoint(path).checkpoint.step < step:
            await asyncio.sleep(0.01)
