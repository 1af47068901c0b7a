from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyreel.safety.plan import GuardPlan
from keyreel.worker.messages import Check, Checked, Failed, GuardReady, LoadFailed, LoadGuard, Stop
from keyreel.worker.process import GUARD_PROCESS, Process, ProcessGoneError


def plan(pictures: str | None) -> GuardPlan:
    return GuardPlan(None, pictures, "", None, "", 16, "cpu")


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    process = await Process.start(GUARD_PROCESS)
    yield process
    await process.close()


@pytest.mark.slow
async def test_orders_are_answered_in_turn_even_after_an_error(process: Process) -> None:
    await process.send(LoadGuard(plan(None)))
    assert await process.receive() == GuardReady()
    for order in (Check(prompts=("a circle",)), Stop("id"), Check(prompts=("a square",))):
        await process.send(order)
    assert await process.receive() == Checked()
    assert await process.receive() == Failed("The guard process cannot handle Stop")
    assert await process.receive() == Checked()


@pytest.mark.slow
async def test_a_checker_that_cannot_be_loaded_is_reported(process: Process, tmp_path: Path) -> None:
    await process.send(LoadGuard(plan(str(tmp_path / "missing"))))
    answer = await process.receive()
    assert isinstance(answer, LoadFailed)
    assert "KEYREEL_IMAGE_CHECKER" in answer.message
    with pytest.raises(ProcessGoneError, match="exited with status 0"):
        await process.receive()
