import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyreel.files.links import Access, access
from keyreel.files.objects import Objects
from keyreel.store.records import NewRequest
from tests.worker.conftest import ENDPOINT, SEED, SMALL, Bench


class GatedObjects(Objects):
    """Stores a video only when the test opens the gate."""

    arrived = asyncio.Event()
    gate = asyncio.Event()

    async def put(self, path: str, source: Path | bytes | AsyncIterator[bytes], content_type: str | None = None) -> int:
        self.arrived.set()
        await self.gate.wait()
        return await super().put(path, source, content_type)


@pytest.fixture
def gated_objects(bench: Bench) -> GatedObjects:
    GatedObjects.arrived, GatedObjects.gate = asyncio.Event(), asyncio.Event()
    return GatedObjects(bench.context.objects.store)


@pytest.mark.slow
async def test_a_finished_video_is_delivered_even_after_a_cancel(bench: Bench, gated_objects: GatedObjects) -> None:
    async with bench.worker(objects=gated_objects):
        request = await bench.submit()
        await gated_objects.arrived.wait()
        await bench.store.queue.cancel(request)
        following = await bench.submit()
        await bench.wait_until(following, lambda status: status.log_lines >= 3)  # the device is free meanwhile
        gated_objects.gate.set()
        await bench.output(request)
        await bench.output(following)


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_a_video_has_the_lifetime_and_the_acl_of_its_request(shared_bench: Bench) -> None:
    acl = {"default": "forbid"}
    request = NewRequest(
        endpoint=ENDPOINT, key_id="key", input=SMALL, seed=SEED, output_lifetime=3600.0, output_acl=acl
    )
    output = await shared_bench.output((await shared_bench.store.queue.submit(request)).id)
    ref = shared_bench.context.links.file_of(output["video"]["url"])
    assert ref
    file = await shared_bench.store.files.get(ref.id)
    assert file
    assert file.expires_at
    assert 3600 <= file.expires_at - file.created < 3700
    assert (file.acl, file.size) == (acl, output["video"]["file_size"])
    assert access(file, None) is Access.FORBID
