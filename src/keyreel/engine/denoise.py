"""From noise to latents, one step after the other."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel.engine import noise
from keyreel.engine.conditions import TokenSequence
from keyreel.engine.guidance import classifier_free
from keyreel.engine.transformer import KeyValue, Levels, Rotary, velocity

EPSILON = 1e-6
"""Two noise levels closer than this are the same."""


@dataclass(frozen=True, slots=True)
class Denoiser:
    """All that stays the same from step to step.

    sigmas: noise levels of the schedule, 1 down to 0, one more than there are steps.
    negative: the negative prompt's keys and values; None when guidance is off.
    """

    transformer: LTXVideoTransformer3DModel
    sequence: TokenSequence
    table: Rotary
    positive: list[KeyValue]
    negative: list[KeyValue] | None
    sigmas: tuple[float, ...]
    guidance_scale: float
    condition_noise_scale: float
    seed: int

    def steps(self, tokens: torch.Tensor, start: int = 0) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields (steps done, tokens (1, N, C) fp32) after each step: all that it takes to go on later."""
        for index in range(start, len(self.sigmas) - 1):
            tokens = self.step(tokens, index)
            yield index + 1, tokens

    def step(self, tokens: torch.Tensor, index: int) -> torch.Tensor:
        """One Euler step from sigmas[index] to sigmas[index + 1].

        A token pinned with strength a is never noisier than 1 - a: it stays as it is until the schedule has come down
        to that level and is denoised with the others from there on. With a = 1 it never changes.
        """
        sigma, following = self.sigmas[index], self.sigmas[index + 1]
        free = 1 - self.sequence.pinned
        tokens = self._shake(tokens, sigma, index)
        levels = Levels.of(free.clamp(max=sigma)).to(tokens.device)
        change = (following - sigma) * self._velocity(tokens, levels)
        moving = (sigma - EPSILON < free).to(tokens.device)[None, :, None]
        return torch.where(moving, tokens + change, tokens)

    def _shake(self, tokens: torch.Tensor, sigma: float, index: int) -> torch.Tensor:
        """Fresh noise on fully pinned tokens, less and less: without it a pinned picture makes a still video."""
        hard = self.sequence.pinned > 1 - EPSILON
        if self.condition_noise_scale == 0 or not hard.any():
            return tokens
        clean = self.sequence.tokens[:, hard]
        fresh = noise.draw(self.seed, "condition noise", index, tuple(clean.shape))
        shaken = tokens.clone()
        shaken[:, hard.to(tokens.device)] = (clean + self.condition_noise_scale * sigma**2 * fresh).to(tokens.device)
        return shaken

    def _velocity(self, tokens: torch.Tensor, levels: Levels) -> torch.Tensor:
        """The guided prediction in fp32. Both prompts one after the other: half the memory of a batch of two."""
        tokens = tokens.to(self.transformer.dtype)
        positive = velocity(self.transformer, tokens, levels, self.table, self.positive).float()
        if self.negative is None:
            return positive
        negative = velocity(self.transformer, tokens, levels, self.table, self.negative).float()
        return classifier_free(negative, positive, self.guidance_scale)
