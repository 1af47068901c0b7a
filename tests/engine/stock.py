"""diffusers' pipelines with our noise: what they draw is then ours to the last digits."""

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

from keyreel.canvas import Size
from keyreel.engine import latents, noise
from keyreel.engine.latents import LatentShape
from keyreel.events import Event
from keyreel.job import Condition

T = TypeVar("T")

CHANNELS = 16


@dataclass(frozen=True)
class Pin:
    """A condition for both sides: `count` random frames at `start`."""

    start: int
    count: int = 1
    strength: float = 1.0

    def ours(self, size: Size) -> Condition:
        shape = (self.count, size.height, size.width, 3)
        pixels = np.random.default_rng(self.start * 100 + self.count).integers(0, 256, shape, dtype=np.uint8)
        return Condition(pixels, self.start, self.strength)

    def theirs(self, size: Size) -> Any:
        images = [Image.fromarray(frame) for frame in self.ours(size).pixels]
        if self.count == 1:
            return LTXVideoCondition(image=images[0], frame_index=self.start, strength=self.strength)
        return LTXVideoCondition(video=images, frame_index=self.start, strength=self.strength)


@contextmanager
def our_noise(streams: Iterator[torch.Tensor]) -> Iterator[None]:
    """Within, the stock pipeline draws these tensors, all of them, and takes the posterior's mode as we do."""

    def next_noise(shape: Sequence[int], **_: object) -> torch.Tensor:
        drawn = next(streams)
        assert tuple(drawn.shape) == tuple(shape)
        return drawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_ltx_condition, "randn_tensor", next_noise)
        patch.setattr(pipeline_ltx_condition, "retrieve_latents", lambda encoded, **_: encoded.latent_dist.mode())
        yield
    assert next(streams, None) is None


def noise_in_their_order(
    pins: Sequence[Pin], shape: LatentShape, seed: int, shaken_steps: int
) -> Iterator[torch.Tensor]:
    """Our named streams, in the shapes and the order in which one run of the stock pipeline draws.

    shaken_steps: how many steps put fresh noise on fully pinned tokens.
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
    for step in range(shaken_steps if pins else 0):
        whole = torch.zeros(1, len(mask), CHANNELS)
        if mask.any():
            whole[:, mask] = noise.draw(seed, "condition noise", step, (1, int(mask.sum()), CHANNELS))
        yield whole


def outcome(events: Generator[Event, None, T]) -> T:
    """What a part of the pipeline comes to, when nobody wants to hear its events."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            value: T = end.value
            return value
