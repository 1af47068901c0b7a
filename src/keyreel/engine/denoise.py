"""From noise to latents, one step after the other."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel.engine import noise
from keyreel.engine.conditions import TokenSequence
from keyreel.engine.guidance import guided
from keyreel.engine.transformer import Forward, KeyValue, Levels, Rotary, velocities
from keyreel.recipes import Guidance, StgMode

EPSILON = 1e-6
"""Two noise levels closer than this are the same."""


@dataclass(frozen=True, slots=True)
class Denoiser:
    """One pass: all that stays the same from step to step.

    sigmas: noise levels of the pass down to 0, one more than there are steps. guidance: what steers each step.
    negative: the negative prompt's keys and values; empty when no step is guided by it.
    stochastic: a step ends with fresh noise in place of what is left of the old.
    """

    transformer: LTXVideoTransformer3DModel
    sequence: TokenSequence
    table: Rotary
    positive: list[KeyValue]
    negative: list[KeyValue]
    sigmas: tuple[float, ...]
    guidance: tuple[Guidance, ...]
    condition_noise_scale: float
    seed: int
    stg_mode: StgMode = "attention_values"
    cfg_star: bool = False
    stochastic: bool = False

    def steps(self, tokens: torch.Tensor, start: int = 0) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yields (steps done, tokens, clean), (1, N, C) fp32, after each step.

        The first two are all that it takes to go on later. clean: what this step expects to come of the tokens.
        """
        for index in range(start, len(self.sigmas) - 1):
            tokens, clean = self.step(tokens, index)
            yield index + 1, tokens, clean

    def step(self, tokens: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One Euler step from sigmas[index] to sigmas[index + 1], and what it expects to come of the tokens.

        A token pinned with strength a is never noisier than 1 - a: it stays as it is until the schedule has come down
        to that level and is denoised with the others from there on. With a = 1 it never changes.
        """
        sigma, following = self.sigmas[index], self.sigmas[index + 1]
        free = 1 - self.sequence.pinned
        tokens = self._shake(tokens, sigma, index)
        noisy = free.clamp(max=sigma)
        predicted = self._velocity(tokens, Levels.of(noisy).to(tokens.device), self.guidance[index])
        clean = tokens - noisy.to(tokens.device)[None, :, None] * predicted
        moved = tokens + (following - sigma) * predicted
        if self.stochastic:
            fresh = noise.draw(self.seed, "step", index, tuple(tokens.shape)).to(tokens.device)
            moved = (tokens - sigma * predicted).lerp(fresh, following)
        moving = (sigma - EPSILON < free).to(tokens.device)[None, :, None]
        return torch.where(moving, moved, tokens), clean

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

    def _velocity(self, tokens: torch.Tensor, levels: Levels, guidance: Guidance) -> torch.Tensor:
        """The guided prediction in fp32, from the forwards that it needs."""
        forwards = {"positive": Forward(self.positive)}
        if guidance.scale > 1:
            forwards["negative"] = Forward(self.negative)
        if guidance.stg:
            forwards["perturbed"] = Forward(self.positive, guidance.blocks, self.stg_mode)
        tokens = tokens.to(self.transformer.dtype)
        predicted = velocities(self.transformer, tokens, levels, self.table, list(forwards.values()))
        named = {name: velocity.float() for name, velocity in zip(forwards, predicted, strict=True)}
        return guided(
            named["positive"],
            named.get("negative"),
            named.get("perturbed"),
            guidance,
            cfg_star=self.cfg_star,
        )
