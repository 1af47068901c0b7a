"""A real server on 127.0.0.1, in a thread, for real clients and programs. Its worker needs no model."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from keyreel.errors import RequestError
from keyreel.fal.endpoints import ENDPOINTS, MULTICONDITIONING
from keyreel.fal.outcomes import CANCELLED, Failure, Outcome, Success, request_failure
from keyreel.fal.schema import File, Output
from keyreel.server.dependencies import Services
from keyreel.server.process import listen, serve
from keyreel.server.startup import open_services
from keyreel.settings import Settings
from keyreel.store import Store
from keyreel.store.records import Lease, LeaseStatus, LogLine, NewKey
from keyreel.worker.waiting import wait_for_any
from tests.store.template import put_database

T = TypeVar("T")

ENDPOINT = MULTICONDITIONING.id
APP = "fal-ai/ltx-video-lora"
INPUT = {"prompt": "a fox", "seed": 3}
TIMEOUT = 10.0
"""Seconds."""
VIDEO = {"url": "https://example.com/video.mp4", "content_type": "video/mp4", "file_name": "video.mp4", "file_size": 3}


class FakeWorker:
    """Runs each request as its prompt says.

    "hold": writes a log line and runs until it is released or cancelled. "fail TYPE": fails with this type of platform
    error. "refuse TYPE": fails with this type of model error. Anything else: writes two log lines and makes a video.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue = store.queue
        self.leases: list[Lease] = []
        self.release = asyncio.Event()
        self.paused = False
        self.video: dict[str, object] = VIDEO

    async def run(self) -> None:
        while True:
            changed = self._store.database.changes.any
            lease = None if self.paused else await self._queue.claim("fake")
            if lease:
                self.leases.append(lease)
                await self._queue.finish(lease, await self._work(lease))
            elif self.paused:
                await changed.wait()
            else:
                # The claim above has replaced the event.
                await self._store.database.changes.any.wait()

    async def _work(self, lease: Lease) -> Outcome:
        try:
            request = ENDPOINTS[lease.endpoint].read(lease.input)
        except RequestError as error:
            return request_failure(error)
        match request.prompt.split():
            case ["hold", *_]:
                return await self._hold(lease)
            case ["fail", error_type]:
                return Failure("It failed.", error_type)
            case ["refuse", error_type]:
                return request_failure(RequestError.at(("images", 0, "image_url"), "It is wrong.", error_type))
        await self._queue.heartbeat(
            lease, {"stage": "denoise", "step": 1, "steps": 2}, [LogLine("Denoising, step 1 of 2")]
        )
        await self._queue.heartbeat(lease, {"stage": "decode", "step": 1, "steps": 1}, [LogLine("Decoding")])
        return self._success(lease)

    async def _hold(self, lease: Lease) -> Outcome:
        self.release.clear()  # an earlier release was not meant for this request
        lines: Sequence[LogLine] = [LogLine("Holding")]
        progress = {"stage": "denoise", "step": 1, "steps": 2}
        while not self.release.is_set():
            if await self._queue.heartbeat(lease, progress, lines) is LeaseStatus.CANCELLED:
                return CANCELLED
            lines = ()
            await wait_for_any(self._store.database.changes.any, self.release)
        await self._queue.heartbeat(lease, None, [LogLine("Released")])
        return self._success(lease)

    def _success(self, lease: Lease) -> Success:
        output = Output(prompt=lease.input["prompt"], seed=lease.seed, video=File.model_validate(self.video))
        return Success(ENDPOINTS[lease.endpoint].write(output))


@dataclass(slots=True)
class LiveServer:
    """A running server. Its event loop runs in another thread, so that a test may block."""

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

    @property
    def admin_headers(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.admin.key.id}:{self.admin.secret}"}

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition. Checks it after each commit."""

        async def wait() -> None:
            while not condition():
                await self.services.store.database.changes.any.wait()

        self.call(wait())

    def refresh(self) -> None:
        """Refreshes the snapshot that answers polling."""
        self.call(self.services.snapshot.refresh())

    def cancel_all(self) -> None:
        requests = self.services.store.requests
        for request_id in [*self.call(requests.queue()), *(status.id for status in self.call(requests.running()))]:
            self.call(self.services.store.queue.cancel(request_id))

    def release(self) -> None:
        """Lets the running "hold" request complete."""
        self.loop.call_soon_threadsafe(self.worker.release.set)


@contextmanager
def live_server(folder: Path, **settings: Any) -> Iterator[LiveServer]:
    """Runs a server with its data in `folder`."""
    started: Future[LiveServer] = Future()
    thread = threading.Thread(target=asyncio.run, args=(_main(folder, settings, started),))
    thread.start()
    server = started.result(TIMEOUT)
    try:
        yield server
    finally:
        server.loop.call_soon_threadsafe(server.stop.set)
        thread.join(TIMEOUT)


async def _main(folder: Path, settings: dict[str, Any], started: Future[LiveServer]) -> None:
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        put_database(folder)
        chosen = Settings(data_dir=folder, cache_dir=folder / "cache", **settings)
        async with open_services(chosen, url) as services:
            admin, user = (
                await services.store.keys.create("admin", admin=True),
                await services.store.keys.create("user"),
            )
            worker, loop, stop = FakeWorker(services.store), asyncio.get_running_loop(), asyncio.Event()
            working = asyncio.create_task(worker.run())
            started.set_result(LiveServer(url, services, admin, user, worker, loop, stop))
            await serve(services, listener, [], stop)
            working.cancel()
            await asyncio.wait([working])
