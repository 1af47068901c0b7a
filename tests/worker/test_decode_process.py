from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.worker.conftest import Bench, Gate
from tests.worker.fake_decode_process import BOMB, DOOMED, FLOOD, ONCE
from tests.worker.site import Site, picture

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.slow
async def test_a_lora_is_refused_while_the_device_is_busy(
    shared_bench: Bench, gate: Gate, site: Site, tmp_path: Path
) -> None:
    save_file({"transformer.other.lora_A.weight": np.zeros((4, 16), np.float32)}, tmp_path / "lora.safetensors")
    url = site.add("lora.safetensors", (tmp_path / "lora.safetensors").read_bytes())
    busy = await shared_bench.submit(gate.prompt)
    failure = await shared_bench.failure(await shared_bench.submit(loras=[{"path": url}]))
    assert failure.type == "lora_load_error"
    assert "lora.safetensors" in failure.message
    gate.open(2)
    await shared_bench.output(busy)


@pytest.mark.slow
async def test_a_file_that_crashes_the_decoder_fails_only_its_own_request(shared_bench: Bench, site: Site) -> None:
    hostile = await shared_bench.submit(images=[{"image_url": site.add("bomb.png", BOMB)}])
    other = await shared_bench.submit(images=[{"image_url": site.add("fine.png", picture())}])
    failure = await shared_bench.failure(hostile)
    await shared_bench.output(other)
    assert failure.type == "file_decode_error"
    assert (await shared_bench.completed(hostile)).attempt == 1


@pytest.mark.slow
async def test_a_file_is_not_blamed_for_one_crash(shared_bench: Bench, site: Site) -> None:
    request = await shared_bench.submit(images=[{"image_url": site.add("once.png", ONCE)}])
    await shared_bench.output(request)
    assert (await shared_bench.completed(request)).attempt == 1


@pytest.mark.slow
async def test_a_request_without_files_is_not_blamed_for_a_crash(shared_bench: Bench) -> None:
    failure = await shared_bench.failure(await shared_bench.submit(DOOMED, retry=False))
    assert failure.type == "runner_server_error"
    assert "decode process" in failure.message


@pytest.mark.slow
async def test_a_file_that_needs_too_much_memory_is_refused(shared_bench: Bench, site: Site) -> None:
    request = await shared_bench.submit(images=[{"image_url": site.add("flood.png", FLOOD)}])
    failure = await shared_bench.failure(request)
    assert "more memory" in failure.message
