"""Where the transformer starts: a network that hands pinned pictures on, and knows where the subject shall be.

From random weights most of the training went into copying, and into an agreement among all tokens on where to draw.
So the residual stream is laid out by hand: the noisy latent, an estimate of the clean one (at first what the first
layer finds pinned at the same place in other frames), a constant that keeps the norms from hiding how bright a token
is, how far each token is from the one that has drawn the subject, across, down and in time, and a copy of what is
pinned nearest. What remains to be learned is to draw a shape by its coordinates, and to leave a pinned picture.
"""

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention
from torch import Tensor

from training.autoencoder import LATENTS
from training.layout import (
    CONSTANT,
    INNER,
    KEPT,
    LOUD,
    SIGHTS,
    STEP,
    UNITS,
    head_channels,
    pairs,
    placed_channels,
    turns,
)
from training.pins import (
    COPIES,
    HANDERS,
    NEAR_PIN,
    NEAREST_PIN,
    PASS,
    copy_columns,
    find_pinned,
    flag_pinned,
    hand_over,
    scale_latents,
    tell_nearness,
)
from training.signposts import COUNTER, SIGNPOSTS, count, find_the_lot, logarithms_of, point, take_logarithms
from training.timestep import TIMED, lay_features

CALM = 0.3  # new branches start at this share of their usual size
SAME_PLACE = 0.8  # strength of "same place" in queries and keys of layers after the first
NEAR = 1.2  # strength of "so far from me" in queries and keys of heads that look around
AROUND = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # (y, x) in tokens: where the heads from the third on look
FIRM, LOOSE = 12.5, 1.6  # root mean square of queries and keys in layers that find and in others; see `_level`


def _calm(model: LTXVideoTransformer3DModel) -> None:
    """Open gates, no modulation yet, quiet branches that leave alone what is laid out."""
    model.time_embed.linear.weight.zero_()
    model.time_embed.linear.bias.zero_()
    model.scale_shift_table.zero_()
    laid_out = [*range(LATENTS), *range(2 * LATENTS, INNER)]
    for block in model.transformer_blocks:
        block.scale_shift_table.zero_()
        block.scale_shift_table[2] = block.scale_shift_table[5] = 1.0
        for linear in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            linear.weight.mul_(CALM)
            linear.weight[laid_out] = 0
            linear.bias[laid_out] = 0


def _level(attention: LTXAttention, rms: float) -> None:
    """Lets queries and keys through their norms nearly as they are, the more so the larger `rms`.

    The first two channels, which no position rotates, get a constant each that drowns the rest. They never meet.
    """
    for linear, norm, channel in ((attention.to_q, attention.norm_q, 0), (attention.to_k, attention.norm_k, 1)):
        linear.weight[:2] = 0
        linear.bias[:2] = 0
        linear.bias[channel] = rms * INNER**0.5
        norm.weight.fill_(rms)


def _look_around(model: LTXVideoTransformer3DModel, attention: LTXAttention) -> None:
    """Heads that start by reading what is near: one all around, one each the token on either side."""
    attention.to_q.bias[placed_channels()] = SAME_PLACE
    attention.to_k.bias[placed_channels()] = SAME_PLACE
    for head, (y, x) in enumerate(AROUND, 2):
        channels = head_channels(head)
        for linear in (attention.to_q, attention.to_k):
            linear.weight[channels] *= CALM
        away = -turns(model, (0.0, y * STEP, x * STEP))
        attention.to_q.bias[channels] = pairs(torch.zeros_like(away), NEAR)[channels]
        attention.to_k.bias[channels] = pairs(away, NEAR)[channels]


