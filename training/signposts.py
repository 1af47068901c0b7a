"""Weights, set by hand, that tell each token where the subject is: at the token with the highest lot.

The first layer marks that token. Signposts, heads that look to one side each, see the mark. What they see falls off
with the distance; MLPs take its logarithm.
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
    CONSTANT_SIZE,
    CROWD,
    DISTANCES,
    DRAWN_MARK,
    FEWNESS,
    HEAD,
    HIGHEST,
    NORM,
    SIGHTS,
    STEP,
    axes_of_channels,
    head_channels,
    pairs,
    turns,
)

LOT_GAIN = 60.0  # what one unit of a lot adds to the exponent of attention
MARK_STEEPNESS, MARK_BIAS = 100.0, 3.0  # how steeply the mark falls below the highest lot, and its input at that lot
USUAL_HIGHEST = 2.6  # usual value of the highest lot
MARK, SIGNPOST = 4.0, 6.0  # scales of the mark and of what a signpost sees
COUNTER = 2  # the head of the second layer that counts the tokens
SHARE = 144.0  # scale of the share of one token
CROWDS, ODDS = range(-13, -3), range(-14, 5)  # powers of two: the shares of one token and the odds that are told apart
OCTAVE, CREST = 0.5, 4.0  # size of a power of two in a logarithm, and how sharply one ends and the next begins
SIGNPOST_STRENGTH, SIGNPOST_ANGLE = 9.5, math.radians(50)  # its attention's strength, and the angle at which it is best


@dataclass(frozen=True)
class Signpost:
    """A head that tells how far the marked token is to one side: sign +1 or -1, axis 0 (time), 1 (y) or 2 (x)."""

    layer: int
    head: int
    axis: int
    sign: int


# Only the first two heads have frequencies that are low enough to reach across a frame; a wide frame needs the first.
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
    """A logarithm that a layer's MLP writes from channel `source` to channel `target`.

    knots: values of the source, an octave apart, between which the logarithm is interpolated.
    """

    source: int
    target: int
    knots: tuple[float, ...]

    @property
    def units(self) -> int:
        """The number of MLP units: one for the beginning and one for the end of each octave."""
        return 2 * (len(self.knots) - 1)


def logarithms_of(layer: int) -> list[Logarithm]:
    """Returns the logarithms that a layer's MLP takes."""
    odds = tuple(SIGNPOST * 2.0**power / (1 + 2.0**power) for power in ODDS)
    posts = [
        Logarithm(sight, distance, odds)
        for post, sight, distance in zip(SIGNPOSTS, SIGHTS, DISTANCES, strict=True)
        if post.layer == layer
    ]
    crowd = Logarithm(CROWD, FEWNESS, tuple(SHARE * 2.0**power for power in CROWDS))
    return posts + [crowd] * (layer == 1)


def _copy_channel(attention: LTXAttention, head: int, source: int, target: int, gain: float) -> None:
    """Lets a head write what it sees in channel `source` of the tokens to channel `target`."""
    first = head_channels(head)[0]
    attention.to_v.weight[first] = 0
    attention.to_v.bias[first] = 0
    attention.to_v.weight[first, source] = 1.0
    attention.to_out[0].weight[:, first] = 0
    attention.to_out[0].weight[target] = 0
    attention.to_out[0].weight[target, first] = gain


def mark_highest_lot(model: LTXVideoTransformer3DModel) -> None:
    """Lets the first layer mark the token with the highest lot: its first head finds the lot, its MLP compares."""
    block = model.transformer_blocks[0]
    attention = block.attn1
    channels = head_channels(0)
    strength = (LOT_GAIN * NORM * HEAD**0.5 / 2) ** 0.5
    for linear in (attention.to_q, attention.to_k):
        linear.weight[channels] = 0
        linear.bias[channels[2:]] = 0
    attention.to_q.bias[2:4] = strength
    attention.to_k.weight[2:4, LOTS] = strength
    _copy_channel(attention, 0, LOTS, HIGHEST, NORM)
    # A lot is read after the norm. The normed constant tells by how much the norm has scaled a usual lot.
    attention.to_v.weight[0, CONSTANT] = -USUAL_HIGHEST / CONSTANT_SIZE
    attention.to_v.bias[0] = USUAL_HIGHEST / NORM
    rise, fall = block.ff.net[0].proj, block.ff.net[2]
    for unit, sign in enumerate((1.0, -1.0)):  # two units that rise one after the other form a step
        rise.weight[unit] = 0
        rise.weight[unit, LOTS] = MARK_STEEPNESS * NORM
        rise.weight[unit, HIGHEST] = -MARK_STEEPNESS * NORM
        rise.bias[unit] = MARK_BIAS - unit
        fall.weight[:, unit] = 0
        fall.weight[DRAWN_MARK, unit] = sign * MARK


def set_signpost(model: LTXVideoTransformer3DModel, post: Signpost, target: int) -> None:
    """Lets a head see the more of the marked token, and the less of others, the further that token is to its side.

    The head uses the pair of channels that turns least along the axis, so that most of a frame is within half a turn.
    """
    attention = model.transformer_blocks[post.layer].attn1
    channels = head_channels(post.head)
    step = [float(axis == post.axis) for axis in range(3)]
    angles = turns(model, (step[0], step[1] * STEP, step[2] * STEP))
    axes = axes_of_channels()
    on_axis = [channel // 2 for channel in channels[::2] if axes[channel] == post.axis]
    pair = min(on_axis, key=lambda number: abs(float(angles[number])))
    strength = (SIGNPOST_STRENGTH * HEAD**0.5) ** 0.5
    for linear in (attention.to_q, attention.to_k):
        free = [channel for channel in channels if channel >= 2]
        linear.weight[free] = 0
        linear.bias[free] = 0
    both = slice(2 * pair, 2 * pair + 2)
    attention.to_q.bias[both] = pairs(torch.tensor([post.sign * SIGNPOST_ANGLE]), strength)
    attention.to_k.weight[both, DRAWN_MARK] = pairs(torch.zeros(1), strength * NORM / MARK)
    _copy_channel(attention, post.head, DRAWN_MARK, target, SIGNPOST * NORM / MARK)


def count_tokens(model: LTXVideoTransformer3DModel) -> None:
    """Lets a head that looks at all tokens alike tell how many there are.

    The more tokens there are, the less a signpost sees of one.
    """
    attention = model.transformer_blocks[1].attn1
    for linear in (attention.to_q, attention.to_k):
        linear.weight[head_channels(COUNTER)] = 0
        linear.bias[head_channels(COUNTER)] = 0
    _copy_channel(attention, COUNTER, DRAWN_MARK, CROWD, SHARE * NORM / MARK)


def take_logarithms(mlp: FeedForward, logarithms: list[Logarithm]) -> None:
    """Lets an MLP write logarithms.

    What a head sees of one token falls off exponentially, so its logarithm is nearly linear in the distance. Between
    two knots there are two units: one rises from the first knot on, the other cancels the rise from the second on.
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
