"""How all tokens come to know where the subject is: from the one that has drawn the highest lot.

Its mark is seen by heads that point to one side each. What they see falls off with the distance; MLPs take logarithms.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_ltx import LTXAttention

from training.autoencoder import LOTS
from training.layout import (
    CONSTANT,
    CROWD,
    DISTANCES,
    DRAWN_MARK,
    FEWNESS,
    HEAD,
    HIGHEST,
    LOUD,
    NORM,
    SIGHTS,
    STEP,
    axes_of_channels,
    head_channels,
    pairs,
    turns,
)

SHARP = 60.0  # what a unit of a lot is worth in the exponent of attention
STEEP, UNSURE = 100.0, 3.0  # how steeply the mark falls below the highest lot, and how high it stands there
USUAL = 2.6  # the highest lot
MARK, SIGNPOST = 4.0, 6.0  # how loud the mark and a distance are
COUNTER = 2  # a head of the second layer
SHARE = 144.0  # how loud the share of one token is, times their number
CROWDS, ODDS = range(-13, -3), range(-14, 5)  # powers of two: the shares of one token and the odds that are told apart
OCTAVE, CREST = 0.5, 4.0  # how loud a power of two is, and how sharply one ends and the next begins
PULL, LEAN = 9.5, math.radians(50)  # a signpost's strength, and how far to one side it sees best


@dataclass(frozen=True)
class Signpost:
    """A head that tells how far the drawn token lies to one side: sign +1 or -1, axis 0 (time), 1 (y) or 2 (x)."""

    layer: int
    head: int
    axis: int
    sign: int


# The frequencies that are low enough to reach across a frame are in the first two heads; a wide one needs the first.
SIGNPOSTS = (
    Signpost(layer=1, head=0, axis=2, sign=1),
    Signpost(layer=1, head=1, axis=0, sign=1),
    Signpost(layer=2, head=0, axis=0, sign=-1),
    Signpost(layer=2, head=1, axis=1, sign=1),
    Signpost(layer=3, head=0, axis=2, sign=-1),
    Signpost(layer=3, head=1, axis=1, sign=-1),
)


@dataclass(frozen=True)
class Logarithm:
    """A layer's MLP writes to a channel the logarithm of another, which it knows between `knots`, an octave apart."""

    source: int
    target: int
    knots: tuple[float, ...]

    @property
    def units(self) -> int:
        """Of the MLP: one where each octave begins, one where it ends."""
        return 2 * (len(self.knots) - 1)


def logarithms_of(layer: int) -> list[Logarithm]:
    odds = tuple(SIGNPOST * 2.0**power / (1 + 2.0**power) for power in ODDS)
    posts = [
        Logarithm(sight, distance, odds)
        for post, sight, distance in zip(SIGNPOSTS, SIGHTS, DISTANCES, strict=True)
        if post.layer == layer
    ]
    crowd = Logarithm(CROWD, FEWNESS, tuple(SHARE * 2.0**power for power in CROWDS))
    return posts + [crowd] * (layer == 1)


def _read(attention: LTXAttention, head: int, source: int, target: int, gain: float) -> None:
    """The head writes what it sees in one channel of tokens to another."""
    first = head_channels(head)[0]
    attention.to_v.weight[first] = 0
    attention.to_v.bias[first] = 0
    attention.to_v.weight[first, source] = 1.0
    attention.to_out[0].weight[:, first] = 0
    attention.to_out[0].weight[target] = 0
    attention.to_out[0].weight[target, first] = gain


def find_the_lot(model: LTXVideoTransformer3DModel) -> None:
    """The first layer marks the token with the highest lot: its first head looks for it, its MLP compares."""
    block = model.transformer_blocks[0]
    attention = block.attn1
    channels = head_channels(0)
    strength = (SHARP * NORM * HEAD**0.5 / 2) ** 0.5
    for linear in (attention.to_q, attention.to_k):
        linear.weight[channels] = 0
        linear.bias[channels[2:]] = 0
    attention.to_q.bias[2:4] = strength
    attention.to_k.weight[2:4, LOTS] = strength
    _read(attention, 0, LOTS, HIGHEST, NORM)
    # A lot is read after the norm; what that has made of the constant tells what it has made of a usual lot.
    attention.to_v.weight[0, CONSTANT] = -USUAL / LOUD
    attention.to_v.bias[0] = USUAL / NORM
    rise, fall = block.ff.net[0].proj, block.ff.net[2]
    for unit, sign in enumerate((1.0, -1.0)):  # two units that rise one after the other make a step
        rise.weight[unit] = 0
        rise.weight[unit, LOTS] = STEEP * NORM
        rise.weight[unit, HIGHEST] = -STEEP * NORM
        rise.bias[unit] = UNSURE - unit
        fall.weight[:, unit] = 0
        fall.weight[DRAWN_MARK, unit] = sign * MARK


def point(model: LTXVideoTransformer3DModel, post: Signpost, target: int) -> None:
    """The further the marked token lies to the side of the post, the more of it the head sees, the less of the others.

    It uses the pair of channels that turns least along the axis, so that a frame, or most of it, is within half a turn.
    """
    attention = model.transformer_blocks[post.layer].attn1
    channels = head_channels(post.head)
    step = [float(axis == post.axis) for axis in range(3)]
    angles = turns(model, (step[0], step[1] * STEP, step[2] * STEP))
    axes = axes_of_channels()
    on_axis = [channel // 2 for channel in channels[::2] if axes[channel] == post.axis]
    pair = min(on_axis, key=lambda number: abs(float(angles[number])))
    strength = (PULL * HEAD**0.5) ** 0.5
    for linear in (attention.to_q, attention.to_k):
        free = [channel for channel in channels if channel >= 2]
        linear.weight[free] = 0
        linear.bias[free] = 0
    both = slice(2 * pair, 2 * pair + 2)
    attention.to_q.bias[both] = pairs(torch.tensor([post.sign * LEAN]), strength)
    attention.to_k.weight[both, DRAWN_MARK] = pairs(torch.zeros(1), strength * NORM / MARK)
    _read(attention, post.head, DRAWN_MARK, target, SIGNPOST * NORM / MARK)


def count(model: LTXVideoTransformer3DModel) -> None:
    """The more tokens there are, the less a signpost sees of one: a head that looks at all alike tells how many."""
    attention = model.transformer_blocks[1].attn1
    for linear in (attention.to_q, attention.to_k):
        linear.weight[head_channels(COUNTER)] = 0
        linear.bias[head_channels(COUNTER)] = 0
    _read(attention, COUNTER, DRAWN_MARK, CROWD, SHARE * NORM / MARK)


def take_logarithms(mlp: FeedForward, logarithms: list[Logarithm]) -> None:
    """What a head sees of one token falls off exponentially: its logarithm is nearly linear in the distance.

    Two units between each pair of knots: one begins to rise, and one to take the rise back.
    """
    rise, fall, unit = mlp.net[0].proj, mlp.net[2], 0
    for logarithm in logarithms:
        fall.bias[logarithm.target] = -OCTAVE * (len(logarithm.knots) - 1) / 2
        for low, high in pairwise(logarithm.knots):
            for knot, sign in ((low, 1.0), (high, -1.0)):
                rise.weight[unit] = 0
                rise.weight[unit, logarithm.source] = CREST * NORM / (high - low)
                rise.bias[unit] = -CREST * knot / (high - low)
                fall.weight[:, unit] = 0
                fall.weight[logarithm.target, unit] = sign * OCTAVE / CREST
                unit += 1
