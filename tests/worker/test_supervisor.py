import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from keyreel.errors import ModelError
from keyreel.files.disk import Disk
from keyreel.media.mp4 import read_metadata
from keyreel.store import Topic
from keyreel.store.database import Database
from keyreel.store.records import State, Status
from keyreel.worker import supervisor
from keyreel.worker.process import ENGINE_PROCESS
from keyreel.worker.supervisor import supervise
from tests.worker.conftest import (
    FAKE_DECODE_PROCESS,
    FAKE_ENGINE_PROCESS,
    FAKE_GUARD_PROCESS,
    PATIENCE,
    SEED,
    Bench,
    Gate,
    steps_done,
)
from tests.worker.faces import FACES
from tests.worker.processes import children
from tests.worker.site import open_site, picture


@pytest.mark.slow
async def test_the_real_engine_makes_the_same_video_twice(bench: Bench, checkpoint: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    async with open_site() as site, bench.worker(model=str(checkpoint), engine_process=ENGINE_PROCESS):
        images = [{"image_url": site.add("start.png", picture()) + "?token=SECRET"}]
        requests = [await bench.submit(images=images, number_of_steps=1) for _ in copies]
        videos = [await bench.video(request, copy) for request, copy in zip(requests, copies, strict=True)]
    assert videos[0] == videos[1]
    output = await bench.output(requests[0])
    assert output.keys() == {"prompt", "seed", "video"}
    assert (output["prompt"], output["seed"]) == ("a red circle", SEED)
    assert output["video"]["url"].startswith("http://keyreel.example/files/")
    assert output["video"] | {"url": ""} == {
        "url": "",
        "content_type": "video/mp4",
        "file_name": "keyreel-5.mp4",
        "file_size": len(videos[0]),
    }
    *stages, last = (line for line in await bench.log(requests[0]) if " of " not in line)
    assert stages == [
        "Fetching inputs",
        "Reading the prompt",
        "Encoding conditions, 1 step",
        "Denoising, 1 step",
        "Decoding, 9 frames",
    ]
    assert last.startswith("Finished after ")
    facts = json.loads(read_metadata(copies[0])["comment"])
    assert facts["model"]["name"] == checkpoint.name
    assert facts["request"]["seed"] == SEED
    assert facts["inputs"].keys() == {"images.0"}
    assert "SECRET" not in copies[0].read_bytes().decode("latin-1")


@pytest.mark.slow
async def test_a_request_that_kills_the_engine_fails_after_three_attempts(each_bench: Bench) -> None:
    async with each_bench.worker():
        deadly = await each_bench.submit("die")
        others = [await each_bench.submit() for _ in range(2)]
        for other in others:
            await each_bench.output(other)
        failure = await each_bench.failure(deadly)
    assert failure.type == "runner_server_error"
    assert failure.message == "The engine process was killed by signal 9"
    status = await each_bench.completed(deadly)
    assert status.attempt == 3
    assert [line for line in await each_bench.log(deadly) if line.startswith("Attempt")] == [
        f"Attempt {number} failed: {failure.message}" for number in (1, 2, 3)
    ]


@pytest.mark.slow
async def test_a_draining_worker_finishes_one_request_and_hands_back_the_other(each_bench: Bench, gate: Gate) -> None:
    stop = asyncio.Event()
    async with each_bench.worker(stop=stop):
        running, waiting = await each_bench.submit(gate.prompt), await each_bench.submit()
        await each_bench.wait_until(waiting, lambda status: status.log_lines)
        (worker,) = await each_bench.store.workers.alive()
        assert (worker.name, worker.model, worker.device, worker.ready) == ("worker-1", "fake", "fake:0", True)
        stop.set()
        handed_back = await each_bench.wait_until(waiting, lambda status: status.state is State.IN_QUEUE)
        assert handed_back.attempt == 1
        gate.open(2)
        await each_bench.output(running)
    assert (await each_bench.wait_until(waiting, lambda _: True)).state is State.IN_QUEUE
    assert not await each_bench.store.workers.alive()


@pytest.mark.slow
async def test_a_draining_worker_without_grace_hands_back_every_request(each_bench: Bench, gate: Gate) -> None:
    stop = asyncio.Event()
    async with each_bench.worker(stop=stop, grace=0.0):
        running = await each_bench.submit(gate.prompt, number_of_steps=50)
        gate.open()
        await each_bench.wait_for_step(running, 1)
        stop.set()
        for step in (2, 3, 4):  # one after the other, so that the order to stop arrives between them
            gate.open()
            await each_bench.wait_until(running, partial(is_waiting_or_at, step))
        assert (await each_bench.wait_until(running, lambda _: True)).state is State.IN_QUEUE


@asynccontextmanager
async def checking(bench: Bench, check: Gate, grace: float) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Yields a request whose finished video is being checked, and the event that stops the worker."""
    stop, settings = asyncio.Event(), bench.settings(**FACES)
    async with bench.worker(stop=stop, settings=settings, guard_process=FAKE_GUARD_PROCESS, grace=grace):
        request = await bench.submit(check.prompt.replace("gate=", "check="), enable_safety_checker=True)
        async with asyncio.timeout(PATIENCE):
            while (await bench.log(request)).count("Checking the content") < 2:
                await bench.store.database.changes.any.wait()
        yield request, stop


@pytest.mark.slow
async def test_a_draining_worker_gives_a_check_of_a_finished_video_its_grace(bench: Bench, gate: Gate) -> None:
    async with checking(bench, gate, grace=PATIENCE) as (request, stop):
        stop.set()
        gate.open()
        await bench.output(request)


@pytest.mark.slow
async def test_a_draining_worker_does_not_wait_longer_than_its_grace_for_a_check(bench: Bench, gate: Gate) -> None:
    async with checking(bench, gate, grace=0.0) as (request, stop):
        stop.set()
        status = await bench.wait_until(request, lambda status: status.state is not State.IN_PROGRESS)
        assert (status.state, status.attempt) == (State.IN_QUEUE, 1)


@pytest.mark.slow
async def test_a_request_can_be_cancelled_while_its_video_is_checked(bench: Bench, gate: Gate) -> None:
    async with checking(bench, gate, grace=PATIENCE) as (request, _):
        await bench.store.queue.cancel(request)
        assert (await bench.failure(request)).type == "client_cancelled"


def is_waiting_or_at(step: int, status: Status) -> bool:
    return status.state is State.IN_QUEUE or steps_done(status) >= step


@pytest.mark.slow
async def test_a_worker_that_starts_while_the_database_is_away_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_name, failures = Database.hold_name, [OSError("away"), OSError("away")]

    @asynccontextmanager
    async def flaky(database: Database, name: str) -> AsyncIterator[None]:
        if failures:
            raise failures.pop()
        async with hold_name(database, name):
            yield

    monkeypatch.setattr(Database, "hold_name", flaky)
    async with bench.worker():
        await bench.output(await bench.submit())
    assert not failures


@dataclass(frozen=True)
class FakeDisk(Disk):
    """A disk whose free bytes are the last of `levels`."""

    levels: list[int]

    @property
    def free(self) -> int:
        return self.levels[-1]


@pytest.mark.slow
async def test_a_worker_takes_nothing_while_its_disk_is_low(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "REPORT_INTERVAL", 0.1)
    disk = FakeDisk((tmp_path,), 2, [1])
    with capture_logs() as log:
        async with bench.worker(disk=disk):
            request = await bench.submit()
            async with asyncio.timeout(PATIENCE):
                while [(each.device, each.ready) for each in await bench.store.workers.alive()] != [("fake:0", False)]:
                    await asyncio.sleep(0.02)
                log.clear()
                while len(log) < 5:  # it reports, and has long looked into the queue
                    await asyncio.sleep(0.02)
            status = await bench.wait_until(request, lambda _: True)
            assert (status.state, status.attempt) == (State.IN_QUEUE, 0)
            disk.levels.append(2)
            await bench.output(request)
    assert {"event": "disk_low", "log_level": "warning", "folder": str(tmp_path), "free": 1, "floor": 2} in log


@pytest.mark.slow
async def test_a_worker_outlives_a_database_without_free_connections(
    each_bench: Bench, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = each_bench.store.database
    pools: list[Any] = [engine.sync_engine.pool for engine in (database._writer, database._reader)]
    for pool in pools:
        monkeypatch.setattr(pool, "_timeout", 0.05)
    monkeypatch.setattr(supervisor, "REPORT_INTERVAL", 0.1)
    expected = {"claim_failed", "heartbeat_failed", "presence_not_reported"}
    with capture_logs() as log:
        async with each_bench.worker(), AsyncExitStack() as stack:
            running = await each_bench.submit(gate.prompt, number_of_steps=2)
            gate.open()
            await each_bench.wait_for_step(running, 1)
            for pool, connections in zip(pools, (database._writer, database._reader), strict=True):
                for _ in range(pool.size()):
                    await stack.enter_async_context(connections.connect())
            async with asyncio.timeout(PATIENCE):
                while not expected <= {entry["event"] for entry in log}:
                    database.changes.announce(Topic.QUEUED)
                    await asyncio.sleep(0.02)
            await stack.aclose()
            gate.open()
            await each_bench.output(running)
            await each_bench.output(await each_bench.submit())
    assert all("exc_info" not in entry for entry in log if entry["event"] in expected), (
        "an outage is one line each time"
    )


@pytest.mark.slow
async def test_a_model_that_cannot_be_loaded_raises_an_error(bench: Bench) -> None:
    with pytest.raises(ModelError, match="There is no model 'missing'"):
        await supervise(
            bench.context, model="missing", device=None, stop=asyncio.Event(), engine_process=FAKE_ENGINE_PROCESS
        )


@pytest.mark.slow
async def test_a_checker_that_cannot_be_loaded_raises_an_error(bench: Bench, tmp_path: Path) -> None:
    context = replace(bench.context, settings=bench.settings(image_checker=str(tmp_path / "missing")))
    with pytest.raises(ModelError, match=r"KEYREEL_IMAGE_CHECKER: .* is neither"):
        async with asyncio.timeout(60):
            await supervise(
                context,
                model="fake",
                device="cpu",
                stop=asyncio.Event(),
                engine_process=FAKE_ENGINE_PROCESS,
                decode_process=FAKE_DECODE_PROCESS,
            )


@pytest.mark.slow
async def test_a_worker_can_be_stopped_while_its_checker_loads(bench: Bench, tmp_path: Path) -> None:
    """This guard process reports its start through a named pipe and then never becomes ready."""
    started = tmp_path / "started"
    os.mkfifo(started)
    slow = (sys.executable, "-c", f"open({str(started)!r}, 'w').close(); import signal; signal.pause()")
    stop = asyncio.Event()
    context = replace(bench.context, settings=bench.settings(**FACES))
    programs: dict[str, Any] = {
        "engine_process": FAKE_ENGINE_PROCESS,
        "decode_process": FAKE_DECODE_PROCESS,
        "guard_process": slow,
    }
    worker = asyncio.create_task(supervise(context, model="fake", device="cpu", stop=stop, **programs))
    await asyncio.to_thread(started.read_bytes)
    stop.set()
    async with asyncio.timeout(30):
        await worker
    assert not children(str(started))
