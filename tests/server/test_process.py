"""The process of a server or of workers: its start, its housekeeping and its end."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from platform import libc_ver
from resource import getpagesize
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from keyreel.errors import KeyreelError, ModelError
from keyreel.fal.endpoints import DISTILLED_098
from keyreel.fal.outcomes import START_TIMEOUT, Outcome, Success
from keyreel.server import process
from keyreel.server.process import (
    Workers,
    listen,
    return_freed_memory,
    serve,
    serve_workers,
    stop_on_signal,
    worker_name,
)
from keyreel.server.startup import open_services
from keyreel.settings import Settings
from keyreel.store import Store
from keyreel.store.queue import Queue
from keyreel.store.records import NewRequest, Reaped
from tests.server.live import ENDPOINT, TIMEOUT, live_server
from tests.server.queue_api import events, hold
from tests.worker.conftest import FAKE_ENGINE_PROCESS, PATIENCE, SMALL

SHARED: dict[str, Any] = {"database_url": "postgresql://127.0.0.1/keyreel", "secret": "s" * 32}
FAKE = [Workers("fake", ("cpu",), FAKE_ENGINE_PROCESS)]


class FailingQueue(Queue):
    """A queue whose first check fails."""

    failures = 1

    async def reap(self) -> Reaped:
        if self.failures:
            self.failures -= 1
            raise OperationalError("UPDATE", None, Exception("disk I/O error"))
        return await super().reap()


def settings(folder: Path) -> Settings:
    return Settings(data_dir=folder, cache_dir=folder / "cache")


async def outcome(store: Store, request_id: str) -> Outcome:
    """Waits until a request is completed."""
    async with asyncio.timeout(PATIENCE):
        while True:
            changed = store.database.changes.any
            status = await store.requests.status(request_id)
            assert status
            if status.outcome:
                return status.outcome
            await changed.wait()


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(
            KeyreelError, match=rf"^Cannot listen on 127\.0\.0\.1, port {port}: Address already in use\.$"
        ):
            listen("127.0.0.1", port)


def test_responses_do_not_wait_for_full_packets() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), TIMEOUT):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_worker_keeps_its_name_where_nobody_else_can_have_it() -> None:
    alone, shared, named = Settings(), Settings(**SHARED), Settings(worker_name="rack-7", **SHARED)
    assert worker_name(alone, "cuda:1") == f"{socket.gethostname()}-cuda:1"
    assert worker_name(alone, "cuda:0") != worker_name(alone, None) == worker_name(alone, None)
    assert worker_name(named, "cuda:1") == "rack-7-cuda:1"
    assert worker_name(named, "cuda:1", "/models/a b+int8") == "rack-7--models-a-b-int8-cuda:1"
    assert worker_name(shared, "cuda:1").startswith(worker_name(alone, "cuda:1"))
    assert worker_name(shared, "cuda:1") != worker_name(shared, "cuda:1")


async def test_the_first_signal_stops_and_the_second_has_its_default_effect() -> None:
    stop = asyncio.Event()
    before = signal.getsignal(signal.SIGTERM)
    stop_on_signal(stop)
    signal.raise_signal(signal.SIGINT)
    async with asyncio.timeout(TIMEOUT):
        await stop.wait()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before == signal.SIG_DFL


@pytest.mark.slow
def test_an_open_stream_does_not_keep_the_server_from_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0)
    with ExitStack() as connections:
        with live_server(tmp_path) as server:
            http = connections.enter_context(httpx.Client(headers=server.headers, base_url=server.url, trust_env=False))
            url = f"{hold(http)['status_url']}/stream"
            # In a variable, because an iterator without one is closed, and the connection with it.
            streamed = events(connections.enter_context(http.stream("GET", url)))
            assert next(streamed)["status"] == "IN_PROGRESS"
        assert server.loop.is_closed()


async def test_housekeeping_continues_after_an_error_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "REAP_PERIOD", 0.01)
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        async with open_services(settings(tmp_path), "http://keyreel.example") as services:
            queue = FailingQueue(services.store.database)
            store = replace(services.store, queue=queue)
            new = NewRequest(endpoint=ENDPOINT, key_id="key-1", input={}, seed=3, start_timeout=0.0)
            late = await queue.submit(new)
            serving = asyncio.create_task(serve(replace(services, store=store), listener, [], stop))
            async with asyncio.timeout(TIMEOUT):
                assert await outcome(store, late.id) == START_TIMEOUT
            stop.set()
            await serving
    assert queue.failures == 0


@pytest.mark.slow
async def test_a_start_timeout_is_noticed_when_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "REAP_PERIOD", 3600.0)
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        async with open_services(settings(tmp_path), "http://keyreel.example") as services:
            serving = asyncio.create_task(serve(services, listener, [], stop))
            new = NewRequest(endpoint=ENDPOINT, key_id="key-1", input={}, seed=3, start_timeout=0.2)
            late = await services.store.queue.submit(new)
            async with asyncio.timeout(TIMEOUT):
                assert await outcome(services.store, late.id) == START_TIMEOUT
            stop.set()
            await serving


@pytest.mark.slow
async def test_two_models_on_one_device_make_the_videos_of_their_endpoints(tmp_path: Path) -> None:
    other = "ltxv-13b-0.9.8-distilled"
    workers = [FAKE[0], replace(FAKE[0], model=other, pool=other)]
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        chosen = settings(tmp_path).model_copy(update={"models": f"fake,{other}"})
        async with open_services(chosen, url) as services:
            key = await services.store.keys.create("key")
            headers = {"Authorization": f"Key {key.key.id}:{key.secret}"}
            serving = asyncio.create_task(serve(services, listener, workers, stop))
            async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False) as http:
                workers_of = {}
                for endpoint in (ENDPOINT, f"fal-ai/{DISTILLED_098.alias}"):
                    answer = await http.post(f"/queue/{endpoint}", json=SMALL | {"num_frames": 9})
                    request_id = answer.json()["request_id"]
                    assert isinstance(await outcome(services.store, request_id), Success)
                    workers_of[endpoint] = (await http.get(f"/api/requests/{request_id}")).json()["worker"]
            stop.set()
            await serving
    host = socket.gethostname()
    assert list(workers_of.values()) == [f"{host}-cpu", f"{host}-{other}-cpu"]


@pytest.mark.slow
async def test_a_process_of_workers_makes_videos_and_answers_only_for_itself(tmp_path: Path) -> None:
    stop = asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            open_services(settings(tmp_path), url) as services,
            httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False) as http,
        ):
            store = services.store
            request = await store.queue.submit(NewRequest(endpoint=ENDPOINT, key_id="key-1", input=SMALL, seed=3))
            serving = asyncio.create_task(serve_workers(services, listener, FAKE, stop))
            assert isinstance(await outcome(store, request.id), Success)
            assert (await http.get("/health/ready")).json() == {"status": "ok"}
            assert "keyreel_finished_total" in (await http.get("/metrics")).text
            assert (await http.post(f"/run/{ENDPOINT}", json=SMALL)).status_code == 404, "the API is on gateways"
            stop.set()
            await serving
            assert await store.workers.alive() == [], "a drained worker leaves the list"


@pytest.mark.slow
@pytest.mark.parametrize("run", [serve, serve_workers])
async def test_a_model_that_cannot_be_loaded_ends_the_process(
    tmp_path: Path, run: Callable[..., Awaitable[None]]
) -> None:
    missing = [replace(FAKE[0], model="missing")]
    with listen("127.0.0.1", 0) as listener:
        async with open_services(settings(tmp_path), "http://keyreel.example") as services, asyncio.timeout(PATIENCE):
            with pytest.RaisesGroup(pytest.RaisesExc(ModelError, match="There is no model 'missing'")):
                await run(services, listener, missing, asyncio.Event())


@pytest.mark.skipif(libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_freed_memory_goes_back_to_the_system() -> None:
    """Pieces of this size stay with glibc as long as a later one is in use."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()

    pieces = [b"x" * 100_000 for _ in range(1000)]
    used = resident()
    del pieces[:-1]
    return_freed_memory()
    assert resident() < used - 80_000_000
    assert pieces
