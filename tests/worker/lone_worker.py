"""A worker in a process of its own, until it is killed: `python -m tests.worker.lone_worker URL FOLDER NAME MODEL`."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from keyreel.store import open_store
from keyreel.worker.supervisor import supervise
from tests.worker.conftest import new_bench

ENGINE = (sys.executable, "-m", "tests.worker.tallying_engine_process")
EVERY = 0.05
"""Seconds between two checkpoints. A step of the tiny model takes a few milliseconds."""


async def main(url: str, folder: Path, name: str, model: str) -> None:
    async with open_store(url) as store:
        bench = new_bench(store, folder)
        context = replace(bench.context, name=name, settings=bench.settings(checkpoint_every=EVERY))
        await supervise(context, model=model, device="cpu", stop=asyncio.Event(), engine_process=ENGINE)


if __name__ == "__main__":
    url, folder, name, model = sys.argv[1:]
    asyncio.run(main(url, Path(folder), name, model))
