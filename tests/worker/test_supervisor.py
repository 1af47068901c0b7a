import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from keyreel.errors import ModelError
from keyreel.media.mp4 import read_metadata
from keyreel.objects import Objects
from keyreel.store import open_store
from keyreel.store.queue import LEASE
from keyreel.store.records import State, Status
from keyreel.worker.process import CHILD
from keyreel.worker.supervisor import supervise
from tests.store.conftest import Clock, wipe
from tests.worker.conftest import FAKE_CHILD, SEED, Bench, Gate, new_bench, steps_done
from tests.worker.site import open_site, picture


async def test_a_request_becomes_a_file(bench: Bench, checkpoint: Path, tmp_path: Path) -> None:
    """With the real model, twice: the same bytes."""
    copies = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    async with open_site() as site, bench.worker(model=str(checkpoint), child=CHILD):
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


async def test_a_poison_request_ends_after_its_attempts(bench: Bench) -> None:
    async with bench.worker():
        poison = await bench.submit("die")
        others = [await bench.submit() for _ in range(2)]
        for other in others:
            await bench.output(other)
        failure = await bench.failure(poison)
    assert failure.type == "runner_server_error"
    assert failure.message == "The process on the device was killed by signal 9"
    status = await bench.completed(poison)
    assert status.attempt == 3
    assert [line for line in await bench.log(poison) if line.startswith("Attempt")] == [
        f"Attempt {number} failed: {failure.message}" for number in (1, 2, 3)
    ]


async def test_the_machine_fails_and_others_go_on(bench: Bench) -> None:
    failures = {
        "fail": "RuntimeError: out of memory",
        "poison": "The process on the device lost its device: RuntimeError: an illegal memory access was encountered",
        "hang": "The process on the device gave no sign of life for 1 s",
    }
    async with bench.worker(patience=1.0):
        requests = {prompt: await bench.submit(prompt, retry=False) for prompt in failures}
        other = await bench.submit()
        assert {prompt: (await bench.failure(request)).message for prompt, request in requests.items()} == failures
        await bench.output(other)


async def test_a_draining_worker_finishes_one_and_hands_back_the_other(bench: Bench, gate: Gate) -> None:
    stop = asyncio.Event()
    async with bench.worker(stop=stop):
        running, waiting = await bench.submit(gate.prompt), await bench.submit()
        await bench.until(waiting, lambda status: status.log_lines)
        (worker,) = await bench.store.workers.alive()
        assert (worker.name, worker.model, worker.device, worker.ready) == ("worker-1", "fake", "fake:0", True)
        stop.set()
        handed_back = await bench.until(waiting, lambda status: status.state is State.IN_QUEUE)
        assert handed_back.attempt == 1
        gate.open(2)
        await bench.output(running)
    assert (await bench.until(waiting, lambda _: True)).state is State.IN_QUEUE
    assert not await bench.store.workers.alive()


async def test_without_time_a_draining_worker_hands_back_everything(bench: Bench, gate: Gate) -> None:
    stop = asyncio.Event()
    async with bench.worker(stop=stop, grace=0.0):
        running = await bench.submit(gate.prompt, number_of_steps=50)
        gate.open()
        await bench.at_step(running, 1)
        stop.set()
        for step in (2, 3, 4):  # each is seen in the store before the next: the order to stop overtakes them
            gate.open()
            await bench.until(running, partial(is_waiting_or_at, step))
        assert (await bench.until(running, lambda _: True)).state is State.IN_QUEUE


def is_waiting_or_at(step: int, status: Status) -> bool:
    return status.state is State.IN_QUEUE or steps_done(status) >= step


async def test_a_model_that_cannot_be_loaded_is_told(bench: Bench) -> None:
    with pytest.raises(ModelError, match="There is no model 'missing'"):
        await supervise(bench.context, model="missing", device=None, stop=asyncio.Event(), child=FAKE_CHILD)


class GatedObjects(Objects):
    """Keeps a video only when the test lets it."""

    arrived = asyncio.Event()
    gate = asyncio.Event()

    async def put(self, path: str, source: Path | bytes | AsyncIterator[bytes]) -> int:
        self.arrived.set()
        await self.gate.wait()
        return await super().put(path, source)


@pytest.fixture
def gated_objects(bench: Bench) -> GatedObjects:
    GatedObjects.arrived, GatedObjects.gate = asyncio.Event(), asyncio.Event()
    return GatedObjects(bench.context.objects.store)


async def test_a_video_that_is_made_is_not_cancelled(bench: Bench, gated_objects: GatedObjects) -> None:
    async with bench.worker(objects=gated_objects):
        request = await bench.submit()
        await gated_objects.arrived.wait()
        await bench.store.queue.cancel(request)
        following = await bench.submit()
        await bench.until(following, lambda status: status.log_lines >= 3)  # the device is free meanwhile
        gated_objects.gate.set()
        await bench.output(request)
        await bench.output(following)


async def test_a_lost_request_leaves_nothing(tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'keyreel.db'}", Clock.now) as store:
        await wipe(store.database)
        bench, clock = new_bench(store, tmp_path), Clock(store.database)
        gate = Gate(tmp_path / "gate")
        async with bench.worker():
            request = await bench.submit(gate.prompt, number_of_steps=2)
            gate.open()
            await bench.at_step(request, 1)
            await clock.advance(LEASE)
            assert (await store.queue.reap()).released == 1
            gate.open(3)  # one step, with which the first attempt ends in vain, and two for the second
            await bench.output(request)
        assert (await bench.completed(request)).attempt == 2
    (folder,) = (tmp_path / "objects" / "out").iterdir()
    assert [path.name for path in folder.iterdir()] == ["2"]
