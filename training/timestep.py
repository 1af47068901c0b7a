"""Fixed features of the timestep, and modulations that are fixed functions of it."""

import math
from collections.abc import Sequence

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn

from training.layout import HELD, INNER

TIME_CHANNELS = HELD[1:]  # channels that tell the time; the output reads only the first of them, the constant
SLOW_STD = 2.8  # standard deviation of the first layer's weights, scaled; it sets how fast smooth features change
SLOW_LIMIT = 0.03  # frequency from which on smooth features ignore a wave
FAST_UNITS, FAST_CHANNELS = 16, 8
RIDGE = 1e-5  # keeps weights small enough for bfloat16


def set_features(model: LTXVideoTransformer3DModel) -> None:
    """Sets smooth features of the timestep, from which any smooth modulation can be made, and some that tell 0 from 3.

    They use channels that the output does not read, so the scale of its norm is the same at all times.
    """
    embedder = model.time_embed.emb.timestep_embedder
    first, second = embedder.linear_1, embedder.linear_2
    for linear, size in ((first, SLOW_STD), (second, 1.5)):
        nn.init.normal_(linear.weight, std=size * linear.in_features**-0.5)
        nn.init.normal_(linear.bias, std=0.4)
    waves = first.in_features // 2
    slow = torch.exp(-math.log(1e4) * torch.arange(waves) / waves).repeat(2) < SLOW_LIMIT
    first.weight[:-FAST_UNITS, ~slow] = 0
    first.weight[-FAST_UNITS:].mul_(0.25)
    not_fast = [channel for channel in range(INNER) if channel not in TIME_CHANNELS[-FAST_CHANNELS:]]
    second.weight[not_fast, -FAST_UNITS:] = 0
    others = [channel for channel in range(INNER) if channel not in TIME_CHANNELS]
    second.weight[others] = 0
    second.bias[others] = 0


def modulate(
    model: LTXVideoTransformer3DModel, part: int, channels: Sequence[int], times: Tensor, wanted: Tensor
) -> None:
    """Fits one modulation of all `channels` to a function of the timestep, by ridge regression.

    part: index of the modulation. times: timesteps; wanted: the function's values at them, (times,).
    """
    _, embedded = model.time_embed(times, batch_size=len(times), hidden_dtype=torch.float32)
    features = nn.functional.pad(nn.functional.silu(embedded[:, TIME_CHANNELS]), (0, 1), value=1.0).double()
    ridge = RIDGE * len(times) * torch.eye(features.shape[1], dtype=torch.double)
    row = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted.double()).float()
    for channel in channels:
        model.time_embed.linear.weight[part * INNER + channel] = 0
        model.time_embed.linear.weight[part * INNER + channel, TIME_CHANNELS] = row[:-1]
        model.time_embed.linear.bias[part * INNER + channel] = row[-1]
