"""Decodes real local files into a job."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keyreel.fal.schema import VideoCondition, parse_request
from keyreel.inputs.decode import decode, taken_frames
from keyreel.inputs.fetch import Fetcher
from keyreel.inputs.sources import fetch_inputs
from keyreel.media.clips import ClipInfo
from keyreel.media.limits import Limits
from keyreel.net.addresses import AddressPolicy
from keyreel.settings import Settings
from keyreel.video.canvas import Grid, Size
from keyreel.video.job import Job
from keyreel.video.recipes import TwoPasses
from tests.media.videos import ramp, write_video

GRID = Grid(spatial=32, temporal=8)
SMALL = {"prompt": "x", "resolution": "480p", "aspect_ratio": "1:1", "number_of_frames": 17}


async def make_job(folder: Path, **fields: Any) -> Job:
    settings, request = Settings(tone_map=0.3), parse_request(SMALL | fields)
    limits = Limits.from_settings(settings)
    async with Fetcher(folder / "cache", AddressPolicy.everything(), 1, local_base=folder) as fetcher:
        files = await fetch_inputs(request, fetcher, limits)
    return (await decode(request, files, GRID, limits, settings.sampling("multiscale"))).job


@pytest.mark.parametrize(
    ("fields", "frames"),
    [
        ({}, tuple(range(50))),
        ({"max_num_frames": 9}, tuple(range(9))),
        ({"reverse": True}, tuple(range(49, -1, -1))),
        ({"reverse": True, "max_num_frames": 3}, (2, 1, 0)),
        ({"target_fps": 12.5}, tuple(range(0, 50, 2))),
        ({"target_fps": 50, "max_num_frames": 4}, (0, 0, 1, 1)),
        ({"max_num_frames": 1441}, tuple(range(50))),
        ({"skip_frames": 41}, tuple(range(41, 50))),
        ({"skip_frames": 10, "max_num_frames": 3, "reverse": True}, (12, 11, 10)),
        ({"skip_frames": 20, "target_fps": 12.5}, tuple(range(40, 50, 2))),
        ({"skip_frames": 50}, ()),
        ({"skip_frames": 50, "from_end": True}, ()),
        ({"from_end": True}, tuple(range(50))),
        ({"from_end": True, "max_num_frames": 3}, (47, 48, 49)),
        ({"from_end": True, "max_num_frames": 3, "reverse": True}, (2, 1, 0)),
        ({"from_end": True, "max_num_frames": 3, "skip_frames": 48}, (48, 49)),
    ],
)
def test_frames_of_a_clip_are_selected(fields: dict[str, Any], frames: tuple[int, ...]) -> None:
    """The clip has 50 frames in two seconds."""
    info = ClipInfo(Size(64, 48), 50, 2.0)
    assert taken_frames(info, VideoCondition(video_url="a", **fields)) == frames


async def test_reversed_clip_has_its_frames_in_reverse_order(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramp(20))
    clip = {"video_url": "a.mp4", "max_num_frames": 9}
    forwards, backwards = [
        (await make_job(tmp_path, videos=[clip | {"reverse": reverse}])).conditions[0] for reverse in (False, True)
    ]
    assert np.array_equal(forwards.pixels, backwards.pixels[::-1])
    assert len(forwards.pixels) == 9


async def test_a_clip_that_does_not_fit_keeps_the_end_that_was_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", ramp(20))
    clip = {"video_url": "a.mp4"}
    first, last = [
        (await make_job(tmp_path, number_of_frames=33, videos=[clip | {"from_end": from_end}])).conditions[0]
        for from_end in (False, True)
    ]
    assert len(first.pixels) == len(last.pixels) == 17
    assert np.array_equal(first.pixels[3:], last.pixels[:-3])
    assert last.pixels[-1].mean() > first.pixels[-1].mean() + 30


async def test_request_overrides_the_sampling_settings(tmp_path: Path) -> None:
    passes = {"first_steps": 4, "first_skip_final": 1, "second_steps": 5, "second_skip_initial": 2}
    requested = await make_job(tmp_path, passes=passes, tone_map=0.0, guidance_scale=5)
    assert (requested.passes, requested.sampling.tone_map) == (TwoPasses(4, 1, 5, 2), 0.0)
    assert requested.sampling.guidance_scale == 5
    default = await make_job(tmp_path)
    assert (default.passes, default.sampling.tone_map, default.sampling.guidance_scale) == (None, 0.3, 3)


async def test_constant_rate_factor_compresses_pictures(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 480, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    images = [{"image_url": "a.png"}]
    plain = await make_job(tmp_path, images=images)
    assert np.array_equal(plain.conditions[0].pixels[0], noise)
    rough = (await make_job(tmp_path, images=images, constant_rate_factor=40)).conditions[0].pixels
    assert rough.shape == (1, 480, 480, 3)
    assert np.abs(rough[0].astype(int) - noise).mean() > 10


async def test_constant_rate_factor_compresses_each_frame_of_a_clip(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 480, 480, 3), np.uint8)
    write_video(tmp_path / "a.mp4", list(noise))
    fine, rough = [
        (await make_job(tmp_path, videos=[{"video_url": "a.mp4"}], constant_rate_factor=factor)).conditions[0].pixels
        for factor in (0, 40)
    ]
    assert rough.shape == fine.shape == noise.shape
    assert (np.abs(rough.astype(int) - fine).mean((1, 2, 3)) > 10).all()


async def test_the_focus_decides_what_is_cut_off(tmp_path: Path) -> None:
    wide = np.zeros((480, 960, 3), np.uint8)
    wide[:, 480:] = 255
    Image.fromarray(wide).save(tmp_path / "a.png")
    write_video(tmp_path / "a.mp4", [wide] * 9)
    images = [{"image_url": "a.png", "focus_x": x, "start_frame_number": frame} for frame, x in ((0, 0), (1, 1))]
    videos = [{"video_url": "a.mp4", "focus_x": 1, "start_frame_number": 8}]
    conditions = (await make_job(tmp_path, images=images, videos=videos, aspect_ratio="1:1")).conditions
    assert [round(each.pixels.mean()) for each in conditions] == [0, 255, 255]
