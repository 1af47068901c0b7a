from pathlib import Path

import numpy as np

from keyreel.video.canvas import Size
from keyreel.video.job import Condition, Job, Prepared
from keyreel.worker.messages import LENGTH, decode, encode
from keyreel.worker.spool import pixels_folder, read_pixels, spool, unspool, write_preview


def pixels(frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 4, 6, 3), dtype=np.uint8)


def test_a_job_that_is_spooled_and_sent_comes_back_whole(tmp_path: Path) -> None:
    conditions = (Condition(pixels(1, 1), 0, 1.0), Condition(pixels(9, 2), 8, 0.5))
    job = Job("a circle", "", Size(6, 4), 17, 2, 25, 7, conditions=conditions)
    pixels_folder(tmp_path).mkdir()
    spooled = spool(Prepared(job, {"images.0": "a" * 64}), tmp_path)
    assert spooled.prepared.job.conditions == ()
    assert decode(encode(spooled)[LENGTH.size :]) == spooled
    found = unspool(spooled, tmp_path)
    assert [(condition.start, condition.strength) for condition in found.conditions] == [(0, 1.0), (8, 0.5)]
    for ours, theirs in zip(conditions, found.conditions, strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
    assert (found.prompt, found.size, found.frames, found.seed) == ("a circle", Size(6, 4), 17, 7)


def test_a_preview_does_not_overwrite_the_previous_one(tmp_path: Path) -> None:
    first, second = (write_preview(pixels(2, seed), tmp_path) for seed in (1, 2))
    assert np.array_equal(read_pixels(first), pixels(2, 1))
    assert np.array_equal(read_pixels(second), pixels(2, 2))
