"""The timestep: features of it that stay as they are, and modulations that are laid down as functions of it."""

import math
from collections.abc import Sequence

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn

from training.layout import HELD, INNER

TIMED = HELD[1:]  # channels that tell the time; but for the constant, the first, the output does not read them
SLOW_SIZE, SLOWEST_TOLD = 2.8, 0.03  # how fast smooth features change; frequencies from which on they do not see
FAST_UNITS, FAST_CHANNELS = 16, 8
RIDGE = 1e-5  # keeps weights small enough for bfloat16


def lay_features(model: LTXVideoTransformer3DModel) -> None:
    """Smooth features of the timestep, from which any smooth modulation can be made, and some that tell 0 from 3.

    In channels of which nothing is left to the output: what scales its norm is the same at all times.
    """
    embedder = model.time_embed.emb.timestep_embedder
    first, second = embedder.linear_1, embedder.linear_2
    for linear, size in ((first, SLOW_SIZE), (second, 1.5)):
        nn.init.normal_(linear.weight, std=size * linear.in_features**-0.5)
        nn.init.normal_(linear.bias, std=0.4)
    waves = first.in_features // 2
    slow = torch.exp(-math.log(1e4) * torch.arange(waves) / waves).repeat(2) < SLOWEST_TOLD
    first.weight[:-FAST_UNITS, ~slow] = 0
    first.weight[-FAST_UNITS:].mul_(0.25)
    second.weight[[channel for channel in range(INNER) if channel not in TIMED[-FAST_CHANNELS:]], -FAST_UNITS:] = 0
    others = [channel for channel in range(INNER) if channel not in TIMED]
    second.weight[others] = 0
    second.bias[others] = 0


def modulate(
    model: LTXVideoTransformer3DModel, part: int, channels: Sequence[int], times: Tensor, wanted: Tensor
) -> None:
    """Makes a modulation of channels the same function of the timestep. wanted: (times,)."""
    _, embedded = model.time_embed(times, batch_size=len(times), hidden_dtype=torch.float32)
    features = nn.functional.pad(nn.functional.silu(embedded[:, TIMED]), (0, 1), value=1.0).double()
    ridge = RIDGE * len(times) * torch.eye(features.shape[1], dtype=torch.double)
    row = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted.double()).float()
    for channel in channels:
        model.time_embed.linear.weight[part * INNER + channel] = 0
        model.time_embed.linear.weight[part * INNER + channel, TIMED] = row[:-1]
        model.time_embed.linear.bias[part * INNER + channel] = row[-1]
