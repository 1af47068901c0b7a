"""Kills the engine process repeatedly, at random moments: `python -m tests.worker.chaos --rounds 200`.

Each request must complete exactly once, with the same bytes as without a kill.
"""

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from keyreel.fal.outcomes import Success
from keyreel.worker.process import ENGINE_PROCESS
from tests.worker.conftest import FAKE_ENGINE_PROCESS, Bench, open_bench
from tests.worker.processes import children

LONGEST_DELAY = 1.2
"""Maximum seconds from the submit to the kill, so that it may happen before, during or after the work."""
WORK: dict[str, Any] = {"prompt": "pace=0.02", "number_of_steps": 40}


async def chaos(bench: Bench, rounds: int, *, seed: int = 0, model: str | None = None) -> dict[str, int]:
    """Runs the rounds one after the other and returns the counts. model: None runs the fake engine."""
    rng = random.Random(seed)  # noqa: S311
    program = ENGINE_PROCESS if model else FAKE_ENGINE_PROCESS
    counts = {"rounds": rounds, "killed": 0, "second attempts": 0}
    async with bench.worker(model=model or "fake", engine_process=program):
        undisturbed = await _content(bench, await bench.submit(**WORK))
        for _ in range(rounds):
            request = await bench.submit(**WORK)
            await asyncio.sleep(rng.uniform(0, LONGEST_DELAY))
            counts["killed"] += _kill(program[-1])
            assert await _content(bench, request) == undisturbed
            await _check_completed_once(bench, request)
            counts["second attempts"] += (await bench.completed(request)).attempt > 1
    return counts


def _kill(module: str) -> int:
    """Returns the number of killed processes: 0 if the replacement of the previous one has not been started yet."""
    pids = children(module)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


async def _content(bench: Bench, request: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return await bench.video(request, Path(folder) / "video.mp4")


async def _check_completed_once(bench: Bench, request: str) -> None:
    status = await bench.completed(request)
    assert isinstance(status.outcome, Success)
    log = await bench.log(request)
    assert sum(line.startswith("Finished") for line in log) == 1, log
    out = Path(bench.context.spool.parent) / "objects" / "out" / request
    assert [path.name for path in out.iterdir()] == [str(status.attempt)]


async def _main(rounds: int, seed: int, model: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with open_bench(Path(folder)) as bench:
            started = time.monotonic()
            counts = await chaos(bench, rounds, seed=seed, model=model)
            print(", ".join(f"{number} {what}" for what, number in counts.items()), end=": ")
            print(f"each completed once, with the same bytes, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a real model instead of the fake engine")
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.rounds, arguments.seed, arguments.model))
