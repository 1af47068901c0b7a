import asyncio
import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from safetensors.numpy import save
from tenacity import wait_none

from keyreel.fal.outcomes import Success
from keyreel.files.objects import Objects, ObjectStoreError, Stat
from keyreel.store import open_store
from keyreel.store.records import State, Status
from keyreel.store.transitions import LEASE
from keyreel.worker import retries, session
from tests.spans import children, recorder
from tests.store.conftest import Clock, wipe
from tests.worker.conftest import PATIENCE, Bench, Gate, new_bench, steps_done
from tests.worker.faces import PORTRAIT
from tests.worker.site import Site, open_site, picture

module_loop = pytest.mark.asyncio(loop_scope="module")
"""For tests with `shared_bench`, whose worker runs in the event loop of the module."""


@pytest.mark.slow
@module_loop
async def test_the_next_request_is_prepared_while_the_device_is_busy(
    shared_bench: Bench, gate: Gate, site: Site
) -> None:
    busy = await shared_bench.submit(gate.prompt, number_of_steps=2)
    gate.open()
    await shared_bench.wait_for_step(busy, 1)
    following = await shared_bench.submit(images=[{"image_url": site.add("next.png", picture())}])
    third = await shared_bench.submit()
    await site.asked.wait()
    waiting = await shared_bench.wait_until(following, lambda status: status.log_lines >= 2)
    assert waiting.state is State.IN_PROGRESS
    assert await shared_bench.log(following) == ["Fetching inputs", "Waiting for the device"]
    assert (await shared_bench.wait_until(third, lambda _: True)).state is State.IN_QUEUE  # only one waits
    gate.open()
    for request in (busy, following, third):
        await shared_bench.output(request)


class AbsentObjects(Objects):
    """A store that does not answer until `back` is set. `probed` is set when a worker has asked for it five times."""

    back = asyncio.Event()
    probed = asyncio.Event()
    probes = 0

    async def stat(self, path: str) -> Stat | None:
        type(self).probes += 1
        if self.probes == 5:
            self.probed.set()
        self._check()
        return await super().stat(path)

    async def put(self, path: str, content: Any, content_type: str | None = None) -> int:
        self._check()
        return await super().put(path, content, content_type)

    def _check(self) -> None:
        if not self.back.is_set():
            raise ObjectStoreError("unreachable")


@pytest.mark.slow
async def test_an_outage_of_the_object_store_costs_one_attempt_at_most(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "PAUSES", wait_none())
    monkeypatch.setattr(session, "POLL_INTERVAL", 0.1)
    async with bench.worker(objects=AbsentObjects(bench.context.objects.store)), asyncio.timeout(PATIENCE):
        requests = [await bench.submit(enable_safety_checker=False) for _ in range(3)]
        await AbsentObjects.probed.wait()
        states = [await bench.wait_until(request, lambda _: True) for request in requests]
        assert all(status.attempt <= 1 and status.state is not State.COMPLETED for status in states)
        AbsentObjects.back.set()
        for request in requests:
            await bench.output(request)
            assert (await bench.completed(request)).attempt <= 2


@pytest.mark.slow
async def test_pictures_and_loras_are_checked_and_decoded_before_the_device_is_free(bench: Bench, gate: Gate) -> None:
    async with open_site() as site, bench.worker():
        fits, other = (site.add(f"{width}.safetensors", lora(width)) for width in (16, 8))
        busy = await bench.submit(gate.prompt, number_of_steps=2)
        gate.open()
        await bench.wait_for_step(busy, 1)
        unfit = await bench.submit(loras=[{"path": other}])
        assert (await bench.failure(unfit)).type == "lora_load_error"
        following = await bench.submit(images=[{"image_url": site.add("a.png", picture())}], loras=[{"path": fits}])
        await bench.wait_until(following, is_waiting)
        assert list(bench.context.spool.rglob("pixels/0.npy"))
        assert hashlib.sha256(lora(16)).hexdigest() in {path.name for path in bench.context.spool.rglob("inputs/*")}
        assert (await bench.wait_until(busy, lambda _: True)).state is State.IN_PROGRESS
        gate.open()
        for request in (busy, following):
            await bench.output(request)


