"""A worker with two ranks on the CPU: real processes from the supervisor to the second rank."""

import os
import select
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from keyreel.worker.process import ENGINE_PROCESS
from tests.worker.conftest import PATIENCE, Bench, open_bench
from tests.worker.processes import children

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

RANK_PROCESS = "keyreel.engine.rank_process"
LONG: dict[str, Any] = {"number_of_steps": 40}
"""Enough steps to be interrupted."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ranks(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with (
        open_bench(tmp_path_factory.mktemp("ranks")) as bench,
        bench.worker(model=str(checkpoint), device="cpu,cpu", engine_process=ENGINE_PROCESS),
    ):
        yield bench


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(ranks: Bench, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return await ranks.video(await ranks.submit(**LONG), tmp_path_factory.mktemp("video") / "video.mp4")


def engine_and_rank() -> tuple[int, int]:
    (engine,) = children(ENGINE_PROCESS[-1])
    (rank,) = children(RANK_PROCESS, engine)
    return engine, rank


@contextmanager
def its_end(pid: int) -> Iterator[None]:
    """Waits after the block until the process has ended."""
    handle = os.pidfd_open(pid)
    try:
        yield
        assert select.select([handle], [], [], PATIENCE)[0]
    finally:
        os.close(handle)


async def test_a_worker_is_listed_with_all_its_devices(ranks: Bench, undisturbed: bytes) -> None:
    (worker,) = await ranks.store.workers.alive()
    assert (worker.device, worker.ready) == ("cpu,cpu", True)
    assert undisturbed


async def test_a_cancel_stops_every_rank_at_the_next_step(ranks: Bench, undisturbed: bytes, tmp_path: Path) -> None:
    before = engine_and_rank()
    request = await ranks.submit(**LONG)
    await ranks.wait_for_step(request, 2)
    await ranks.store.queue.cancel(request)
    assert (await ranks.failure(request)).type == "client_cancelled"
    assert await ranks.video(await ranks.submit(**LONG), tmp_path / "video.mp4") == undisturbed
    assert engine_and_rank() == before


async def test_the_death_of_a_rank_costs_one_attempt(ranks: Bench, undisturbed: bytes, tmp_path: Path) -> None:
    engine, rank = engine_and_rank()
    request = await ranks.submit(**LONG)
    await ranks.wait_for_step(request, 2)
    with its_end(engine):
        os.kill(rank, signal.SIGKILL)
    assert await ranks.video(request, tmp_path / "video.mp4") == undisturbed
    assert (await ranks.completed(request)).attempt == 2


@pytest.mark.usefixtures("ranks")
@pytest.mark.usefixtures("undisturbed")
async def test_a_rank_ends_with_the_engine_process() -> None:
    engine, rank = engine_and_rank()
    with its_end(rank):
        os.kill(engine, signal.SIGKILL)
