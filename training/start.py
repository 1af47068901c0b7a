"""Initialises the transformer so that it copies pinned pictures and knows where the subject should be.

From random weights, most of the training went into copying, and into an agreement among all tokens on where to draw.
So the residual stream is laid out by hand. It holds the noisy latents; an estimate of the clean ones (at first, what
the first layer finds pinned at the same place in other frames); a constant that keeps the norms from hiding how bright
a token is; the distance of each token from the subject's centre, horizontally, vertically and in time; and a copy of
the nearest pinned picture. Training then teaches how to draw a shape by its coordinates, and how to move away from a
pinned picture.
"""

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention
from torch import Tensor

from training.autoencoder import LATENTS
from training.layout import (
    CONSTANT,
    CONSTANT_SIZE,
    INNER,
    KEPT,
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
    OUTPUT_GAIN,
    copy_columns,
    find_pinned,
    flag_pinned,
    hand_over,
    scale_latents,
    tell_nearness,
)
from training.signposts import (
    COUNTER,
    SIGNPOSTS,
    count_tokens,
    logarithms_of,
    mark_highest_lot,
    set_signpost,
    take_logarithms,
)
from training.timestep import TIME_CHANNELS, set_features

BRANCH_SCALE = 0.3  # branches start at this share of their usual size
SAME_PLACE = 0.8  # strength of "same place" in queries and keys of layers after the first
NEAR = 1.2  # strength of "at this offset" in queries and keys of heads that look around
AROUND = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # (y, x) offsets in tokens, for the heads from the third on
HIGH_RMS, LOW_RMS = 12.5, 1.6  # root mean square of queries and keys in layers that find tokens, and in others


def _calm_branches(model: LTXVideoTransformer3DModel) -> None:
    """Opens the gates, removes modulations, and scales down branches, which leave the laid-out channels alone."""
    model.time_embed.linear.weight.zero_()
    model.time_embed.linear.bias.zero_()
    model.scale_shift_table.zero_()
    laid_out = [*range(LATENTS), *range(2 * LATENTS, INNER)]
    for block in model.transformer_blocks:
        block.scale_shift_table.zero_()
        block.scale_shift_table[2] = block.scale_shift_table[5] = 1.0
        for linear in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            linear.weight.mul_(BRANCH_SCALE)
            linear.weight[laid_out] = 0
            linear.bias[laid_out] = 0


def _bypass_norms(attention: LTXAttention, rms: float) -> None:
    """Lets queries and keys pass their norms nearly unchanged, the more so the larger `rms` is.

    The first two channels, which no position rotates, get a constant that dominates the norm: one of them in queries,
    the other in keys, so that their product is zero.
    """
    for linear, norm, channel in ((attention.to_q, attention.norm_q, 0), (attention.to_k, attention.norm_k, 1)):
        linear.weight[:2] = 0
        linear.bias[:2] = 0
        linear.bias[channel] = rms * INNER**0.5
        norm.weight.fill_(rms)


def _look_around(model: LTXVideoTransformer3DModel, attention: LTXAttention) -> None:
    """Lets heads start by reading near tokens: one reads all around its token, four read one neighbour each."""
    attention.to_q.bias[placed_channels()] = SAME_PLACE
    attention.to_k.bias[placed_channels()] = SAME_PLACE
    for head, (y, x) in enumerate(AROUND, 2):
        channels = head_channels(head)
        for linear in (attention.to_q, attention.to_k):
            linear.weight[channels] *= BRANCH_SCALE
        away = -turns(model, (0.0, y * STEP, x * STEP))
        attention.to_q.bias[channels] = pairs(torch.zeros_like(away), NEAR)[channels]
        attention.to_k.bias[channels] = pairs(away, NEAR)[channels]


@torch.no_grad()
def start(model: LTXVideoTransformer3DModel) -> None:
    """Sets the initial weights, in place. The channels are the input, the estimate, then those of `training.layout`."""
    _calm_branches(model)
    for linear in (model.proj_in, model.proj_out):
        linear.weight.zero_()
        linear.bias.zero_()
    set_features(model)
    model.proj_out.weight[:, :LATENTS] = OUTPUT_GAIN * torch.eye(LATENTS)
    model.proj_out.weight[:, LATENTS : 2 * LATENTS] = -OUTPUT_GAIN * torch.eye(LATENTS)
    model.proj_in.weight[:LATENTS] = torch.eye(LATENTS)
    model.proj_in.bias[CONSTANT] = CONSTANT_SIZE
    flag_pinned(model)
    scale_latents(model)
    first, *others = (block.attn1 for block in model.transformer_blocks)
    _bypass_norms(first, HIGH_RMS)
    copy_columns(first)
    for finder in (NEAREST_PIN, NEAR_PIN):
        find_pinned(model, finder)
    tell_nearness(first)
    pointing = {post.layer for post in SIGNPOSTS}
    for layer, attention in enumerate(others, 1):
        _bypass_norms(attention, HIGH_RMS if layer in pointing else LOW_RMS)
        _look_around(model, attention)
    mark_highest_lot(model)
    for post, target in zip(SIGNPOSTS, SIGHTS, strict=True):
        if post.layer < len(model.transformer_blocks):
            set_signpost(model, post, target)
    if others:
        count_tokens(model)
    for layer, block in enumerate(model.transformer_blocks):
        take_logarithms(block.ff, logarithms_of(layer))
    hand_over(model.transformer_blocks[-1].ff)


def _fixed_channels(layer: int) -> tuple[list[int], list[int]]:
    """Returns the channels of a layer whose queries and keys are fixed, and those whose values are."""
    if layer == 0:
        finders = [*head_channels(NEAREST_PIN.head), *head_channels(NEAR_PIN.head), *COPIES]
        return [*head_channels(0), *finders], [0, *finders]
    heads = [post.head for post in SIGNPOSTS if post.layer == layer] + [COUNTER] * (layer == 1)
    channels = [head_channels(head) for head in heads]
    return [0, 1, *(channel for head in channels for channel in head)], [head[0] for head in channels]


def held(model: LTXVideoTransformer3DModel) -> dict[str, Tensor]:
    """Returns the entries that training must not change, as masks by parameter name: the weights that copy and find.

    An optimiser whose updates move each direction of a matrix alike would wear them down.
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
    masks["proj_out.weight"][:, [*range(LATENTS), *TIME_CHANNELS[1:]]] = True
    masks["proj_out.bias"][:] = True  # it would be added to handed-over frames, and the constant can replace it
    for number in range(len(model.transformer_blocks)):
        block = f"transformer_blocks.{number}"
        masks[f"{block}.scale_shift_table"][:, KEPT] = True
        for module in ("attn1.to_out.0", "attn2.to_out.0", "ff.net.2"):
            hold(f"{block}.{module}", KEPT)
        matched, read = _fixed_channels(number)
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
