"""A request of normal priority takes the device from one of low priority, if the operator allows it."""

from functools import partial
from pathlib import Path

import pytest

from keyreel.store.records import Priority
from tests.worker.conftest import Bench, Gate
from tests.worker.test_checkpoints import is_released_or_at

STEPS = 50


@pytest.mark.slow
async def test_a_normal_request_goes_before_a_low_one_that_continues_later(
    bench: Bench, gate: Gate, tmp_path: Path
) -> None:
    tally = tmp_path / "tally"
    prompt = f"{gate.prompt} tally={tally}"
    async with bench.worker(settings=bench.settings(preempt=True, checkpoint_every=1000)):
        low = await bench.submit(prompt, priority=Priority.LOW, retry=False, number_of_steps=STEPS)
        gate.open(3)
        await bench.wait_for_step(low, 3)
        waiting = await bench.submit(priority=Priority.LOW)
        await bench.wait_until(waiting, lambda status: status.log_lines)
        normal = await bench.submit()
        await bench.wait_until(normal, lambda status: status.log_lines)
        for step in range(4, 9):  # a few steps may pass before the order to stop arrives
            gate.open()
            await bench.wait_until(low, partial(is_released_or_at, step))
        await bench.output(normal)
        assert tally.stat().st_size < 10
        gate.open(STEPS)
        video = await bench.video(low, tmp_path / "video.mp4")
        await bench.output(waiting)
        log = await bench.log(low)
        assert "Stopping for a request of higher priority; it will continue later" in log
        assert any(line.startswith("Continuing from a checkpoint: step ") for line in log)
        assert tally.stat().st_size == STEPS
        undisturbed = await bench.submit(prompt, number_of_steps=STEPS)
        gate.open(STEPS)
        assert await bench.video(undisturbed, tmp_path / "video.mp4") == video


@pytest.mark.slow
async def test_a_low_request_keeps_the_device_unless_the_operator_allows_it(bench: Bench, gate: Gate) -> None:
    async with bench.worker():
        low = await bench.submit(gate.prompt, priority=Priority.LOW)
        gate.open()
        await bench.wait_for_step(low, 1)
        normal = await bench.submit()
        await bench.wait_until(normal, lambda status: status.log_lines)
        gate.open()
        await bench.output(low)
        await bench.output(normal)
    assert (await bench.completed(low)).attempt == 1
