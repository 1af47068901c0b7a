"""Conditions: pictures and clips as latents, extra tokens, strengths and coordinates.

A condition at frame 0 is mixed into the first latent frames of the grid. A later one becomes extra tokens in front of
the sequence, and their coordinates place them at their frame. A picture becomes one latent frame of extra tokens, a
clip two: its first latent frame holds a single frame and so fits nowhere in the grid. The rest of a clip is mixed into
the grid. LTX-Video's `prepare_conditioning` and diffusers' LTXConditionPipeline do the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo
from torch.nn import functional

from keyreel.engine import latents, noise
from keyreel.engine.autoencoder import encode
from keyreel.engine.latents import LatentShape
from keyreel.engine.schedule import TOLERANCE
from keyreel.video.canvas import Grid, Size, margins
from keyreel.video.job import Condition, Pixels

PREFIX = 2
"""Latent frames of a later clip that become extra tokens."""


@dataclass(frozen=True, slots=True)
class PinnedLatents:
    """A condition as latents (1, C, F, H, W), normalised, fp32, on the CPU."""

    latents: torch.Tensor
    start: int
    strength: float


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """The tokens that a pass denoises.

    tokens: (1, N, C) fp32 at the start of the pass. The first `extra` are conditions, the rest the video's grid.
    pinned: (N,) the strength that holds each token, from 0 (free) to 1 (never changes).
    coordinates: (3, N) frame number, and y and x in pixels.
    """

    tokens: torch.Tensor
    pinned: torch.Tensor
    coordinates: torch.Tensor
    extra: int

    @classmethod
    def joined(cls, parts: Sequence["TokenSequence"]) -> "TokenSequence":
        """Concatenates the parts. All but the last are extra tokens."""
        return cls(
            torch.cat([part.tokens for part in parts], dim=1),
            torch.cat([part.pinned for part in parts]),
            torch.cat([part.coordinates for part in parts], dim=1),
            sum(part.tokens.shape[1] for part in parts[:-1]),
        )


def encode_condition(
    vae: AutoencoderKLLTXVideo, condition: Condition, drawn: Size, at: Size | None = None
) -> PinnedLatents:
    """Encodes a condition on the autoencoder's device.

    drawn: the video's size with its margins. at: the size of this pass, if it differs.
    """
    pixels = torch.from_numpy(_with_margins(condition.pixels, drawn)).permute(3, 0, 1, 2)[None]
    video = pixels.to(vae.device, vae.dtype) / 127.5 - 1
    if at and at != drawn:
        video = resized(video[0].movedim(1, 0), at).movedim(0, 1)[None]
    encoded = latents.normalise(encode(vae, video).float(), vae)
    # What is pinned completely must not depend on what lies below it, or a resumed pass would lack it.
    strength = 1.0 if condition.strength > 1 - TOLERANCE else condition.strength
    return PinnedLatents(encoded.cpu(), condition.start, strength)


def resized(frames: torch.Tensor, size: Size) -> torch.Tensor:
    """Resizes frames (F, 3, H, W). Bilinear without a low-pass filter, as LTX-Video does it."""
    return functional.interpolate(frames, (size.height, size.width), mode="bilinear", align_corners=False)


def initial_noise(shape: LatentShape, channels: int, seed: int) -> torch.Tensor:
    """Returns noise (1, C, F, H, W). Drawn frame by frame: a longer video begins with the noise of a shorter one."""
    frames, height, width = shape
    return latents.unpack(noise.draw(seed, "latents", 0, (1, frames * height * width, channels)), shape)


def token_sequence(pins: Sequence[PinnedLatents], start: torch.Tensor, grid: Grid, seed: int) -> TokenSequence:
    """Puts the conditions into the latents that a pass starts from. start: (1, C, F, H, W) on the CPU."""
    x = start.clone()
    shape: LatentShape = (x.shape[2], x.shape[3], x.shape[4])
    pinned = torch.zeros(shape)
    extras = []
    for index, pin in enumerate(pins):
        prefix, body, at = _split(pin, grid)
        end = at + body.shape[2]
        x[:, :, at:end] = x[:, :, at:end].lerp(body, pin.strength)
        pinned[at:end] = pin.strength
        if prefix.shape[2]:
            extras.append(_extra_tokens(prefix, pin, grid, noise_of=(seed, index)))
    video = TokenSequence(latents.pack(x), pinned.flatten(), latents.coordinates(shape, grid), 0)
    return TokenSequence.joined([*extras, video])


def _split(pin: PinnedLatents, grid: Grid) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Returns the latents for extra tokens, the latents for the grid, and the latent frame where the latter begin."""
    count = 0 if pin.start == 0 else min(PREFIX, pin.latents.shape[2])
    at = pin.start // grid.temporal + count if pin.latents.shape[2] > count else 0
    return pin.latents[:, :, :count], pin.latents[:, :, count:], at


def _extra_tokens(prefix: torch.Tensor, pin: PinnedLatents, grid: Grid, noise_of: tuple[int, int]) -> TokenSequence:
    seed, index = noise_of
    tokens = latents.pack(prefix)
    fresh = noise.draw(seed, "condition", index, tuple(tokens.shape))
    shape = (prefix.shape[2], prefix.shape[3], prefix.shape[4])
    return TokenSequence(
        fresh.lerp(tokens, pin.strength),
        torch.full((tokens.shape[1],), pin.strength),
        latents.coordinates(shape, grid, pin.start),
        0,
    )


def _with_margins(pixels: Pixels, drawn: Size) -> Pixels:
    """Pads pixels of the video's size to the drawn size by repeating their edges. The margin is cut off at the end."""
    height, width = pixels.shape[1:3]
    left, top = margins(drawn, Size(width, height))
    right, bottom = drawn.width - width - left, drawn.height - height - top
    return np.pad(pixels, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
