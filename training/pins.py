"""Weights, set by hand, that bring pinned pictures to other frames and show them unchanged in their own.

A pinned frame is "handed over" when the network outputs its latents instead of drawing them.
"""

import math
from dataclasses import dataclass

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_ltx import LTXAttention
from torch import Tensor

from training.autoencoder import LATENTS, LOTS, MEANS
from training.layout import (
    CONSTANT,
    CONSTANT_SIZE,
    FLAG,
    GUIDES,
    HEAD,
    HIGHEST,
    INNER,
    NEARNESS,
    NORM,
    UNITS,
    axes_of_channels,
    head_channels,
    pairs,
    placed_channels,
    turns,
)
from training.timestep import modulate

# Strength of "same place" in queries of the first layer, and in keys of pinned tokens. Tokens of the same row or column
# match by half, and a large frame has many of them: with 1.6, the pinned token had a weight of 0.43 in 1280x768.
PLACE_PINNED = 2.4
PLACE_UNPINNED = 0.4  # the same in keys of tokens that are not pinned
COPIES = range(INNER // 2, INNER // 2 + math.ceil(LATENTS / HEAD) * HEAD)  # channels of the heads that copy
FRAMES_MIDDLE = 5.5 / 25  # seconds from a token's time to the middle of the frames that it shows
CLOSE = 4.0  # value of the nearness channel at the pinned frame
LEVEL = 0.05  # noise level below which the handed-over difference is no longer scaled up
NEAR_ENOUGH = 0.75  # nearness from which on a token counts as showing the pinned frame
STEEPNESS = 24.0  # steepness of the gate that opens there
UNIT_GAIN = 2.0  # how far a latent moves a unit: little enough to stay in the unit's linear range
PINNED_SCALE, SCALE_DECAY = 3.0, 2.1  # see `visible_scale`
OUTPUT_GAIN = 2.6  # weight of the noisy latents in the output
DOMINANT = 3000.0  # value that dominates all other channels of a token that is handed over
VELOCITY_SQUARE = 0.1  # what a velocity adds to a token's sum of squares, relative to the dominant value's square
# Units of the last MLP. Each of the `HANDERS` computes by how much one latent differs from the pinned one.
HANDERS = range(UNITS - LATENTS - 2, UNITS - 2)
OFFSET_UNIT = HANDERS.stop  # removes the offset that the open gate adds to the other units
DOMINANT_UNIT = HANDERS.stop + 1  # writes the dominant value
DOMINANT_CHANNELS = (NEARNESS, HIGHEST)
# Indices of modulations: the scale of what attention reads, the scale of what an MLP reads, the gate of what it writes.
SCALE_OF_ATTENTION, SCALE_OF_MLP, GATE_OF_MLP = 1, 4, 5


@dataclass(frozen=True)
class Finder:
    """A head of the first layer that finds the pinned token at the same place and the nearest time.

    place, loose: exponents of attention for a token at the same place, pinned or not. moment: exponent for each pair of
    channels that time rotates. latents: the latents that the head copies.
    """

    head: int
    place: float
    loose: float
    moment: float
    latents: list[int]


# The second head's frequencies tell any two frames of a clip apart, but not whether one is near, so tokens that are not
# pinned get no weight in it. In the third head, pinned tokens up to one latent frame away outweigh the others at their
# place.
NEAREST_PIN = Finder(head=1, place=120.0, loose=0.0, moment=3.0, latents=MEANS[:HEAD])
NEAR_PIN = Finder(head=2, place=17.0, loose=28.0, moment=3.0, latents=MEANS[HEAD:])


def flag_pinned(model: LTXVideoTransformer3DModel) -> None:
    """Sets the first shift of the flag channel to one at timestep 0 (pinned) and to zero at any other."""
    times = torch.cat([torch.zeros(200), torch.linspace(3, 1000, 600)])
    modulate(model, 0, [FLAG], times, (times == 0).float())


def visible_scale(sigma: Tensor) -> Tensor:
    """Returns the scale at which layers see noisy and pinned latents. It grows as the noise falls.

    It is close to the scales per latent that training found when it was free to choose them.
    """
    return PINNED_SCALE * torch.exp(-SCALE_DECAY * sigma)


def scale_latents(model: LTXVideoTransformer3DModel) -> None:
    """Sets the modulations of noisy latents and guides: read at `visible_scale`, written at the output's scale."""
    times = torch.linspace(0, 1000, 1001)
    sigma = times / 1000
    for part in (SCALE_OF_ATTENTION, SCALE_OF_MLP):
        modulate(model, part, [*range(LOTS), *GUIDES], times, visible_scale(sigma) - 1)
    level = torch.hypot(sigma, torch.tensor(LEVEL))
    modulate(model, GATE_OF_MLP, range(LATENTS), times, 1 / (level * visible_scale(sigma)) - 1)


def copy_columns(attention: LTXAttention) -> None:
    """Lets the first layer's last heads attend to pinned tokens at the same place and copy their latents."""
    places, latents, values = placed_channels(), torch.arange(LATENTS), torch.arange(LATENTS) + COPIES.start
    attention.to_q.bias[places] = PLACE_PINNED
    attention.to_k.bias[places] = PLACE_UNPINNED
    attention.to_k.weight[places, FLAG] = PLACE_PINNED - PLACE_UNPINNED
    attention.to_v.weight[COPIES.start : COPIES.stop] = 0
    attention.to_v.bias[COPIES.start : COPIES.stop] = 0
    attention.to_v.weight[values, latents] = NORM / PINNED_SCALE
    attention.to_v.weight[COPIES.start + LOTS, LOTS] = NORM  # lots have no scale
    attention.to_out[0].weight[LATENTS : 2 * LATENTS] = 0
    attention.to_out[0].weight[latents + LATENTS, values] = 1.0


def find_pinned(model: LTXVideoTransformer3DModel, finder: Finder) -> None:
    """Lets a head write the latents of the token that it finds to `GUIDES`.

    The more the token stands out, the clearer they are.
    """
    attention = model.transformer_blocks[0].attn1
    channels = torch.tensor(head_channels(finder.head))
    axes = axes_of_channels()[channels]
    placed, timed = channels[axes > 0], channels[axes == 0]
    for linear in (attention.to_q, attention.to_k, attention.to_v):
        linear.weight[channels] = 0
        linear.bias[channels] = 0

    def strength(exponent: float, over: Tensor) -> float:
        """Returns the strength of one channel when an exponent is spread over the channels `over`."""
        return math.sqrt(exponent / len(over) * HEAD**0.5)

    most = max(finder.place, finder.loose)
    ask = strength(most, placed)
    attention.to_q.bias[placed] = ask
    attention.to_k.bias[placed] = ask * finder.loose / most
    attention.to_k.weight[placed, FLAG] = ask * (finder.place - finder.loose) / most
    size = (finder.moment * HEAD**0.5) ** 0.5
    away = -turns(model, (FRAMES_MIDDLE, 0.0, 0.0))
    attention.to_q.bias[timed] = pairs(torch.zeros_like(away), size)[timed]
    attention.to_k.weight[timed, FLAG] = pairs(away, size)[timed]
    attention.to_out[0].weight[:, channels] = 0
    for value, latent in zip(channels.tolist(), finder.latents, strict=False):
        attention.to_v.weight[value, latent] = NORM / PINNED_SCALE
        attention.to_out[0].weight[GUIDES[MEANS.index(latent)], value] = 1.0


def tell_nearness(attention: LTXAttention) -> None:
    """Lets the last channel of the head that finds near pins write how much of a pinned token the head sees."""
    last = head_channels(NEAR_PIN.head)[-1]
    attention.to_v.weight[last, FLAG] = 1.0
    attention.to_out[0].weight[NEARNESS, last] = CLOSE


def hand_over(mlp: FeedForward) -> None:
    """Lets the last MLP make the velocity of a token that shows a pinned frame (latent - pinned latent) / sigma.

    A gate opens by nearness. Then units in their linear range write the difference over the noisy latents, which go
    straight to the output, and two channels get a value so large that the last norm, which divides by it, leaves almost
    nothing of the other channels. The norm that the token had before cancels out.
    """
    rise, fall = mlp.net[0].proj, mlp.net[2]
    units = [*HANDERS, OFFSET_UNIT, DOMINANT_UNIT]
    rise.weight[units] = 0
    rise.bias[units] = 0
    rise.weight[units, NEARNESS] = STEEPNESS
    rise.weight[units, CONSTANT] = -STEEPNESS * CLOSE * NEAR_ENOUGH / CONSTANT_SIZE
    rise.weight[DOMINANT_UNIT, CONSTANT] += 1.0
    rise.weight[HANDERS, range(LATENTS)] = UNIT_GAIN
    rise.weight[[HANDERS[latent] for latent in MEANS], GUIDES] = -UNIT_GAIN
    fall.weight[:, units] = 0
    norm = DOMINANT * math.sqrt((2 + VELOCITY_SQUARE) / INNER)  # root mean square of the token after that
    fall.weight[range(LATENTS), HANDERS] = norm / (UNIT_GAIN * OUTPUT_GAIN)
    fall.weight[range(LATENTS), OFFSET_UNIT] = -norm / (UNIT_GAIN * OUTPUT_GAIN)
    for channel, sign in zip(DOMINANT_CHANNELS, (1.0, -1.0), strict=True):
        fall.weight[channel, DOMINANT_UNIT] = sign * DOMINANT / CONSTANT_SIZE
        fall.weight[channel, OFFSET_UNIT] = -sign * DOMINANT / CONSTANT_SIZE
