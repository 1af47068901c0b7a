"""Compares the two-pass recipe with diffusers: LTXConditionPipeline, LTXLatentUpsamplePipeline, LTXConditionPipeline.

With the same weights and the same noise, the whole engine up to the decoder must compute the same latents.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline, LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from torch.nn import functional

from keyreel.engine import noise
from keyreel.engine.models import Model
from keyreel.engine.pipeline import draw, encode_conditions
from keyreel.engine.schedule import noise_levels
from keyreel.video.canvas import Grid, Size, latent_shape
from keyreel.video.job import Job, Sampling
from keyreel.video.recipes import Guidance, Pass, Recipe, recipe_of
from tests.engine.stock import Pin, engine_noise, noise_in_diffusers_order, result_of

SIZE, FIRST, SECOND = Size(192, 96), Size(128, 64), Size(256, 128)
FRAMES, SEED, STEPS = 17, 5, 6
JOB = Job(
    prompt="a red circle moves right",
    negative_prompt="dark star",
    size=SIZE,
    frames=FRAMES,
    steps=STEPS,
    frame_rate=25,
    seed=SEED,
    sampling=Sampling(recipe="multiscale"),
)


@pytest.fixture(scope="module")
def pipeline(full_checkpoint: Path) -> Any:
    pipe = LTXConditionPipeline.from_pretrained(full_checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def guided(scale: float) -> Recipe:
    """Returns a recipe of 6 steps: the first 4 at the small size and the last 3 at the large one."""
    guidance = ((0.0, Guidance(scale)),)
    return Recipe((Pass(STEPS, guidance, skip_final=2), Pass(STEPS, guidance, skip_initial=3)))


CASES: dict[str, list[Pin]] = {
    "text only": [],
    "image@0": [Pin(0)],
    "image@5 at 0.7": [Pin(5, strength=0.7)],
    "clip@8": [Pin(8, 9)],
    "mix": [Pin(0, strength=0.5), Pin(FRAMES - 1)],
}
FAST = ("mix",)
PINS = [pytest.param(pins, id=name, marks=() if name in FAST else pytest.mark.slow) for name, pins in CASES.items()]


@pytest.mark.parametrize("pins", PINS)
@pytest.mark.parametrize("scale", [1.0, 3.0], ids=["plain", "guided"])
def test_latents_equal_diffusers_latents(
    full_model: Model, pipeline: Any, full_checkpoint: Path, pins: list[Pin], scale: float
) -> None:
    job = replace(JOB, conditions=tuple(pin.for_engine(SIZE) for pin in pins))
    ours = drawn(full_model, job, guided(scale))
    theirs = two_stock_passes(pipeline, full_checkpoint, pins, scale)
    assert ours.shape == (1, 16, 3, 4, 8)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_latents_are_equal_with_half_the_colour_matching(
    full_model: Model, pipeline: Any, full_checkpoint: Path
) -> None:
    job = replace(JOB, sampling=Sampling(recipe="multiscale", adain=0.5))
    theirs = two_stock_passes(pipeline, full_checkpoint, [], 1.0, adain=0.5)
    torch.testing.assert_close(drawn(full_model, job, guided(1.0)), theirs, rtol=0, atol=1e-4)


def test_the_distilled_recipe_gives_equal_latents(full_model: Model, pipeline: Any, full_checkpoint: Path) -> None:
    """With the recipe's own noise levels, and without guidance."""
    recipe = recipe_of("multiscale", 30, 3.0, distilled=True)
    ours = drawn(full_model, JOB, recipe)
    theirs = two_stock_passes(pipeline, full_checkpoint, [], 1.0, recipe=recipe)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.inference_mode()
def drawn(model: Model, job: Job, recipe: Recipe) -> torch.Tensor:
    texts = [model.prompts.encode(prompt) for prompt in (job.prompt, job.negative_prompt)]
    return result_of(draw(model, job, recipe, texts, result_of(encode_conditions(model, job))))


@torch.inference_mode()
def two_stock_passes(
    pipeline: Any,
    full_checkpoint: Path,
    pins: Sequence[Pin],
    scale: float,
    *,
    adain: float = 1.0,
    recipe: Recipe | None = None,
) -> torch.Tensor:
    first, second = (recipe or guided(scale)).passes
    levels = noise_levels(first)[:-1]
    with bilinear_resizing(pipeline):
        small = stock_pass(
            pipeline, pins, FIRST, SEED, scale, len(levels), timesteps=[1000 * level for level in levels]
        )
        upsampler = LTXLatentUpsamplerModel.from_pretrained(full_checkpoint / "latent_upsampler")
        large = LTXLatentUpsamplePipeline(pipeline.vae, upsampler)(
            latents=small, height=FIRST.height, width=FIRST.width, adain_factor=adain, output_type="latent"
        ).frames
        steps = second.steps - second.skip_initial
        return stock_pass(
            pipeline,
            pins,
            SECOND,
            noise.fork(SEED, "refine"),
            scale,
            steps,
            latents=large,
            num_inference_steps=second.steps,
            denoise_strength=(steps + 0.5) / second.steps,
        )


def stock_pass(
    pipeline: Any, pins: Sequence[Pin], size: Size, seed: int, scale: float, steps: int, **options: Any
) -> torch.Tensor:
    shape = latent_shape(size, FRAMES, Grid(32, 8))
    with engine_noise(noise_in_diffusers_order(pins, shape, seed, steps)):
        video: torch.Tensor = pipeline(
            conditions=[pin.for_diffusers(SIZE) for pin in pins] or None,
            prompt=JOB.prompt,
            negative_prompt=JOB.negative_prompt,
            width=size.width,
            height=size.height,
            num_frames=FRAMES,
            frame_rate=25,
            guidance_scale=scale,
            output_type="latent",
            **options,
        ).frames
    return video


@contextmanager
def bilinear_resizing(pipeline: Any) -> Iterator[None]:
    """Makes diffusers resize conditions bilinearly, like Lightricks and Keyreel, instead of with Lanczos."""

    def resize(images: Sequence[Any], height: int, width: int) -> torch.Tensor:
        frames = torch.stack([torch.from_numpy(np.array(image)) for image in images]).movedim(-1, 1)
        return functional.interpolate(frames / 127.5 - 1, (height, width), mode="bilinear")

    processor = pipeline.video_processor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processor, "preprocess", lambda image, *size: resize([image], *size))
        patch.setattr(processor, "preprocess_video", lambda video, *size: resize(video, *size).movedim(0, 1)[None])
        yield
