"""Denoising: from noise to latents, step by step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel.engine import noise
from keyreel.engine.conditions import TokenSequence
from keyreel.engine.guidance import guided
from keyreel.engine.ranks import ALONE, Group, Split, teams_for
from keyreel.engine.schedule import TOLERANCE
from keyreel.engine.transformer import Forward, KeyValue, Levels, Rotary, velocities
from keyreel.video.recipes import Guidance, StgMode


@dataclass(frozen=True, slots=True)
class Denoiser:
    """The denoising of one pass. The fields stay the same from step to step.

    positive, negative: keys and values of the prompts. `negative` is empty when no step uses it.
    sigmas: the noise levels of the pass down to 0, one more than there are steps. guidance: one entry per step.
    stochastic: each step replaces the remaining noise with fresh noise.
    group: the ranks that share the work. table: makes the rotary tables of this rank's tokens.
    """

    transformer: LTXVideoTransformer3DModel
    sequence: TokenSequence
    table: Callable[[Split], Rotary]
    positive: list[KeyValue]
    negative: list[KeyValue]
    sigmas: tuple[float, ...]
    guidance: tuple[Guidance, ...]
    condition_noise_scale: float
    seed: int
    stg_mode: StgMode = "attention_values"
    cfg_star: bool = False
    stochastic: bool = False
    group: Group = ALONE

    def steps(self, tokens: torch.Tensor, start: int = 0) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yields (steps done, tokens, clean) after each step. Tokens and clean are (1, N, C) fp32.

        To resume, pass the tokens and the steps done. clean: the step's prediction of the finished tokens.
        """
        for index in range(start, len(self.sigmas) - 1):
            self.group.begin_step()
            tokens, clean = self.step(tokens, index)
            yield index + 1, tokens, clean

    def step(self, tokens: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes an Euler step from sigmas[index] to sigmas[index + 1]. Returns the tokens and the predicted clean ones.

        A token pinned with strength a is never noisier than 1 - a. It stays as it is until the schedule has come down
        to that level; from then on it is denoised with the others. With a = 1 it never changes.
        """
        sigma, next_sigma = self.sigmas[index], self.sigmas[index + 1]
        free = 1 - self.sequence.pinned
        tokens = self._with_condition_noise(tokens, sigma, index)
        levels = free.clamp(max=sigma)
        predicted = self._velocity(tokens, Levels.of(levels).to(tokens.device), self.guidance[index])
        clean = tokens - levels.to(tokens.device)[None, :, None] * predicted
        moved = tokens + (next_sigma - sigma) * predicted
        if self.stochastic:
            fresh = noise.draw(self.seed, "step", index, tuple(tokens.shape)).to(tokens.device)
            moved = (tokens - sigma * predicted).lerp(fresh, next_sigma)
        moving = (sigma - TOLERANCE < free).to(tokens.device)[None, :, None]
        return torch.where(moving, moved, tokens), clean

    def _with_condition_noise(self, tokens: torch.Tensor, sigma: float, index: int) -> torch.Tensor:
        """Adds fresh noise to fully pinned tokens, less each step. Without it a pinned picture makes a still video."""
        fixed = self.sequence.pinned > 1 - TOLERANCE
        if self.condition_noise_scale == 0 or not fixed.any():
            return tokens
        clean = self.sequence.tokens[:, fixed]
        fresh = noise.draw(self.seed, "condition noise", index, tuple(clean.shape))
        noisy = tokens.clone()
        noisy[:, fixed.to(tokens.device)] = (clean + self.condition_noise_scale * sigma**2 * fresh).to(tokens.device)
        return noisy

    def _velocity(self, tokens: torch.Tensor, levels: Levels, guidance: Guidance) -> torch.Tensor:
        """Returns the guided prediction in fp32. Computes only the forwards that the guidance needs."""
        forwards = {"positive": Forward(self.positive)}
        if guidance.scale > 1:
            forwards["negative"] = Forward(self.negative)
        if guidance.stg:
            forwards["perturbed"] = Forward(self.positive, guidance.blocks, self.stg_mode)
        teams = teams_for(guidance, len(self.transformer.transformer_blocks), self.group.size)
        split = self.group.split(tokens.shape[1], teams)
        tokens = tokens.to(self.transformer.dtype)
        predicted = velocities(self.transformer, tokens, levels, self.table(split), list(forwards.values()), split)
        named = {name: velocity.float() for name, velocity in zip(forwards, predicted, strict=True)}
        return guided(
            named["positive"],
            named.get("negative"),
            named.get("perturbed"),
            guidance,
            cfg_star=self.cfg_star,
        )
