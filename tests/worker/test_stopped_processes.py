"""Processes that are stopped (SIGSTOP), as by a debugger or by a machine that swaps: they hang and do not die."""

import base64
import os
import signal

import pytest

from keyreel.worker import inputs
from keyreel.worker.process import DECODE_PROCESS
from tests.worker.conftest import FAKE_ENGINE_PROCESS, Bench, Gate
from tests.worker.processes import children
from tests.worker.site import picture

pytestmark = pytest.mark.slow

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
