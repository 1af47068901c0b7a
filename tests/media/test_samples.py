from pathlib import Path

import numpy as np
import pytest

from keyreel.media.mp4 import Mp4Writer
from keyreel.media.samples import evenly_spaced, sample_frames
from keyreel.video.canvas import Size


@pytest.mark.parametrize(
    ("total", "count", "numbers"),
    [(1, 16, [0]), (9, 16, [*range(9)]), (9, 3, [0, 4, 8]), (161, 2, [0, 160]), (161, 5, [0, 40, 80, 120, 160])],
)
def test_samples_are_spread_from_the_first_to_the_last(total: int, count: int, numbers: list[int]) -> None:
    assert evenly_spaced(total, count) == numbers


def test_sampled_frames_equal_those_of_the_video(tmp_path: Path) -> None:
    frames = np.stack([np.full((64, 96, 3), 20 * number, np.uint8) for number in range(9)])
    with Mp4Writer(tmp_path / "video.mp4", Size(96, 64), 25, {}) as writer:
        writer.write(frames)
    samples = sample_frames(tmp_path / "video.mp4", 3)
    assert samples.shape == (3, 64, 96, 3)
    assert np.abs(samples.astype(int) - frames[[0, 4, 8]]).max() < 8
