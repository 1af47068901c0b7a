"""The engine against diffusers' LTXConditionPipeline: same weights, same noise, same latents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LTXConditionPipeline
from diffusers.pipelines.ltx import pipeline_ltx_condition as stock
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from keyreel.canvas import Grid, Size, latent_shape
from keyreel.engine import latents, noise
from keyreel.engine.conditions import encode_condition, token_sequence
from keyreel.engine.denoise import Denoiser
from keyreel.engine.schedule import linear_quadratic
from keyreel.engine.transformer import rotary, text_key_values
from keyreel.job import Condition
from tests.checkpoints import tiny_checkpoint

GRID = Grid(32, 8)
SIZE = Size(96, 64)
FRAMES = 33
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


@dataclass(frozen=True)
class Pin:
    """A condition for both sides: `count` random frames at `start`."""

    start: int
    count: int = 1
    strength: float = 1.0

    def pixels(self) -> np.ndarray:
        shape = (self.count, SIZE.height, SIZE.width, 3)
        return np.random.default_rng(self.start * 100 + self.count).integers(0, 256, shape, dtype=np.uint8)


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


@pytest.mark.parametrize("condition_noise", [0.0, 0.15], ids=["still", "noise"])
@pytest.mark.parametrize("guidance", [1.0, 3.0], ids=["plain", "guided"])
@pytest.mark.parametrize("pins", CASES.values(), ids=CASES.keys())
def test_latents_agree(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, pins: list[Pin], guidance: float, condition_noise: float
) -> None:
    ours = _ours(pipeline, pins, guidance, condition_noise)
    theirs = _theirs(pipeline, monkeypatch, pins, guidance, condition_noise)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@torch.inference_mode()
def _ours(pipeline: Any, pins: Sequence[Pin], guidance: float, condition_noise: float) -> torch.Tensor:
    shape = latent_shape(SIZE, FRAMES, GRID)
    conditions = [Condition(pin.pixels(), pin.start, pin.strength) for pin in pins]
    pinned = [encode_condition(pipeline.vae, condition, SIZE) for condition in conditions]
    sequence = token_sequence(pinned, shape, 16, GRID, SEED)
    texts = [_text(pipeline, prompt) for prompt in (PROMPT, NEGATIVE)]
    denoiser = Denoiser(
        transformer=pipeline.transformer,
        sequence=sequence,
        table=rotary(pipeline.transformer, sequence.coordinates, 25),
        positive=text_key_values(pipeline.transformer, texts[0]),
        negative=text_key_values(pipeline.transformer, texts[1]) if guidance > 1 else None,
        sigmas=linear_quadratic(STEPS),
        guidance_scale=guidance,
        condition_noise_scale=condition_noise,
        seed=SEED,
    )
    tokens = sequence.tokens
    for _, tokens in denoiser.steps(sequence.tokens):  # noqa: B007
        pass
    return latents.unpack(tokens[:, sequence.extra :], shape)


def _text(pipeline: Any, prompt: str) -> torch.Tensor:
    tokens = pipeline.tokenizer(prompt, return_tensors="pt").input_ids
    embedding: torch.Tensor = pipeline.text_encoder(tokens).last_hidden_state
    return embedding


@torch.inference_mode()
def _theirs(
    pipeline: Any,
    monkeypatch: pytest.MonkeyPatch,
    pins: Sequence[Pin],
    guidance: float,
    condition_noise: float,
) -> torch.Tensor:
    streams = _noise_in_their_order(pins, condition_noise)

    def next_noise(shape: Sequence[int], **_: object) -> torch.Tensor:
        drawn = next(streams)
        assert tuple(drawn.shape) == tuple(shape)
        return drawn

    monkeypatch.setattr(stock, "randn_tensor", next_noise)
    # The posterior's mode, as we take it; their default is a sample.
    monkeypatch.setattr(stock, "retrieve_latents", lambda encoded, **_: encoded.latent_dist.mode())
    video: torch.Tensor = pipeline(
        conditions=[_stock_condition(pin) for pin in pins] or None,
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
    assert next(streams, None) is None
    return video


def _stock_condition(pin: Pin) -> Any:
    images = [Image.fromarray(frame) for frame in pin.pixels()]
    if pin.count == 1:
        return LTXVideoCondition(image=images[0], frame_index=pin.start, strength=pin.strength)
    return LTXVideoCondition(video=images, frame_index=pin.start, strength=pin.strength)


def _noise_in_their_order(pins: Sequence[Pin], condition_noise: float) -> Iterator[torch.Tensor]:
    """Our named streams, in the shapes and the order in which the stock pipeline draws."""
    frames, height, width = latent_shape(SIZE, FRAMES, GRID)
    yield latents.unpack(noise.draw(SEED, "latents", 0, (1, frames * height * width, 16)), (frames, height, width))
    hard = []
    grid = torch.zeros(frames, dtype=torch.bool)
    for index, pin in enumerate(pins):
        length = (pin.count - 1) // 8 + 1
        prefix = 0 if pin.start == 0 else min(2, length)
        if prefix:
            drawn = noise.draw(SEED, "condition", index, (1, prefix * height * width, 16))
            yield latents.unpack(drawn, (prefix, height, width))
            hard.append(torch.full((prefix * height * width,), pin.strength == 1))
        begin = pin.start // 8 + prefix
        grid[begin : begin + length - prefix] = pin.strength == 1
    hard.append(grid.repeat_interleave(height * width))
    mask = torch.cat(hard)
    for step in range(STEPS if condition_noise and pins else 0):
        whole = torch.zeros(1, len(mask), 16)
        if mask.any():
            whole[:, mask] = noise.draw(SEED, "condition noise", step, (1, int(mask.sum()), 16))
        yield whole
