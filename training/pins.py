"""How pinned pictures and clips reach the frames around them, and the one that shows them unchanged."""

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
    FLAG,
    GUIDES,
    HEAD,
    HIGHEST,
    INNER,
    LOUD,
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

# Strength of "same place" in queries of the first layer, and for pinned tokens in keys. Tokens of one row or column
# match by half, and there are many in a large frame: with 1.6, what is pinned had a weight of 0.43 in 1280x768.
COLUMN = 2.4
QUIET = 0.4  # the same in the keys of tokens that are not pinned
COPIES = range(INNER // 2, INNER // 2 + math.ceil(LATENTS / HEAD) * HEAD)  # channels of the heads that copy
SHOWN = 5.5 / 25  # seconds from the time of a token to the middle of the frames it shows
CLOSE = 4.0  # how loud it is that a pinned frame is near
LEVEL = 0.05  # noise below which what is handed over is no longer scaled up
NEAR_ENOUGH = 0.75  # nearness from which on a token is the pinned frame
STEEPNESS = 24.0  # of the gate that opens there
DRIVE = 2.0  # how far from that gate a latent moves a unit: not out of the part where it is linear
SEEN_PINNED, DIMMING = 3.0, 2.1  # see `seen_of`
PASS = 2.6  # weight of the noisy latents in the output
DROWN = 3000.0  # of what drowns, where a pinned frame is handed over, all that the layers say
OF_VELOCITY = 0.1  # what a velocity adds to its square
HANDERS = range(UNITS - LATENTS - 2, UNITS - 2)  # units of the last MLP: how far a latent is from the pinned one
LEVELLER, DROWNER = HANDERS.stop, HANDERS.stop + 1  # what takes back by how much those are open, and what drowns
DROWNED_IN = (NEARNESS, HIGHEST)  # channels
# Modulations that scale what attention reads and what an MLP reads, and gate what an MLP writes.
SCALE_OF_ATTENTION, SCALE_OF_MLP, GATE_OF_MLP = 1, 4, 5


@dataclass(frozen=True)
class Finder:
    """A head of the first layer that finds the token at the same place which is pinned at the nearest time.

    In exponents of attention: place for being at the same place, pinned or not (loose), moment for each pair of
    channels that time rotates. latents: what it copies.
    """

    head: int
    place: float
    loose: float
    moment: float
    latents: list[int]


# The frequencies of the second head tell apart any two frames of a clip, but not whether one is near: all that is
# not pinned has no say in it. In the third, pinned tokens up to a latent frame away outdo the others at their place.
NEAREST_PIN = Finder(head=1, place=120.0, loose=0.0, moment=3.0, latents=MEANS[:HEAD])
NEAR_PIN = Finder(head=2, place=17.0, loose=28.0, moment=3.0, latents=MEANS[HEAD:])


def flag_pinned(model: LTXVideoTransformer3DModel) -> None:
    """Makes the first shift of the flag one at timestep 0 (pinned) and zero at any other."""
    times = torch.cat([torch.zeros(200), torch.linspace(3, 1000, 600)])
    modulate(model, 0, [FLAG], times, (times == 0).float())


def seen_of(sigma: Tensor) -> Tensor:
    """How large layers see noisy latents, and pinned ones beside them: the larger, the less noise there is.

    Near what training made of a scale for each latent where it was free to.
    """
    return SEEN_PINNED * torch.exp(-DIMMING * sigma)


def scale_latents(model: LTXVideoTransformer3DModel) -> None:
    """Noisy latents, and guides with them, are seen as `seen_of` has it; where they are written, as the output is."""
    times = torch.linspace(0, 1000, 1001)
    sigma = times / 1000
    for part in (SCALE_OF_ATTENTION, SCALE_OF_MLP):
        modulate(model, part, [*range(LOTS), *GUIDES], times, seen_of(sigma) - 1)
    level = torch.hypot(sigma, torch.tensor(LEVEL))
    modulate(model, GATE_OF_MLP, range(LATENTS), times, 1 / (level * seen_of(sigma)) - 1)


def copy_columns(attention: LTXAttention) -> None:
    """The first layer's last heads: attend to pinned tokens at the same place, write what they hold."""
    places, latents, values = placed_channels(), torch.arange(LATENTS), torch.arange(LATENTS) + COPIES.start
    attention.to_q.bias[places] = COLUMN
    attention.to_k.bias[places] = QUIET
    attention.to_k.weight[places, FLAG] = COLUMN - QUIET
    attention.to_v.weight[COPIES.start : COPIES.stop] = 0
    attention.to_v.bias[COPIES.start : COPIES.stop] = 0
    attention.to_v.weight[values, latents] = NORM / SEEN_PINNED
    attention.to_v.weight[COPIES.start + LOTS, LOTS] = NORM  # lots are seen as they are
    attention.to_out[0].weight[LATENTS : 2 * LATENTS] = 0
    attention.to_out[0].weight[latents + LATENTS, values] = 1.0


def find_pinned(model: LTXVideoTransformer3DModel, finder: Finder) -> None:
    """Writes the latents of the token that the head finds, the clearer the more it stands out, to `GUIDES`."""
    attention = model.transformer_blocks[0].attn1
    channels = torch.tensor(head_channels(finder.head))
    axes = axes_of_channels()[channels]
    placed, timed = channels[axes > 0], channels[axes == 0]
    for linear in (attention.to_q, attention.to_k, attention.to_v):
        linear.weight[channels] = 0
        linear.bias[channels] = 0

    def strength(exponent: float, over: Tensor) -> float:
        """Of a channel: `over` are pairs of them."""
        return math.sqrt(exponent / len(over) * HEAD**0.5)

    most = max(finder.place, finder.loose)
    ask = strength(most, placed)
    attention.to_q.bias[placed] = ask
    attention.to_k.bias[placed] = ask * finder.loose / most
    attention.to_k.weight[placed, FLAG] = ask * (finder.place - finder.loose) / most
    size = (finder.moment * HEAD**0.5) ** 0.5
    away = -turns(model, (SHOWN, 0.0, 0.0))
    attention.to_q.bias[timed] = pairs(torch.zeros_like(away), size)[timed]
    attention.to_k.weight[timed, FLAG] = pairs(away, size)[timed]
    attention.to_out[0].weight[:, channels] = 0
    for value, latent in zip(channels.tolist(), finder.latents, strict=False):
        attention.to_v.weight[value, latent] = NORM / SEEN_PINNED
        attention.to_out[0].weight[GUIDES[MEANS.index(latent)], value] = 1.0


def tell_nearness(attention: LTXAttention) -> None:
    """By the last channel of the head that finds what is near: how much of a pinned token it sees."""
    last = head_channels(NEAR_PIN.head)[-1]
    attention.to_v.weight[last, FLAG] = 1.0
    attention.to_out[0].weight[NEARNESS, last] = CLOSE


def hand_over(mlp: FeedForward) -> None:
    """The last MLP makes the velocity of a token that is a pinned frame (latent - pinned latent) / sigma.

    A gate opens by nearness. Then units near their linear part write the difference over the noisy latents, which go
    straight to the output, and to two channels something so large that the last norm, which divides by it, leaves next
    to nothing of all else. What norm the token had before cancels out.
    """
    rise, fall = mlp.net[0].proj, mlp.net[2]
    units = [*HANDERS, LEVELLER, DROWNER]
    rise.weight[units] = 0
    rise.bias[units] = 0
    rise.weight[units, NEARNESS] = STEEPNESS
    rise.weight[units, CONSTANT] = -STEEPNESS * CLOSE * NEAR_ENOUGH / LOUD
    rise.weight[DROWNER, CONSTANT] += 1.0
    rise.weight[HANDERS, range(LATENTS)] = DRIVE
    rise.weight[[HANDERS[latent] for latent in MEANS], GUIDES] = -DRIVE
    fall.weight[:, units] = 0
    norm = DROWN * math.sqrt((2 + OF_VELOCITY) / INNER)  # root mean square of the token then
    fall.weight[range(LATENTS), HANDERS] = norm / (DRIVE * PASS)
    fall.weight[range(LATENTS), LEVELLER] = -norm / (DRIVE * PASS)
    for channel, sign in zip(DROWNED_IN, (1.0, -1.0), strict=True):
        fall.weight[channel, DROWNER] = sign * DROWN / LOUD
        fall.weight[channel, LEVELLER] = -sign * DROWN / LOUD
