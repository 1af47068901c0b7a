"""Which channels and heads of the transformer have which task, and how positions rotate them.

The channels are those of the residual stream.
"""

import math

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor

from training.autoencoder import BLOCK, CELL, LATENTS, LOTS, MEANS
from training.scenes import WHEREABOUTS

INNER, HEADS = 256, 8
HEAD = INNER // HEADS
UNITS = 4 * INNER  # units of an MLP
SIGNPOST_COUNT = 6  # heads that tell how far the marked token is to one side: `training.signposts`
CONSTANT_SIZE = 24.0  # value of the constant channel; the noise of a token has a norm of about 8.8
NORM = math.sqrt((CONSTANT_SIZE**2 + LATENTS) / INNER)  # root mean square of a token, about the same for all tokens
STEP = float(CELL * BLOCK)  # pixels from a token to the next

# Channels after the latents and their estimate. A token's "lot" is its noise in the latent `LOTS`; the token with the
# highest lot is marked as the subject's centre.
CONSTANT, FLAG, HIGHEST, DRAWN_MARK = range(2 * LATENTS, 2 * LATENTS + 4)  # FLAG: whether the token is pinned
SIGHTS = range(2 * LATENTS + 4, 2 * LATENTS + 4 + SIGNPOST_COUNT)  # how much of the mark each signpost's head sees
CROWD, FEWNESS = SIGHTS.stop, SIGHTS.stop + 1  # the share of one token among all, and its logarithm
DISTANCES = range(FEWNESS + 1, FEWNESS + 1 + SIGNPOST_COUNT)  # logarithms of the sights
# Where training writes the place, finely and coarsely, and the motion: `training.transformer.place_loss`.
PLACES = range(DISTANCES.stop, DISTANCES.stop + 2 + WHEREABOUTS)
NEARNESS = PLACES.stop  # how near a pinned frame is
GUIDES = range(NEARNESS + 1, NEARNESS + 1 + len(MEANS))  # the latents in `MEANS` of the nearest pinned frame
# Only weights that are set by hand write to these channels and to the noisy latents. When all layers wrote to the noisy
# latents, the last layer had to restore them, and its errors stayed in the video as noise per token.
HELD = [LOTS, CONSTANT, FLAG, HIGHEST, DRAWN_MARK, *SIGHTS, CROWD, FEWNESS, *DISTANCES, NEARNESS, *GUIDES]
KEPT = [*range(LATENTS), *HELD]


def head_channels(head: int) -> range:
    """Returns the channels of a head."""
    return range(head * HEAD, (head + 1) * HEAD)


def axes_of_channels() -> Tensor:
    """Returns the axis that rotates each channel: 0 (time), 1 (y), 2 (x) or -1 (none)."""
    channel = torch.arange(INNER) - INNER % 6
    return torch.where(channel < 0, -1, channel // 2 % 3)


def placed_channels() -> Tensor:
    """Returns a mask of the channels in the last half of the heads that y or x rotates.

    Their frequencies are so high that only equal places match well; different ones match at random.
    """
    return (torch.arange(INNER) >= INNER // 2) & (axes_of_channels() > 0)


def turns(model: LTXVideoTransformer3DModel, step: tuple[float, float, float]) -> Tensor:
    """Returns the angles by which rotary embeddings turn pairs of channels over a step, (INNER / 2,).

    step: seconds, and pixels along y and x.
    """
    coordinates = torch.tensor([[0.0, length] for length in step])
    cos, sin = model.rope(torch.zeros(1, 2, 1), video_coords=coordinates[None])
    cos, sin = cos[0, :, ::2], sin[0, :, ::2]
    return torch.atan2(sin[1] * cos[0] - cos[1] * sin[0], cos[0] * cos[1] + sin[0] * sin[1])


def pairs(angles: Tensor, size: float) -> Tensor:
    """Returns pairs of channels of length `size` at these angles, (2 x pairs,)."""
    return size * torch.stack([angles.cos(), angles.sin()], 1).flatten()
