"""A worker on a real store and real files, whose child runs a fake engine (or, where it matters, the real one)."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from keyreel.addresses import AddressPolicy
from keyreel.links import Links
from keyreel.objects import open_objects
from keyreel.settings import Settings
from keyreel.store import Store, open_store
from keyreel.store.records import Failure, NewRequest, State, Status, Success
from keyreel.worker.context import WorkerContext
from keyreel.worker.process import PREPARER
from keyreel.worker.supervisor import supervise
from tests.worker.site import Site, open_site

FAKE_CHILD = (sys.executable, "-m", "tests.worker.fake_child")
FAKE_PREPARER = (sys.executable, "-m", "tests.worker.fake_preparer")
SMALL: dict[str, Any] = {
    "prompt": "a red circle",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "number_of_frames": 9,
    "number_of_steps": 2,
    "enable_safety_checker": False,
}
SEED = 5
PATIENCE = 120
"""Seconds: on a busy machine the real engine alone takes half a minute to load."""
ENDPOINT = "fal-ai/ltx-video-lora/multiconditioning"


@dataclass(frozen=True)
class Bench:
    """What a test drives a worker with."""

    store: Store
    context: WorkerContext

    async def submit(
        self, prompt: str = "a red circle", *, key_id: str = "key", retry: bool = True, **changes: Any
    ) -> str:
        request = SMALL | {"prompt": prompt} | changes
        new = NewRequest(endpoint=ENDPOINT, key_id=key_id, input=request, seed=SEED, retry=retry)
        return (await self.store.queue.submit(new)).id

    async def until(self, request_id: str, condition: Callable[[Status], object]) -> Status:
        """The request as soon as it is in this condition."""
        async with asyncio.timeout(PATIENCE):
            while True:
                changed = self.store.database.changed
                status = await self.store.requests.status(request_id)
                assert status is not None
                if condition(status):
                    return status
                await changed.wait()

    async def at_step(self, request_id: str, number: int) -> Status:
        """The request as soon as the device has done so many steps of it."""
        return await self.until(request_id, lambda status: steps_done(status) >= number)

    async def completed(self, request_id: str) -> Status:
        return await self.until(request_id, lambda status: status.state is State.COMPLETED)

    async def output(self, request_id: str) -> dict[str, Any]:
        outcome = (await self.completed(request_id)).outcome
        assert isinstance(outcome, Success), outcome
        return outcome.output

    async def failure(self, request_id: str) -> Failure:
        outcome = (await self.completed(request_id)).outcome
        assert isinstance(outcome, Failure), outcome
        return outcome

    async def video(self, request_id: str, to: Path) -> bytes:
        """The content of the file that the result names."""
        path = self.context.links.object_of((await self.output(request_id))["video"]["url"])
        assert path is not None
        await self.context.objects.download(path, to)
        return to.read_bytes()

    async def log(self, request_id: str) -> list[str]:
        return [entry.message for entry in await self.store.requests.log(request_id)]

    @asynccontextmanager
    async def worker(
        self,
        *,
        model: str = "fake",
        child: Sequence[str] = FAKE_CHILD,
        preparer: Sequence[str] = PREPARER,
        stop: asyncio.Event | None = None,
        **changes: Any,
    ) -> AsyncIterator[None]:
        """A worker for the time of the block. It has to leave by itself, and to leave nothing behind."""
        context = replace(self.context, **changes)
        stop = stop or asyncio.Event()
        task = asyncio.create_task(
            supervise(context, model=model, device="cpu", stop=stop, child=child, preparer=preparer)
        )
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await task
        assert not list(context.spool.rglob("*"))


class Gate:
    """A named pipe that a fake engine waits at in each step of a request whose prompt is `gate.prompt`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.prompt = f"gate={path}"
        self._fifo = os.open(path, os.O_RDWR)

    def open(self, steps: int = 1) -> None:
        os.write(self._fifo, b"." * steps)


def steps_done(status: Status) -> int:
    if status.progress is None or status.progress["stage"] != "denoise":
        return -1
    return int(status.progress["step"])


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncIterator[Bench]:
    async with open_store(f"sqlite:///{folder / 'keyreel.db'}") as store:
        yield new_bench(store, folder)


def new_bench(store: Store, folder: Path) -> Bench:
    context = WorkerContext(
        store=store,
        objects=open_objects(folder / "objects"),
        links=Links("http://keyreel.example", b"s" * 32),
        settings=Settings(cache_dir=folder / "cache", provenance=False),
        policy=AddressPolicy(("127.0.0.1",)),
        spool=folder / "spool",
        name="worker-1",
    )
    return Bench(store, context)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as bench:
        yield bench


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A bench whose worker runs throughout the module: each costs two processes."""
    async with open_bench(tmp_path_factory.mktemp("served")) as bench, bench.worker(preparer=FAKE_PREPARER):
        yield bench


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site
