"""Runs diffusers' pipelines with the engine's noise, so that their latents can be compared with the engine's."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx import pipeline_ltx_condition
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from keyreel.engine import latents, noise
from keyreel.engine.latents import LatentShape
from keyreel.video.canvas import Size
from keyreel.video.events import Event
from keyreel.video.job import Condition

T = TypeVar("T")

CHANNELS = 16


@dataclass(frozen=True)
class Pin:
    """A condition for the engine and for diffusers: `count` random frames at `start`."""

    start: int
    count: int = 1
    strength: float = 1.0

    def for_engine(self, size: Size) -> Condition:
        shape = (self.count, size.height, size.width, 3)
        pixels = np.random.default_rng(self.start * 100 + self.count).integers(0, 256, shape, dtype=np.uint8)
        return Condition(pixels, self.start, self.strength)

    def for_diffusers(self, size: Size) -> Any:
        images = [Image.fromarray(frame) for frame in self.for_engine(size).pixels]
        if self.count == 1:
            return LTXVideoCondition(image=images[0], frame_index=self.start, strength=self.strength)
        return LTXVideoCondition(video=images, frame_index=self.start, strength=self.strength)


@contextmanager
def engine_noise(streams: Iterator[torch.Tensor]) -> Iterator[None]:
    """Within the block, diffusers takes its noise from `streams`, and the posterior's mode as the engine does.

    Raises AssertionError unless exactly these tensors are used.
    """

    def next_noise(shape: Sequence[int], **_: object) -> torch.Tensor:
        drawn = next(streams)
        assert tuple(drawn.shape) == tuple(shape)
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_ltx_condition, "randn_tensor", next_noise)
        patch.setattr(pipeline_ltx_condition, "retrieve_latents", lambda encoded, **_: encoded.latent_dist.mode())
        yield
    assert next(streams, None) is None


def noise_in_diffusers_order(
    pins: Sequence[Pin], shape: LatentShape, seed: int, noisy_steps: int
) -> Iterator[torch.Tensor]:
    """Yields the engine's noise in the shapes and the order in which one run of diffusers' pipeline draws it.

    noisy_steps: how many steps add fresh noise to fully pinned tokens.
    """
    frames, height, width = shape
    yield latents.unpack(noise.draw(seed, "latents", 0, (1, frames * height * width, CHANNELS)), shape)
    hard = []
    grid = torch.zeros(frames, dtype=torch.bool)
    for index, pin in enumerate(pins):
        length = (pin.count - 1) // 8 + 1
        prefix = 0 if pin.start == 0 else min(2, length)
        if prefix:
            drawn = noise.draw(seed, "condition", index, (1, prefix * height * width, CHANNELS))
            yield latents.unpack(drawn, (prefix, height, width))
            hard.append(torch.full((prefix * height * width,), pin.strength == 1))
        begin = pin.start // 8 + prefix
        grid[begin : begin + length - prefix] = pin.strength == 1
    hard.append(grid.repeat_interleave(height * width))
    mask = torch.cat(hard)
    for step in range(noisy_steps if pins else 0):
        whole = torch.zeros(1, len(mask), CHANNELS)
        if mask.any():
            whole[:, mask] = noise.draw(seed, "condition noise", step, (1, int(mask.sum()), CHANNELS))
        yield whole


def result_of(events: Generator[Event, None, T]) -> T:
    """Runs a part of the pipeline and returns its result. Its events are discarded."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            value: T = end.value
            return value
