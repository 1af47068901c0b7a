"""A real server on 127.0.0.1 for clients that know nothing of tests, and a worker that needs no model."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from keyreel.endpoints import ENDPOINTS, MULTICONDITIONING
from keyreel.errors import RequestError
from keyreel.failures import failure_of
from keyreel.server.dependencies import Services
from keyreel.server.process import listen, serve
from keyreel.server.startup import open_services
from keyreel.settings import Settings
from keyreel.store import Store
from keyreel.store.records import CANCELLED, Failure, Lease, LogLine, NewKey, Outcome, Standing, Success

T = TypeVar("T")

ENDPOINT = MULTICONDITIONING.id
APP = "fal-ai/ltx-video-lora"
PATIENCE = 10.0
VIDEO = {"url": "https://example.com/video.mp4", "content_type": "video/mp4", "file_name": "video.mp4", "file_size": 3}


class FakeWorker:
    """Does what the prompt says.

    "hold": starts, writes a line, goes on when it is released or stops when it is cancelled.
    "fail TYPE": a platform failure. "refuse TYPE": a model error. Anything else: two lines and a video.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue = store.queue
        self.seen: list[Lease] = []
        self.release = asyncio.Event()
        self.paused = False
        self.video: dict[str, object] = VIDEO

    async def run(self) -> None:
        while True:
            changed = self._store.database.changed
            lease = None if self.paused else await self._queue.claim("fake")
            if lease:
                self.seen.append(lease)
                await self._queue.finish(lease, await self._work(lease))
            elif self.paused:
                await changed.wait()
            else:
                # The claim itself was a change.
                await self._store.database.changed.wait()

    async def _work(self, lease: Lease) -> Outcome:
        try:
            request = ENDPOINTS[lease.endpoint].read(lease.input)
        except RequestError as error:
            return failure_of(error)
        match request.prompt.split():
            case ["hold", *_]:
                return await self._hold(lease)
            case ["fail", error_type]:
                return Failure("It failed.", error_type)
            case ["refuse", error_type]:
                return failure_of(RequestError.at(("images", 0, "image_url"), "It is wrong.", error_type))
        await self._queue.beat(lease, {"stage": "denoise", "step": 1, "steps": 2}, [LogLine("Denoising, step 1 of 2")])
        await self._queue.beat(lease, {"stage": "decode", "step": 1, "steps": 1}, [LogLine("Decoding")])
        return self._success(lease)

    async def _hold(self, lease: Lease) -> Outcome:
        self.release.clear()  # nobody means a request that has not begun
        lines: Sequence[LogLine] = [LogLine("Holding")]
        progress = {"stage": "denoise", "step": 1, "steps": 2}
        while not self.release.is_set():
            if await self._queue.beat(lease, progress, lines) is Standing.CANCELLED:
                return CANCELLED
            lines = ()
            await _either(self._store.database.changed, self.release)
        await self._queue.beat(lease, None, [LogLine("Released")])
        return self._success(lease)

    def _success(self, lease: Lease) -> Success:
        return Success({"prompt": lease.input["prompt"], "seed": lease.seed, "video": self.video})


@dataclass(slots=True)
class LiveServer:
    """Its loop runs in another thread, so that blocking clients and programs can use it."""

    url: str
    services: Services
    admin: NewKey
    user: NewKey
    worker: FakeWorker
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event

    @property
    def credentials(self) -> str:
        return f"{self.user.key.id}:{self.user.secret}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.credentials}"}

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Looks whenever something was committed."""

        async def wait() -> None:
            while not condition():
                await self.services.store.database.changed.wait()

        self.call(wait())

    def refresh(self) -> None:
        """Brings polling up to date, which otherwise takes a moment."""
        self.call(self.services.snapshot.refresh())

    def cancel_all(self) -> None:
        for status in self.call(self.services.store.requests.live()):
            self.call(self.services.store.queue.cancel(status.id))

    def release(self) -> None:
        """Lets the request that is held go on."""
        self.loop.call_soon_threadsafe(self.worker.release.set)


@contextmanager
def live_server(folder: Path, **settings: Any) -> Iterator[LiveServer]:
    started: Future[LiveServer] = Future()
    thread = threading.Thread(target=asyncio.run, args=(_main(folder, settings, started),))
    thread.start()
    server = started.result(PATIENCE)
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(server.stop.set)
        thread.join(PATIENCE)


async def _main(folder: Path, settings: dict[str, Any], started: Future[LiveServer]) -> None:
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        chosen = Settings(data_dir=folder, cache_dir=folder / "cache", **settings)
        async with open_services(chosen, url) as services:
            admin, user = (
                await services.store.keys.create("admin", admin=True),
                await services.store.keys.create("user"),
            )
            worker, loop, stop = FakeWorker(services.store), asyncio.get_running_loop(), asyncio.Event()
            working = asyncio.create_task(worker.run())
            started.set_result(LiveServer(url, services, admin, user, worker, loop, stop))
            await serve(services, listener, None, stop)
            working.cancel()
            await asyncio.wait([working])


async def _either(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
