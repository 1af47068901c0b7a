"""Runs a worker on a real store and real files, with a fake engine or, where it matters, the real one."""

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

from keyreel.fal.outcomes import Failure, Success
from keyreel.files.links import Links
from keyreel.files.objects import open_objects
from keyreel.net.addresses import AddressPolicy
from keyreel.settings import Settings
from keyreel.store import Store, open_store
from keyreel.store.records import NewRequest, Priority, State, Status
from keyreel.worker.context import WorkerContext
from keyreel.worker.process import DECODE_PROCESS, GUARD_PROCESS
from keyreel.worker.supervisor import supervise
from tests.store.template import put_database
from tests.worker.site import Site, open_site

FAKE_ENGINE_PROCESS = (sys.executable, "-m", "tests.worker.fake_engine_process")
FAKE_GUARD_PROCESS = (sys.executable, "-m", "tests.worker.fake_guard_process")
FAKE_DECODE_PROCESS = (sys.executable, "-m", "tests.worker.fake_decode_process")
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
"""Seconds to wait at most. On a busy machine the real engine takes half a minute to load."""
ENDPOINT = "fal-ai/ltx-video-lora/multiconditioning"


@dataclass(frozen=True)
class Bench:
    """A store, and what a worker on it needs. Tests submit requests and watch them."""

    store: Store
    context: WorkerContext

    async def submit(
        self,
        prompt: str = "a red circle",
        *,
        key_id: str = "key",
        retry: bool = True,
        priority: Priority = Priority.NORMAL,
        traceparent: str | None = None,
        **changes: Any,
    ) -> str:
        request = SMALL | {"prompt": prompt} | changes
        new = NewRequest(
            endpoint=ENDPOINT,
            key_id=key_id,
            input=request,
            seed=SEED,
            retry=retry,
            priority=priority,
            traceparent=traceparent,
        )
        return (await self.store.queue.submit(new)).id

    async def wait_until(self, request_id: str, condition: Callable[[Status], object]) -> Status:
        """Waits until the request's status meets the condition and returns it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                changed = self.store.database.changes.any
                status = await self.store.requests.status(request_id)
                assert status is not None
                if condition(status):
                    return status
                await changed.wait()

    async def wait_for_step(self, request_id: str, number: int) -> Status:
        """Waits until the device has done `number` steps of the request."""
        return await self.wait_until(request_id, lambda status: steps_done(status) >= number)

    async def completed(self, request_id: str) -> Status:
        """Waits until the request is completed and returns its status."""
        return await self.wait_until(request_id, lambda status: status.state is State.COMPLETED)

    async def output(self, request_id: str) -> dict[str, Any]:
        """Waits until the request has succeeded and returns its output."""
        outcome = (await self.completed(request_id)).outcome
        assert isinstance(outcome, Success), outcome
        return outcome.output

    async def failure(self, request_id: str) -> Failure:
        """Waits until the request has failed and returns the failure."""
        outcome = (await self.completed(request_id)).outcome
        assert isinstance(outcome, Failure), outcome
        return outcome

    async def video(self, request_id: str, to: Path) -> bytes:
        """Waits for the video, writes it to `to` and returns its bytes."""
        file = self.context.links.file_of((await self.output(request_id))["video"]["url"])
        assert file is not None
        await self.context.objects.download(file.object, to)
        return to.read_bytes()

    async def log(self, request_id: str) -> list[str]:
        return [entry.message for entry in await self.store.requests.log(request_id)]

    def settings(self, **changes: Any) -> Settings:
        """Returns the settings with changes, for `worker(settings=...)`."""
        return self.context.settings.model_copy(update=changes)

    @asynccontextmanager
    async def worker(
        self,
        *,
        model: str = "fake",
        device: str = "cpu",
        engine_process: Sequence[str] = FAKE_ENGINE_PROCESS,
        decode_process: Sequence[str] = DECODE_PROCESS,
        guard_process: Sequence[str] = GUARD_PROCESS,
        stop: asyncio.Event | None = None,
        **changes: Any,
    ) -> AsyncIterator[None]:
        """Runs a worker during the block. It must stop by itself when told to, and leave no files behind."""
        context = replace(self.context, **changes)
        stop = stop or asyncio.Event()
        task = asyncio.create_task(
            supervise(
                context,
                model=model,
                device=device,
                stop=stop,
                engine_process=engine_process,
                decode_process=decode_process,
                guard_process=guard_process,
            )
        )
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await task
        assert not list(context.spool.rglob("*"))


class Gate:
    """A named pipe at which the fake engine waits in each step of a request with the prompt `gate.prompt`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.prompt = f"gate={path}"
        self._fifo = os.open(path, os.O_RDWR)

    def open(self, steps: int = 1) -> None:
        """Lets `steps` steps pass."""
        os.write(self._fifo, b"." * steps)


def steps_done(status: Status) -> int:
    """Returns the number of denoising steps done, or -1 outside that stage."""
    if status.progress is None or status.progress["stage"] != "denoise":
        return -1
    return int(status.progress["step"])


@asynccontextmanager
async def open_bench(folder: Path, url: str | None = None) -> AsyncIterator[Bench]:
    """url: of the database; by default a file in the folder."""
    async with open_store(url or put_database(folder)) as store:
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


@pytest.fixture
async def each_bench(new_url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench on SQLite and one on PostgreSQL, for tests of what a worker does when something fails."""
    async with open_bench(tmp_path, new_url) as bench:
        yield bench


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """A bench with a worker for all tests of a module, because each worker starts two processes."""
    async with open_bench(tmp_path_factory.mktemp("shared")) as bench, bench.worker(decode_process=FAKE_DECODE_PROCESS):
        yield bench


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest_asyncio.fixture(loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with open_site() as site:
        yield site
