"""Where the transformer starts: a network that hands pinned pictures on, and knows where the subject shall be.

From random weights most of the training went into copying, and into an agreement among all tokens on where to draw.
So the residual stream is laid out by hand: the noisy latent, an estimate of the clean one (at first what the first
layer finds pinned at the same place in other frames), a constant that keeps the norms from hiding how bright a token
is, and how far each token is from the one that has drawn the subject, across, down and in time. What remains to be
learned is to draw a shape by its coordinates.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_ltx import LTXAttention
from torch import Tensor, nn

from training.autoencoder import BLOCK, CELL, LATENTS, LOTS
from training.scenes import WHEREABOUTS

INNER, HEADS = 256, 8
HEAD = INNER // HEADS
LOUD = 24.0  # the constant; the noise of a token has a norm of about 10.6
NORM = math.sqrt((LOUD**2 + LATENTS) / INNER)  # root mean square of a token, about the same for all
COLUMN = 1.6  # strength of "same place" in queries of the first layer, and for pinned tokens in keys
QUIET = 0.6  # the same in the keys of tokens that are not pinned
SAME_PLACE = 0.8  # the same in the other layers
CALM = 0.3  # new branches start at this share of their usual size
NEAR = 1.2  # strength of "so far from me" in queries and keys of heads that look around
STEP = float(CELL * BLOCK)  # pixels from a token to the next
AROUND = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # (y, x) in tokens: where the heads from the third on look
FIRM, LOOSE = 12.5, 1.6  # root mean square of queries and keys in layers that find and in others; see `_level`
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

# Channels of the residual stream, after the latents and their estimate.
CONSTANT, FLAG, HIGHEST, DRAWN_MARK = range(2 * LATENTS, 2 * LATENTS + 4)  # FLAG: is pinned
SIGHTS = range(2 * LATENTS + 4, 2 * LATENTS + 4 + len(SIGNPOSTS))  # how much of the marked token a signpost's head sees
CROWD, FEWNESS = SIGHTS.stop, SIGHTS.stop + 1  # the share of one token among all, and its logarithm
DISTANCES = range(FEWNESS + 1, FEWNESS + 1 + len(SIGNPOSTS))
HELD = [LOTS, CONSTANT, FLAG, HIGHEST, DRAWN_MARK, *SIGHTS, CROWD, FEWNESS, *DISTANCES]
# What training makes of it all, the place finely and coarsely: `training.transformer.place_loss`.
PLACES = range(DISTANCES.stop, DISTANCES.stop + 2 + WHEREABOUTS)


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


def _logarithms(layer: int) -> list[Logarithm]:
    odds = tuple(SIGNPOST * 2.0**power / (1 + 2.0**power) for power in ODDS)
    posts = [
        Logarithm(sight, distance, odds)
        for post, sight, distance in zip(SIGNPOSTS, SIGHTS, DISTANCES, strict=True)
        if post.layer == layer
    ]
    crowd = Logarithm(CROWD, FEWNESS, tuple(SHARE * 2.0**power for power in CROWDS))
    return posts + [crowd] * (layer == 1)


def _head(head: int) -> range:
    """Its channels."""
    return range(head * HEAD, (head + 1) * HEAD)


def _places() -> Tensor:
    """Channels of the last half of the heads that are rotated by y or x.

    Their frequencies are so high that different places match at random and only equal ones match well.
    """
    channel = torch.arange(INNER)
    axis = (channel - INNER % 6) // 2 % 3
    return (channel >= INNER // 2) & (axis > 0)


def _turns(model: LTXVideoTransformer3DModel, step: tuple[float, float, float]) -> Tensor:
    """By what angles rotary embeddings turn pairs of channels over a step in seconds and pixels, (INNER / 2,)."""
    coordinates = torch.tensor([[0.0, length] for length in step])
    cos, sin = model.rope(torch.zeros(1, 2, 1), video_coords=coordinates[None])
    cos, sin = cos[0, :, ::2], sin[0, :, ::2]
    return torch.atan2(sin[1] * cos[0] - cos[1] * sin[0], cos[0] * cos[1] + sin[0] * sin[1])


def _pairs(angles: Tensor, size: float) -> Tensor:
    """Pairs of channels at these angles, (2 x pairs,)."""
    return size * torch.stack([angles.cos(), angles.sin()], 1).flatten()


def _solve_flag(model: LTXVideoTransformer3DModel) -> None:
    """Makes the first shift of the flag one at timestep 0 (pinned) and zero at any other."""
    times = torch.cat([torch.zeros(200), torch.linspace(3, 1000, 600)])
    _, embedded = model.time_embed(times, batch_size=len(times), hidden_dtype=torch.float32)
    features = nn.functional.pad(nn.functional.silu(embedded), (0, 1), value=1.0)
    wanted = (times == 0).float()
    ridge = 1e-6 * torch.eye(features.shape[1])
    row = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted)
    model.time_embed.linear.weight[FLAG] = row[:-1]
    model.time_embed.linear.bias[FLAG] = row[-1]


def _calm(model: LTXVideoTransformer3DModel) -> None:
    """Open gates, no modulation yet, quiet branches that leave alone what is laid out."""
    model.time_embed.linear.weight.zero_()
    model.time_embed.linear.bias.zero_()
    model.scale_shift_table.zero_()
    for block in model.transformer_blocks:
        block.scale_shift_table.zero_()
        block.scale_shift_table[2] = block.scale_shift_table[5] = 1.0
        for linear in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            linear.weight.mul_(CALM)
            linear.weight[[LOTS, *range(2 * LATENTS, INNER)]] = 0
            linear.bias[[LOTS, *range(2 * LATENTS, INNER)]] = 0


def _level(attention: LTXAttention, rms: float) -> None:
    """Lets queries and keys through their norms nearly as they are, the more so the larger `rms`.

    The first two channels, which no position rotates, get a constant each that drowns the rest. They never meet.
    """
    for linear, norm, channel in ((attention.to_q, attention.norm_q, 0), (attention.to_k, attention.norm_k, 1)):
        linear.weight[:2] = 0
        linear.bias[:2] = 0
        linear.bias[channel] = rms * INNER**0.5
        norm.weight.fill_(rms)


def _copy_columns(attention: LTXAttention) -> None:
    """The first layer's last heads: attend to pinned tokens at the same place, write what they hold."""
    places, latents, values = _places(), torch.arange(LATENTS), torch.arange(LATENTS) + INNER // 2
    attention.to_q.bias[places] = COLUMN
    attention.to_k.bias[places] = QUIET
    attention.to_k.weight[places, FLAG] = COLUMN - QUIET
    attention.to_v.weight[INNER // 2 :] = 0
    attention.to_v.bias[INNER // 2 :] = 0
    attention.to_v.weight[values, latents] = NORM
    attention.to_out[0].weight[LATENTS : 2 * LATENTS] = 0
    attention.to_out[0].weight[latents + LATENTS, values] = 1.0


def _look_around(model: LTXVideoTransformer3DModel, attention: LTXAttention) -> None:
    """Heads that start by reading what is near: one all around, one each the token on either side."""
    attention.to_q.bias[_places()] = SAME_PLACE
    attention.to_k.bias[_places()] = SAME_PLACE
    for head, (y, x) in enumerate(AROUND, 2):
        channels = _head(head)
        for linear in (attention.to_q, attention.to_k):
            linear.weight[channels] *= CALM
        away = -_turns(model, (0.0, y * STEP, x * STEP))
        attention.to_q.bias[channels] = _pairs(torch.zeros_like(away), NEAR)[channels]
        attention.to_k.bias[channels] = _pairs(away, NEAR)[channels]


def _read(attention: LTXAttention, head: int, source: int, target: int, gain: float) -> None:
    """The head writes what it sees in one channel of tokens to another."""
    first = _head(head)[0]
    attention.to_v.weight[first] = 0
    attention.to_v.bias[first] = 0
    attention.to_v.weight[first, source] = 1.0
    attention.to_out[0].weight[:, first] = 0
    attention.to_out[0].weight[target] = 0
    attention.to_out[0].weight[target, first] = gain


def _find_the_lot(model: LTXVideoTransformer3DModel) -> None:
    """The first layer marks the token with the highest lot: its first head looks for it, its MLP compares."""
    block = model.transformer_blocks[0]
    attention = block.attn1
    channels = _head(0)
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


def _point(model: LTXVideoTransformer3DModel, post: Signpost, target: int) -> None:
    """The further the marked token lies to the side of the post, the more of it the head sees, the less of the others.

    It uses the pair of channels that turns least along the axis, so that a frame, or most of it, is within half a turn.
    """
    attention = model.transformer_blocks[post.layer].attn1
    channels = _head(post.head)
    step = [float(axis == post.axis) for axis in range(3)]
    turns = _turns(model, (step[0], step[1] * STEP, step[2] * STEP))
    on_axis = [channel // 2 for channel in channels[::2] if channel >= 4 and (channel // 2 - 2) % 3 == post.axis]
    pair = min(on_axis, key=lambda number: abs(float(turns[number])))
    strength = (PULL * HEAD**0.5) ** 0.5
    for linear in (attention.to_q, attention.to_k):
        free = [channel for channel in channels if channel >= 2]
        linear.weight[free] = 0
        linear.bias[free] = 0
    both = slice(2 * pair, 2 * pair + 2)
    attention.to_q.bias[both] = _pairs(torch.tensor([post.sign * LEAN]), strength)
    attention.to_k.weight[both, DRAWN_MARK] = _pairs(torch.zeros(1), strength * NORM / MARK)
    _read(attention, post.head, DRAWN_MARK, target, SIGNPOST * NORM / MARK)


def _count(model: LTXVideoTransformer3DModel) -> None:
    """The more tokens there are, the less a signpost sees of one: a head that looks at all alike tells how many."""
    attention = model.transformer_blocks[1].attn1
    for linear in (attention.to_q, attention.to_k):
        linear.weight[_head(COUNTER)] = 0
        linear.bias[_head(COUNTER)] = 0
    _read(attention, COUNTER, DRAWN_MARK, CROWD, SHARE * NORM / MARK)


def _take_logarithms(mlp: FeedForward, logarithms: list[Logarithm]) -> None:
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


@torch.no_grad()
def start(model: LTXVideoTransformer3DModel) -> None:
    """Lays the network out, in place. Its channels: the input, the estimate, then those named above."""
    _calm(model)
    for linear in (model.proj_in, model.proj_out):
        linear.weight.zero_()
        linear.bias.zero_()
    model.proj_in.weight[:LATENTS] = torch.eye(LATENTS)
    model.proj_in.bias[CONSTANT] = LOUD
    _solve_flag(model)
    first, *others = (block.attn1 for block in model.transformer_blocks)
    _level(first, FIRM)
    _copy_columns(first)
    pointing = {post.layer for post in SIGNPOSTS}
    for layer, attention in enumerate(others, 1):
        _level(attention, FIRM if layer in pointing else LOOSE)
        _look_around(model, attention)
    _find_the_lot(model)
    for post, target in zip(SIGNPOSTS, SIGHTS, strict=True):
        if post.layer < len(model.transformer_blocks):
            _point(model, post, target)
    if others:
        _count(model)
    for layer, block in enumerate(model.transformer_blocks):
        _take_logarithms(block.ff, _logarithms(layer))
    model.proj_out.weight[:, :LATENTS] = NORM * torch.eye(LATENTS)
    model.proj_out.weight[:, LATENTS : 2 * LATENTS] = -NORM * torch.eye(LATENTS)


def _laid_heads(layer: int) -> tuple[list[int], list[int]]:
    """Channels of a layer whose queries and keys are laid down for good, and those whose values are."""
    if layer == 0:
        columns = list(range(INNER // 2, INNER))
        return [*_head(0), *columns], [0, *columns]
    heads = [_head(post.head) for post in SIGNPOSTS if post.layer == layer] + [_head(COUNTER)] * (layer == 1)
    return [0, 1, *(channel for head in heads for channel in head)], [head[0] for head in heads]


def held(model: LTXVideoTransformer3DModel) -> dict[str, Tensor]:
    """Which entries of which parameters training leaves alone, as masks by name: what copies and what finds.

    An optimiser whose updates move each direction of a matrix alike wears the layout down.
    """
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}

    def hold(module: str, rows: list[int]) -> None:
        for name in (f"{module}.weight", f"{module}.bias"):
            if name in masks:
                masks[name][rows] = True

    hold("proj_in", HELD)
    hold("time_embed.linear", [part * INNER + channel for part in range(6) for channel in HELD])
    for number in range(len(model.transformer_blocks)):
        block = f"transformer_blocks.{number}"
        masks[f"{block}.scale_shift_table"][:, HELD] = True
        for module in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
            hold(f"{block}.{module}", HELD)
        matched, read = _laid_heads(number)
        for module in ("to_q", "to_k", "norm_q", "norm_k"):
            hold(f"{block}.attn1.{module}", matched)
        hold(f"{block}.attn1.to_v", read)
        masks[f"{block}.attn1.to_out.0.weight"][:, read] = True
        units = 2 if number == 0 else sum(logarithm.units for logarithm in _logarithms(number))
        hold(f"{block}.ff.net.0.proj", list(range(units)))
        masks[f"{block}.ff.net.2.weight"][:, :units] = True
    hold("transformer_blocks.0.attn1.to_out.0", list(range(LATENTS, 2 * LATENTS)))
    return masks
