from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from keyreel.canvas import Size
from keyreel.engine.models import Model
from keyreel.engine.pipeline import run
from keyreel.events import Frames, Notice, Stage, Step
from keyreel.job import AdapterFile, Condition, Job, Pixels, Sampling

JOB = Job(
    prompt="a red circle moves right",
    negative_prompt="dark",
    size=Size(96, 80),
    frames=12,
    steps=3,
    frame_rate=25,
    seed=1,
)


def video(model: Model, job: Job) -> Pixels:
    return np.concatenate([event.pixels for event in run(model, job) if isinstance(event, Frames)])


def picture(seed: int, frames: int = 1) -> Pixels:
    shape = (frames, JOB.size.height, JOB.size.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def plain(model: Model) -> Pixels:
    return video(model, JOB)


@pytest.fixture
def adapter(tmp_path: Path) -> AdapterFile:
    path = tmp_path / "style.safetensors"
    generator = torch.Generator().manual_seed(9)
    weights = {
        f"transformer.transformer_blocks.0.attn1.to_q.lora_{side}.weight": torch.randn(shape, generator=generator)
        for side, shape in (("A", (4, 32)), ("B", (32, 4)))
    }
    save_file(weights, path)
    return AdapterFile(path, path.name, "0" * 64, 1.0, ("loras", 0, "path"))


def test_a_video_has_the_size_and_the_frames_that_were_asked_for(plain: Pixels) -> None:
    assert plain.shape == (12, 80, 96, 3)
    assert plain.std() > 5


def test_the_same_job_gives_the_same_video(model: Model, plain: Pixels) -> None:
    assert np.array_equal(video(model, JOB), plain)


def test_a_run_with_a_lora_leaves_no_trace(model: Model, plain: Pixels, adapter: AdapterFile) -> None:
    styled = video(model, replace(JOB, adapters=(adapter,)))
    assert not np.array_equal(styled, plain)
    assert np.array_equal(video(model, JOB), plain)


def test_a_run_that_is_stopped_leaves_no_trace(model: Model, plain: Pixels, adapter: AdapterFile) -> None:
    events = run(model, replace(JOB, adapters=(adapter,)))
    for event in events:
        if event == Step(1):
            break
    events.close()
    assert np.array_equal(video(model, JOB), plain)


@pytest.mark.parametrize(
    "changed",
    [
        replace(JOB, seed=2),
        replace(JOB, prompt="a green square"),
        replace(JOB, negative_prompt="light"),
        replace(JOB, frame_rate=10),
        replace(JOB, steps=4),
        replace(JOB, conditions=(Condition(picture(1), 0, 1.0),)),
        replace(JOB, conditions=(Condition(picture(1), 7, 1.0),)),
        replace(JOB, sampling=Sampling(guidance_scale=1.0)),
        replace(JOB, sampling=Sampling(decode_noise_scale=0.5)),
    ],
    ids=["seed", "prompt", "negative", "rate", "steps", "image@0", "image@7", "guidance", "decode noise"],
)
def test_every_field_matters(model: Model, plain: Pixels, changed: Job) -> None:
    assert not np.array_equal(video(model, changed), plain)


def test_reversed_is_the_same_video_backwards(model: Model, plain: Pixels) -> None:
    assert np.array_equal(video(model, replace(JOB, reverse=True)), plain[::-1])


def test_a_longer_video_is_cut_from_what_is_drawn(model: Model, plain: Pixels) -> None:
    """12 and 17 frames are both drawn as 17."""
    assert np.array_equal(video(model, replace(JOB, frames=17))[:12], plain)


def test_events_tell_the_story(model: Model) -> None:
    job = replace(JOB, conditions=(Condition(picture(1), 0, 1.0), Condition(picture(2, 9), 8, 0.5)), frames=17)
    events = [event for event in run(model, job) if not isinstance(event, Frames)]
    assert events == [
        Stage("conditions", 2),
        Step(1),
        Step(2),
        Stage("denoise", 3),
        Step(1),
        Step(2),
        Step(3),
        Stage("decode", 17),
        Step(8),
        Step(16),
        Step(17),
    ]


def test_a_prompt_that_is_cut_is_said(model: Model) -> None:
    events = list(run(model, replace(JOB, prompt="red " * 300, steps=1)))
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice("The prompt is longer than the model reads; what follows its first 256 tokens is ignored.")
    ]
