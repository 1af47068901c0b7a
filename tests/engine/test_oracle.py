"""Compares the engine with diffusers' LTXConditionPipeline: the same weights and noise must give the same latents.

The story goes over conditions, noise, schedule, guidance, transformer and the denoising loop.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers import LTXConditionPipeline

from keyreel.engine import latents
from keyreel.engine.conditions import encode_condition, initial_noise, token_sequence
from keyreel.engine.denoise import Denoiser, Pins
from keyreel.engine.schedule import linear_quadratic
from keyreel.engine.transformer import rotary, text_key_values
from keyreel.video.canvas import Grid, Size, latent_shape
from keyreel.video.recipes import Guidance
from tests.engine.stock import CHANNELS, Pin, engine_noise, noise_in_diffusers_order
from tests.tiny_checkpoints import tiny_checkpoint

GRID = Grid(32, 8)
SIZE = Size(96, 64)
FRAMES = 33
SHAPE = latent_shape(SIZE, FRAMES, GRID)
STEPS = 6
SEED = 5
PROMPT = "a red circle moves right"
NEGATIVE = "dark star"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("oracle"))
    pipe = LTXConditionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


CASES: dict[str, list[Pin]] = {
    "text only": [],
    "image@0": [Pin(0)],
    "image@13": [Pin(13)],
    "image@last": [Pin(FRAMES - 1)],
    "image@0 at 0.5": [Pin(0, strength=0.5)],
    "image@13 at 0.7": [Pin(13, strength=0.7)],
    "clip@0": [Pin(0, 17)],
    "clip@8": [Pin(8, 17)],
    "prefix only": [Pin(16, 9)],
    "clip@8 at 0.8": [Pin(8, 25, 0.8)],
    "both ends": [Pin(0), Pin(FRAMES - 1, strength=0.9)],
    "mix": [Pin(0, 9, 0.6), Pin(16, 9), Pin(13, strength=0.5), Pin(FRAMES - 1)],
    "two clips": [Pin(0, 9), Pin(16, 17, 0.75)],
}
FAST = ("mix",)
PINS = [pytest.param(pins, id=name, marks=() if name in FAST else pytest.mark.slow) for name, pins in CASES.items()]


@pytest.mark.parametrize("condition_noise", [0.0, 0.15], ids=["still", "noise"])
@pytest.mark.parametrize("guidance", [1.0, 3.0], ids=["plain", "guided"])
@pytest.mark.parametrize("pins", PINS)
def test_latents_equal_diffusers_latents(
    pipeline: Any, pins: list[Pin], guidance: float, condition_noise: float
) -> None:
    ours = _ours(pipeline, pins, guidance, condition_noise)
    theirs = _theirs(pipeline, pins, guidance, condition_noise)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.inference_mode()
def _ours(pipeline: Any, pins: Sequence[Pin], guidance: float, condition_noise: float) -> torch.Tensor:
    pinned = [encode_condition(pipeline.vae, pin.for_engine(SIZE), SIZE) for pin in pins]
    sequence = token_sequence(pinned, initial_noise(SHAPE, CHANNELS, SEED), GRID, SEED)
    texts = [_text(pipeline, prompt) for prompt in (PROMPT, NEGATIVE)]
    positive, negative = text_key_values(pipeline.transformer, texts)
    denoiser = Denoiser(
        transformer=pipeline.transformer,
        pins=Pins.of(sequence, torch.device("cpu")),
        table=lambda _: rotary(pipeline.transformer, sequence.coordinates, 25),
        positive=positive,
        negative=negative,
        sigmas=linear_quadratic(STEPS),
        guidance=(Guidance(guidance),) * STEPS,
        condition_noise_scale=condition_noise,
        seed=SEED,
    )
    tokens = sequence.tokens
    for _, tokens, _ in denoiser.steps(sequence.tokens):  # noqa: B007
        pass
    return latents.unpack(tokens[:, sequence.extra :], SHAPE)


def _text(pipeline: Any, prompt: str) -> torch.Tensor:
    tokens = pipeline.tokenizer(prompt, return_tensors="pt").input_ids
    embedding: torch.Tensor = pipeline.text_encoder(tokens).last_hidden_state
    return embedding


@torch.inference_mode()
def _theirs(pipeline: Any, pins: Sequence[Pin], guidance: float, condition_noise: float) -> torch.Tensor:
    with engine_noise(noise_in_diffusers_order(pins, SHAPE, SEED, STEPS if condition_noise else 0)):
        video: torch.Tensor = pipeline(
            conditions=[pin.for_diffusers(SIZE) for pin in pins] or None,
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            width=SIZE.width,
            height=SIZE.height,
            num_frames=FRAMES,
            frame_rate=25,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            image_cond_noise_scale=condition_noise,
            output_type="latent",
        ).frames
    return video
