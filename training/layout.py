"""How the transformer's width is shared out: channels of the residual stream, heads, and what positions do to them."""

import math

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor

from training.autoencoder import BLOCK, CELL, LATENTS, LOTS, MEANS
from training.scenes import WHEREABOUTS

INNER, HEADS = 256, 8
HEAD = INNER // HEADS
UNITS = 4 * INNER  # of an MLP
POSTS = 6  # heads that tell how far the drawn token lies to one side: `training.signposts`
LOUD = 24.0  # the constant; the noise of a token has a norm of about 8.8
NORM = math.sqrt((LOUD**2 + LATENTS) / INNER)  # root mean square of a token, about the same for all
STEP = float(CELL * BLOCK)  # pixels from a token to the next

# Channels, after the latents and their estimate.
CONSTANT, FLAG, HIGHEST, DRAWN_MARK = range(2 * LATENTS, 2 * LATENTS + 4)  # FLAG: is pinned
SIGHTS = range(2 * LATENTS + 4, 2 * LATENTS + 4 + POSTS)  # how much of the marked token a signpost's head sees
CROWD, FEWNESS = SIGHTS.stop, SIGHTS.stop + 1  # the share of one token among all, and its logarithm
DISTANCES = range(FEWNESS + 1, FEWNESS + 1 + POSTS)
# What training makes of it all, the place finely and coarsely: `training.transformer.place_loss`.
PLACES = range(DISTANCES.stop, DISTANCES.stop + 2 + WHEREABOUTS)
NEARNESS = PLACES.stop  # of a pinned frame
GUIDES = range(NEARNESS + 1, NEARNESS + 1 + len(MEANS))  # the latents in `MEANS` of the pinned frame that was found
# Channels that no layer writes to but where laid down. Written to like any other, the noisy latents had to be restored
# by the last layer, and what it missed stayed in the video as noise, token by token.
HELD = [LOTS, CONSTANT, FLAG, HIGHEST, DRAWN_MARK, *SIGHTS, CROWD, FEWNESS, *DISTANCES, NEARNESS, *GUIDES]
KEPT = [*range(LATENTS), *HELD]


def head_channels(head: int) -> range:
    """Its channels."""
    return range(head * HEAD, (head + 1) * HEAD)


def axes_of_channels() -> Tensor:
    """By what each channel is rotated: 0 (time), 1 (y), 2 (x), -1 (nothing)."""
    channel = torch.arange(INNER) - INNER % 6
    return torch.where(channel < 0, -1, channel // 2 % 3)


def placed_channels() -> Tensor:
    """Channels of the last half of the heads that are rotated by y or x.

    Their frequencies are so high that different places match at random and only equal ones match well.
    """
    return (torch.arange(INNER) >= INNER // 2) & (axes_of_channels() > 0)


def turns(model: LTXVideoTransformer3DModel, step: tuple[float, float, float]) -> Tensor:
    """By what angles rotary embeddings turn pairs of channels over a step in seconds and pixels, (INNER / 2,)."""
    coordinates = torch.tensor([[0.0, length] for length in step])
    cos, sin = model.rope(torch.zeros(1, 2, 1), video_coords=coordinates[None])
    cos, sin = cos[0, :, ::2], sin[0, :, ::2]
    return torch.atan2(sin[1] * cos[0] - cos[1] * sin[0], cos[0] * cos[1] + sin[0] * sin[1])


def pairs(angles: Tensor, size: float) -> Tensor:
    """Pairs of channels at these angles, (2 x pairs,)."""
    return size * torch.stack([angles.cos(), angles.sin()], 1).flatten()