def lora(width: int) -> bytes:
    """Returns a LoRA for a linear layer `proj_in` with 32 outputs and `width` inputs."""
    shapes = {"lora_A": (4, width), "lora_B": (32, 4)}
    weights = {f"transformer.proj_in.{side}.weight": np.ones(shape, np.float32) for side, shape in shapes.items()}
    content: bytes = save(weights)
    return content


@pytest.mark.slow
async def test_an_idle_worker_does_not_wait_for_the_device_of_a_busy_one(
    each_bench: Bench, gate: Gate, tmp_path: Path
) -> None:
    async with each_bench.worker():
        busy = await each_bench.submit(gate.prompt)
        await each_bench.wait_until(busy, lambda status: status.log_lines)
        held_up = await each_bench.submit()
        await each_bench.wait_until(held_up, is_waiting)
        async with each_bench.worker(name="worker-2", spool=tmp_path / "spool-2"):
            status = await each_bench.completed(held_up)
            assert isinstance(status.outcome, Success)
            assert status.attempt == 2
            gate.open(2)
            await each_bench.output(busy)


def is_waiting(status: Status) -> bool:
    return status.progress is not None and status.progress["stage"] == "wait"


@pytest.mark.slow
@module_loop
async def test_a_cancelled_request_frees_the_device_at_the_next_step(shared_bench: Bench, gate: Gate) -> None:
    cancelled = await shared_bench.submit(gate.prompt, number_of_steps=50)
    other = await shared_bench.submit()
    gate.open()
    await shared_bench.wait_for_step(cancelled, 1)
    await shared_bench.store.queue.cancel(cancelled)
    for step in (2, 3, 4):  # these steps take no time, so a few may pass before the order to stop arrives
        gate.open()
        await shared_bench.wait_until(cancelled, partial(is_completed_or_at, step))
    assert (await shared_bench.failure(cancelled)).type == "client_cancelled"
    await shared_bench.output(other)


@pytest.mark.slow
@module_loop
async def test_a_request_can_be_cancelled_while_it_waits_for_the_device(shared_bench: Bench, gate: Gate) -> None:
    busy = await shared_bench.submit(gate.prompt)
    waiting = await shared_bench.submit()
    await shared_bench.wait_until(waiting, lambda status: status.log_lines)
    await shared_bench.store.queue.cancel(waiting)
    assert (await shared_bench.failure(waiting)).type == "client_cancelled"
    gate.open(2)
    await shared_bench.output(busy)


@pytest.mark.slow
@module_loop
async def test_requests_leave_no_tasks_and_no_open_files(shared_bench: Bench) -> None:
    await shared_bench.output(await shared_bench.submit())
    before = await _tasks_and_open_files()
    for request in [await shared_bench.submit() for _ in range(5)]:
        await shared_bench.output(request)
    tasks, files = await _tasks_and_open_files()
    await shared_bench.output(await shared_bench.submit())
    assert tasks <= before[0] + 2
    assert files <= before[1] + 4


@pytest.mark.slow
@module_loop
async def test_each_attempt_is_a_span_with_its_stages(shared_bench: Bench) -> None:
    recorder().clear()
    trace = "0af7651916cd43dd8448eb211c80319c"
    await shared_bench.output(await shared_bench.submit(traceparent=f"00-{trace}-b7ad6b7169203331-01"))
    failed = await shared_bench.submit("fail", retry=False)
    await shared_bench.failure(failed)
    await shared_bench.output(await shared_bench.submit())  # the spans of the others have ended before
    spans = [span for span in recorder().get_finished_spans() if span.context]
    queue, attempt = (next(span for span in spans if span.name == name) for name in ("queue", "attempt"))
    assert {f"{span.context.trace_id:032x}" for span in (queue, attempt) if span.context} == {trace}
    assert children(spans, attempt)[-2:] == ["denoise", "decode"]
    reasons = {span.attributes["keyreel.request_id"]: span.status.description for span in spans if span.attributes}
    assert reasons[failed] == "runner_server_error"


