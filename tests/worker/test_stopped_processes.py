"""Processes that are stopped (SIGSTOP), as by a debugger or by a machine that swaps: they hang and do not die."""

import base64
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from keyreel.video.canvas import Grid
from keyreel.worker import guard, inputs
from keyreel.worker.guard import WorkerGuard
from keyreel.worker.inputs import RetryableError
from keyreel.worker.messages import Ready
from keyreel.worker.process import DECODE_PROCESS, GUARD_PROCESS
from keyreel.worker.spool import write_preview
from tests.worker.conftest import FAKE_DECODE_PROCESS, FAKE_ENGINE_PROCESS, Bench, Gate
from tests.worker.faces import FACES
from tests.worker.processes import children
from tests.worker.site import picture

pytestmark = pytest.mark.slow

STOPPED_AT_ITS_START = 'rm "$0" 2>/dev/null && kill -STOP $$; exec "$@"'
"""A command that stops before it runs its arguments, if the file that it gets first exists."""
PICTURE = base64.b64encode(picture()).decode()


def stop(module: str) -> int:
    (pid,) = children(module)
    os.kill(pid, signal.SIGSTOP)
    return pid


async def test_a_stopped_engine_process_costs_one_attempt(each_bench: Bench, gate: Gate) -> None:
    async with each_bench.worker(patience=1.0):
        request = await each_bench.submit(gate.prompt, number_of_steps=3)
        gate.open()
        await each_bench.wait_for_step(request, 1)
        stopped = stop(FAKE_ENGINE_PROCESS[-1])
        gate.open(5)
        await each_bench.output(request)
        assert (await each_bench.completed(request)).attempt == 2
        assert stopped not in children(FAKE_ENGINE_PROCESS[-1])


async def test_an_engine_process_that_goes_on_in_time_costs_nothing(each_bench: Bench, gate: Gate) -> None:
    async with each_bench.worker():
        request = await each_bench.submit(gate.prompt, number_of_steps=2)
        gate.open()
        await each_bench.wait_for_step(request, 1)
        stopped = stop(FAKE_ENGINE_PROCESS[-1])
        gate.open()
        os.kill(stopped, signal.SIGCONT)
        await each_bench.output(request)
        assert (await each_bench.completed(request)).attempt == 1


@pytest.mark.parametrize("image", [[], [{"image_url": f"data:image/png;base64,{PICTURE}"}]], ids=["text", "picture"])
async def test_a_stopped_decode_process_costs_no_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, image: list[dict[str, str]]
) -> None:
    async with bench.worker():
        await bench.output(await bench.submit())  # both processes run
        monkeypatch.setattr(inputs, "DECODE_TIMEOUT", 5.0)  # longer than a start takes
        stopped = stop(DECODE_PROCESS[-1])
        await bench.output(await bench.submit(images=image))
        assert children(DECODE_PROCESS[-1]) not in ([], [stopped])


async def test_a_stopped_guard_process_costs_no_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench.worker(settings=bench.settings(**FACES), decode_process=FAKE_DECODE_PROCESS):
        await bench.output(await bench.submit(enable_safety_checker=True))
        monkeypatch.setattr(guard, "ANSWER_TIMEOUT", 5.0)
        stopped = stop(GUARD_PROCESS[-1])
        checked, plain = await bench.submit(enable_safety_checker=True), await bench.submit()
        await bench.output(plain)
        await bench.output(checked)
        assert children(GUARD_PROCESS[-1]) not in ([], [stopped])


async def test_a_guard_process_that_stops_at_its_start_is_replaced(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process has died, so that the next order starts another one."""
    mark = tmp_path / "stop"
    command = ("sh", "-c", STOPPED_AT_ITS_START, str(mark), *GUARD_PROCESS)
    checks = WorkerGuard(bench.settings(**FACES), command)
    await checks.open(Ready("fake", "0" * 64, "cpu", Grid(32, 8), {}))
    preview = write_preview(np.full((2, 64, 64, 3), 20, np.uint8), tmp_path)
    try:
        await checks.check_preview(preview)
        (running,) = children(GUARD_PROCESS[-1])
        os.kill(running, signal.SIGKILL)
        mark.touch()
        with monkeypatch.context() as patch:
            patch.setattr(guard, "RESTART_TIMEOUT", 0.5)
            for failure in ("exited|was killed", "did not start in 0.5 s"):
                with pytest.raises(RetryableError, match=failure):
                    await checks.check_preview(preview)
        await checks.check_preview(preview)
    finally:
        await checks.close()
