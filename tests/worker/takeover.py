"""Kills whole workers at random steps: `python -m tests.worker.takeover --rounds 50`.

In each round a worker with a real model is killed while it denoises, and another one takes the request over. The video
must have the same bytes as without a kill. Prints how many steps were computed twice. Needs PostgreSQL.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from keyreel.store import open_store
from tests.store.postgres import find_programs, running_server
from tests.tiny_checkpoints import tiny_checkpoint, tiny_upsampler
from tests.worker.conftest import PATIENCE, Bench, new_bench
from tests.worker.faces import PORTRAIT
from tests.worker.tallying_engine_process import TALLY

WORKER = (sys.executable, "-m", "tests.worker.lone_worker")
WORK: tuple[dict[str, Any], ...] = (
    {"recipe": "multiscale", "number_of_steps": 40, "images": [{"image_url": PORTRAIT, "strength": 0.7}]},
    {"recipe": "single", "number_of_steps": 50},
)


@dataclass(frozen=True)
class Round:
    """killed: the steps done when the worker was killed. lost: those that the next one did again."""

    killed: int
    lost: int


@dataclass
class Takeovers:
    """Keeps one worker running, in a process of its own."""

    bench: Bench
    url: str
    folder: Path
    model: Path
    processes: ExitStack
    names: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Starts the next worker. It has another name than the ones before."""
        self.names.append(f"worker-{len(self.names) + 1}")
        arguments = (*WORKER, self.url, self.folder, self.names[-1], self.model)
        environment = os.environ | {TALLY: str(self.tally)}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)
        self.processes.callback(self.process.wait)
        self.processes.callback(self.process.kill)

    @property
    def tally(self) -> Path:
        return self.folder / "tally"

    @property
    def steps(self) -> int:
        return self.tally.stat().st_size

    async def undisturbed(self, work: dict[str, Any]) -> tuple[bytes, int]:
        """Returns the video and its number of steps."""
        self.tally.write_bytes(b"")
        return await self._video(await self.bench.submit(**work)), self.steps

    async def killed(self, work: dict[str, Any], at: int, expected: tuple[bytes, int]) -> Round:
        """Kills the worker after `at` steps, has another one take over, and checks the video."""
        self.tally.write_bytes(b"")
        request = await self.bench.submit(**work)
        async with asyncio.timeout(PATIENCE):
            while self.steps < at:
                await asyncio.sleep(0.001)
        self.process.kill()
        self.process.wait()
        self.start()
        # As if the lease had expired, without the half minute until then.
        assert await self.bench.store.queue.release_worker(self.names[-2]) == 1
        video, steps = await self._video(request), expected[1]
        assert video == expected[0], "the video differs from the undisturbed one"
        assert (await self.bench.completed(request)).attempt == 2
        return Round(at, self.steps - steps)

    async def _video(self, request: str) -> bytes:
        return await self.bench.video(request, self.folder / "video.mp4")


async def run(takeovers: Takeovers, rounds: int, seed: int = 0) -> AsyncIterator[Round]:
    rng = random.Random(seed)  # noqa: S311
    takeovers.start()
    expected = [await takeovers.undisturbed(work) for work in WORK]
    for number in range(rounds):
        kind = number % len(WORK)
        at = rng.randint(1, expected[kind][1])
        yield await takeovers.killed(WORK[kind], at, expected[kind])


@asynccontextmanager
async def open_takeovers(url: str, folder: Path, model: Path) -> AsyncIterator[Takeovers]:
    async with open_store(url) as store:
        with ExitStack() as processes:
            yield Takeovers(new_bench(store, folder), url, folder, model, processes)


def summary(rounds: list[Round]) -> str:
    lost = sorted(each.lost for each in rounds)
    continued = sum(each.lost < each.killed for each in rounds)
    return (
        f"{len(rounds)} workers killed, {continued} videos continued from a checkpoint, all with the same bytes; "
        f"steps done before the kill {mean(each.killed for each in rounds):.1f}, of them done again: "
        f"mean {mean(lost):.1f}, median {lost[len(lost) // 2]}, at most {lost[-1]}"
    )


@contextmanager
def tiny_model() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        model = tiny_checkpoint(Path(name) / "tiny")
        tiny_upsampler(model / "latent_upsampler")
        yield model


async def main(rounds: int, seed: int) -> None:
    programs = find_programs()
    if not programs:
        sys.exit("PostgreSQL is not installed")
    started = time.monotonic()
    with running_server(programs) as url, tiny_model() as model, tempfile.TemporaryDirectory() as folder:
        async with open_takeovers(url, Path(folder), model) as takeovers:
            results = []
            async for each in run(takeovers, rounds, seed):
                results.append(each)
                print(f"{len(results)}: killed after {each.killed} steps, {each.lost} of them done again", flush=True)
    print(f"{summary(results)}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.seed))