def is_completed_or_at(step: int, status: Status) -> bool:
    return status.state is State.COMPLETED or steps_done(status) >= step


async def _tasks_and_open_files() -> tuple[int, int]:
    """Returns their numbers when they have not changed for a moment, so that the last request has ended."""
    counts = -1, -1
    async with asyncio.timeout(PATIENCE):
        while (now := (len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir())))) != counts:
            counts = now
            await asyncio.sleep(0.2)
    return counts


@pytest.mark.slow
async def test_failures_of_the_engine_are_reported_and_later_requests_succeed(each_bench: Bench) -> None:
    failures = {
        "fail": "RuntimeError: out of memory",
        "poison": "The engine process lost its device: RuntimeError: an illegal memory access was encountered",
        "hang": "The engine process did not respond for 1 s",
    }
    async with each_bench.worker(patience=1.0):
        requests = {prompt: await each_bench.submit(prompt, retry=False) for prompt in failures}
        other = await each_bench.submit()
        assert {prompt: (await each_bench.failure(request)).message for prompt, request in requests.items()} == failures
        await each_bench.output(other)


@pytest.mark.slow
async def test_an_attempt_that_lost_its_lease_stores_no_video(new_url: str, tmp_path: Path) -> None:
    async with open_store(new_url, Clock.now) as store:
        await wipe(store.database)
        bench, clock = new_bench(store, tmp_path), Clock(store.database)
        gate = Gate(tmp_path / "gate")
        async with bench.worker():
            request = await bench.submit(gate.prompt, number_of_steps=2)
            gate.open()
            await bench.wait_for_step(request, 1)
            await clock.advance(LEASE)
            assert (await store.queue.reap()).released == 1
            gate.open(3)  # the last step of the first attempt, and both steps of the second
            await bench.output(request)
        assert (await bench.completed(request)).attempt == 2
    (folder,) = (tmp_path / "objects" / "out").iterdir()
    assert [path.name for path in folder.iterdir()] == ["2"]


@pytest.mark.slow
async def test_only_time_on_the_device_counts_as_used(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}", Clock.now) as store:
        await wipe(store.database)
        bench, clock = new_bench(store, tmp_path), Clock(store.database)
        gate = Gate(tmp_path / "gate")
        async with bench.worker():
            busy = await bench.submit(gate.prompt, number_of_steps=2)
            gate.open()
            await bench.wait_for_step(busy, 1)
            following = await bench.submit()
            await bench.wait_until(following, lambda status: status.log_lines)  # it waits for the device
            await clock.advance(10)
            gate.open()
            for request in (busy, following):
                await bench.output(request)
        (used,) = await store.usage.days(0, 100)
    assert (used.completed, used.device_seconds) == (2, 10)
    assert used.bytes > 0


@pytest.mark.slow
async def test_videos_are_signed(bench: Bench, tmp_path: Path) -> None:
    async with bench.worker(settings=bench.settings(provenance=True, data_dir=tmp_path / "data")):
        request = await bench.submit(images=[{"image_url": PORTRAIT}])
        await bench.video(request, tmp_path / "video.mp4")
    with (tmp_path / "video.mp4").open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        assert reader.get_validation_state() == "Valid"
        titles = [item["title"] for item in reader.get_active_manifest()["ingredients"]]
    assert titles == ["fake", "data:"]
    size = (await bench.output(request))["video"]["file_size"]
    assert size == (tmp_path / "video.mp4").stat().st_size
