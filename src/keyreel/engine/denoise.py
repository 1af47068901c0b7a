"""Denoising: from noise to latents, step by step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from diffusers import LTXVideoTransformer3DModel

from keyreel.engine import noise
from keyreel.engine.conditions import TokenSequence
from keyreel.engine.devices import sent, wait_for
from keyreel.engine.guidance import guided
from keyreel.engine.ranks import ALONE, Group, Split, teams_for
from keyreel.engine.schedule import TOLERANCE
from keyreel.engine.transformer import Forward, KeyValue, Levels, velocities
from keyreel.video.recipes import Guidance, StgMode


@dataclass(frozen=True, slots=True)
class Pins:
    """What pins the tokens of a pass, on the device. The fields stay the same from step to step.

    free: the highest noise level of each token. fixed: (M,) the positions of the tokens that never change.
    clean: (1, M, C) those tokens.
    """

    free: Levels
    fixed: torch.Tensor
    clean: torch.Tensor

    @classmethod
    def of(cls, sequence: TokenSequence, device: torch.device) -> "Pins":
        fixed = (sequence.pinned > 1 - TOLERANCE).nonzero().flatten()
        free = Levels.of(1 - sequence.pinned).to(device)
        return cls(free, sent(fixed, device), sent(sequence.tokens[:, fixed], device))


@dataclass(frozen=True, slots=True)
class Denoiser:
    """The denoising of one pass. The fields stay the same from step to step.

    positive, negative: keys and values of the prompts. `negative` is empty when no step uses it.
    sigmas: the noise levels of the pass down to 0, one more than there are steps. guidance: one entry per step.
    stochastic: each step replaces the remaining noise with fresh noise.
    group: the ranks that share the work. table: makes the rotary table of this rank's tokens.
    """

    transformer: LTXVideoTransformer3DModel
    pins: Pins
    table: Callable[[Split], torch.Tensor]
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
            # The only wait in a step. Without one, a cancel would have to wait for all steps that have been queued.
            wait_for(tokens.device)
            yield index + 1, tokens, clean

    def step(self, tokens: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes an Euler step from sigmas[index] to sigmas[index + 1]. Returns the tokens and the predicted clean ones.

        A token pinned with strength a is never noisier than 1 - a. It stays as it is until the schedule has come down
        to that level; from then on it is denoised with the others. With a = 1 it never changes.
        """
        sigma, next_sigma = self.sigmas[index], self.sigmas[index + 1]
        tokens = self._with_condition_noise(tokens, sigma, index)
        free = self.pins.free
        levels = free.at_most(sigma)
        predicted = self._velocity(tokens, levels, self.guidance[index])
        clean = tokens - levels.per_token(levels.values) * predicted
        moved = tokens + (next_sigma - sigma) * predicted
        if self.stochastic:
            fresh = sent(noise.draw(self.seed, "step", index, tuple(tokens.shape)), tokens.device)
            moved = (tokens - sigma * predicted).lerp(fresh, next_sigma)
        moving = free.per_token(sigma - TOLERANCE < free.values)
        return torch.where(moving, moved, tokens), clean

    def _with_condition_noise(self, tokens: torch.Tensor, sigma: float, index: int) -> torch.Tensor:
        """Adds fresh noise to fully pinned tokens, less each step. Without it a pinned picture makes a still video."""
        clean = self.pins.clean
        if self.condition_noise_scale == 0 or not clean.numel():
            return tokens
        fresh = sent(noise.draw(self.seed, "condition noise", index, tuple(clean.shape)), tokens.device)
        return tokens.index_copy(1, self.pins.fixed, clean + self.condition_noise_scale * sigma**2 * fresh)

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
