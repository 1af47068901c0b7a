import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keyreel.errors import RequestError
from keyreel.store.records import Status
from keyreel.video.events import Stage
from keyreel.worker.attempt import Attempt
from keyreel.worker.previews import Previews, encode_strip
from keyreel.worker.spool import read_pixels, write_preview
from tests.worker.conftest import Bench, Gate


def preview_of(status: Status) -> dict[str, object] | None:
    return (status.progress or {}).get("preview")


@pytest.mark.slow
async def test_the_newest_preview_is_published_during_the_run(bench: Bench, gate: Gate, tmp_path: Path) -> None:
    async with bench.worker():
        request_id = await bench.submit(f"preview {gate.prompt}", number_of_steps=3)
        gate.open()
        first = preview_of(await bench.wait_until(request_id, preview_of))
        assert first
        assert first["frames"] == 2
        gate.open()
        second = preview_of(await bench.wait_until(request_id, lambda status: preview_of(status) not in (None, first)))
        assert second
        file = bench.context.links.file_of(str(second["url"]).partition("?")[0])
        assert file
        assert file == bench.context.links.file_of(str(first["url"]).partition("?")[0])
        path = file.object
        assert path
        await bench.context.objects.download(path, tmp_path / "preview.jpg")
        with Image.open(tmp_path / "preview.jpg") as picture:
            assert picture.size == (8, 8)
            assert picture.getpixel((4, 2)) == pytest.approx((80, 80, 80), abs=2)
        gate.open()
        await bench.completed(request_id)
    assert await bench.context.objects.size(path) is None


async def test_a_preview_that_is_not_allowed_is_not_published(bench: Bench, tmp_path: Path) -> None:
    await bench.submit()
    lease = await bench.store.queue.claim("worker-1")
    assert lease
    attempt, checked = Attempt(bench.store, lease), asyncio.Event()

    async def check(pixels: Path) -> None:
        checked.set()
        if read_pixels(pixels).mean() > 100:
            raise RequestError.at((), "Too bright.", "content_policy_violation")

    attempt.report.record(Stage("denoise", 2))
    async with Previews(bench.context, attempt, check).publishing() as previews:
        previews.offer(bright := write_preview(np.full((2, 4, 8, 3), 200, np.uint8), tmp_path))
        await checked.wait()
        attempt.report.unsent()
        previews.offer(dark := write_preview(np.full((3, 4, 8, 3), 20, np.uint8), tmp_path))
        await attempt.report.changed.wait()
        progress, _ = attempt.report.unsent()
        assert progress
        assert progress["preview"]["frames"] == 3
        assert progress["preview"]["url"].endswith("?1")
    assert not bright.exists()
    assert not dark.exists()


def test_a_strip_shows_frames_one_below_the_other() -> None:
    pixels = np.zeros((3, 16, 24, 3), np.uint8)
    pixels[1] = 200
    with Image.open(io.BytesIO(encode_strip(pixels))) as picture:
        assert picture.size == (24, 48)
        assert [picture.getpixel((12, y))[0] > 100 for y in (8, 24, 40)] == [False, True, False]  # type: ignore[index]
