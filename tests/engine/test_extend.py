"""fal's `extend` endpoints on the demo model: the new video begins with the clip's last frames."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import keyreel
from keyreel.engine.autoencoder import decode, encode
from keyreel.engine.models import Model, load_model
from keyreel.fal.endpoints import ENDPOINTS
from tests.media.videos import write_video

SIZE = 480
FRAMES, OVERLAP = 17, 9
TOLERANCE = 2.0
"""Decibels by which frames may be worse than after the autoencoder alone: denoising and H.264 cost something."""

pytestmark = pytest.mark.slow
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model("demo", "cpu", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red disc that moves to the right on blue, for 20 frames."""
    y, x = np.mgrid[:SIZE, :SIZE]
    discs = [(x - 120 - 12 * index) ** 2 + (y - 240) ** 2 < 80**2 for index in range(20)]
    frames = [np.where(disc[..., None], (220, 40, 40), (40, 60, 200)).astype(np.uint8) for disc in discs]
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", frames, options={"crf": "8"})


def extended(demo: Model, clip: Path, out: Path) -> Pixels:
    """Returns the frames of the clip's extension to 17 frames."""
    request = ENDPOINTS["fal-ai/ltx-video-13b-dev/extend"].read(
        {
            "prompt": "a red circle moving from left to right on a blue background",
            "resolution": "480p",
            "num_frames": FRAMES,
            "first_pass_num_inference_steps": 3,
            "constant_rate_factor": 0,
            "seed": 3,
            "video": {"video_url": str(clip)},
        }
    )
    keyreel.generate(request, model=demo, out=out)
    return read(out)


def read(path: Path) -> Pixels:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def psnr(one: Pixels, other: Pixels) -> float:
    error = float(np.mean((one.astype(float) - other.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / error))


def through_autoencoder(model: Model, frames: Pixels) -> Pixels:
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.inference_mode():
        decoded = torch.cat(list(decode(model.vae, encode(model.vae, video), 0.05)))
    return ((decoded.permute(0, 2, 3, 1) + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).numpy()


def test_a_video_begins_with_the_clips_last_frames(demo: Model, clip: Path, tmp_path: Path) -> None:
    video, last = extended(demo, clip, tmp_path / "video.mp4"), read(clip)[-OVERLAP:]
    inside = last[:, :448, :448]  # a whole number of the demo model's cells
    limit = psnr(through_autoencoder(demo, inside), inside)
    assert psnr(video[:OVERLAP], last) > limit - TOLERANCE
    assert psnr(video[:OVERLAP], read(clip)[:OVERLAP]) < limit - 4 * TOLERANCE  # the first ones are others
    assert psnr(video[OVERLAP:], np.repeat(last[-1:], FRAMES - OVERLAP, 0)) < limit - TOLERANCE  # and it goes on