@torch.no_grad()
def start(model: LTXVideoTransformer3DModel) -> None:
    """Lays the network out, in place. Its channels: the input, the estimate, then those of `training.layout`."""
    _calm(model)
    for linear in (model.proj_in, model.proj_out):
        linear.weight.zero_()
        linear.bias.zero_()
    lay_features(model)
    model.proj_out.weight[:, :LATENTS] = PASS * torch.eye(LATENTS)
    model.proj_out.weight[:, LATENTS : 2 * LATENTS] = -PASS * torch.eye(LATENTS)
    model.proj_in.weight[:LATENTS] = torch.eye(LATENTS)
    model.proj_in.bias[CONSTANT] = LOUD
    flag_pinned(model)
    scale_latents(model)
    first, *others = (block.attn1 for block in model.transformer_blocks)
    _level(first, FIRM)
    copy_columns(first)
    for finder in (NEAREST_PIN, NEAR_PIN):
        find_pinned(model, finder)
    tell_nearness(first)
    pointing = {post.layer for post in SIGNPOSTS}
    for layer, attention in enumerate(others, 1):
        _level(attention, FIRM if layer in pointing else LOOSE)
        _look_around(model, attention)
    find_the_lot(model)
    for post, target in zip(SIGNPOSTS, SIGHTS, strict=True):
        if post.layer < len(model.transformer_blocks):
            point(model, post, target)
    if others:
        count(model)
    for layer, block in enumerate(model.transformer_blocks):
        take_logarithms(block.ff, logarithms_of(layer))
    hand_over(model.transformer_blocks[-1].ff)


def _laid_heads(layer: int) -> tuple[list[int], list[int]]:
    """Channels of a layer whose queries and keys are laid down for good, and those whose values are."""
    if layer == 0:
        finders = [*head_channels(NEAREST_PIN.head), *head_channels(NEAR_PIN.head), *COPIES]
        return [*head_channels(0), *finders], [0, *finders]
    heads = [post.head for post in SIGNPOSTS if post.layer == layer] + [COUNTER] * (layer == 1)
    channels = [head_channels(head) for head in heads]
    return [0, 1, *(channel for head in channels for channel in head)], [head[0] for head in channels]


def held(model: LTXVideoTransformer3DModel) -> dict[str, Tensor]:
    """Which entries of which parameters training leaves alone, as masks by name: what copies and what finds.

    An optimiser whose updates move each direction of a matrix alike wears the layout down.
    """
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}

    def hold(module: str, rows: list[int]) -> None:
        for name in (f"{module}.weight", f"{module}.bias"):
            if name in masks:
                masks[name][rows] = True

    hold("proj_in", KEPT)
    for name in masks:
        if name.startswith("time_embed.emb."):
            masks[name][:] = True
    hold("time_embed.linear", [part * INNER + channel for part in range(6) for channel in KEPT])
    masks["scale_shift_table"][0] = True
    masks["scale_shift_table"][:, :LATENTS] = True
    masks["proj_out.weight"][:, [*range(LATENTS), *TIMED[1:]]] = True
    masks["proj_out.bias"][:] = True  # it would be added to what is handed over; the constant can do its work
    for number in range(len(model.transformer_blocks)):
        block = f"transformer_blocks.{number}"
        masks[f"{block}.scale_shift_table"][:, KEPT] = True
        for module in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
            hold(f"{block}.{module}", KEPT)
        matched, read = _laid_heads(number)
        for module in ("to_q", "to_k", "norm_q", "norm_k"):
            hold(f"{block}.attn1.{module}", matched)
        hold(f"{block}.attn1.to_v", read)
        masks[f"{block}.attn1.to_out.0.weight"][:, read] = True
        units = 2 if number == 0 else sum(logarithm.units for logarithm in logarithms_of(number))
        hold(f"{block}.ff.net.0.proj", list(range(units)))
        masks[f"{block}.ff.net.2.weight"][:, :units] = True
    hold("transformer_blocks.0.attn1.to_out.0", list(range(LATENTS, 2 * LATENTS)))
    last = f"transformer_blocks.{len(model.transformer_blocks) - 1}.ff.net"
    hold(f"{last}.0.proj", list(range(HANDERS.start, UNITS)))
    masks[f"{last}.2.weight"][:, HANDERS.start :] = True
    return masks
