"""Where the transformer starts: a network that already hands pinned pictures on to the other frames, and looks around.

From random weights most of the training went into copying. So the residual stream is laid out by hand: the noisy
latent, an estimate of the clean one (at first what the first layer finds pinned at the same place in other
frames), a constant that keeps the norms from hiding how bright a token is. Some heads start by reading the tokens
beside each one, and one by finding the token that has drawn the subject. Everything stays trainable.
"""

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention
from torch import Tensor, nn

from training.autoencoder import BLOCK, CELL, LOTS

LOUD = 12.0  # the constant; the noise of a token has a norm of about 10.6
COLUMN = 2.0  # strength of "same place" in queries of the first layer, and for pinned tokens in keys
QUIET = 0.5  # the same in the keys of tokens that are not pinned
SAME_PLACE = 0.8  # the same in the other layers
CALM = 0.3  # new branches start at this share of their usual size
NEAR = 1.5  # strength of "so far from me" in queries and keys of heads that look around
STEP = float(CELL * BLOCK)  # pixels from a token to the next
AROUND = ((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))  # (y, x) in tokens: where the heads from the second on look
LOT_QUERY, LOT_KEY = 2.5, 0.6  # attention to a token grows by a factor of 20 with each unit of its lot
CLEAN_SCALE = 0.77  # the root mean square that the first norm divides a pinned token by


def _places(width: int) -> Tensor:
    """Channels of the last half of the heads that are rotated by y or x.

    Their frequencies are so high that different places match at random and only equal ones match well.
    """
    channel = torch.arange(width)
    axis = (channel - width % 6) // 2 % 3
    return (channel >= width // 2) & (axis > 0)


def _solve_flag(model: LTXVideoTransformer3DModel, channel: int) -> None:
    """Makes the first shift of `channel` one at timestep 0 (pinned) and zero at any other."""
    times = torch.cat([torch.zeros(200), torch.linspace(3, 1000, 600)])
    _, embedded = model.time_embed(times, batch_size=len(times), hidden_dtype=torch.float32)
    features = nn.functional.pad(nn.functional.silu(embedded), (0, 1), value=1.0)
    wanted = (times == 0).float()
    ridge = 1e-6 * torch.eye(features.shape[1])
    row = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted)
    model.time_embed.linear.weight[channel] = row[:-1]
    model.time_embed.linear.bias[channel] = row[-1]


def _calm(model: LTXVideoTransformer3DModel) -> None:
    """Open gates, no modulation yet, quiet branches."""
    model.time_embed.linear.weight.mul_(0.1)
    model.scale_shift_table.zero_()
    for block in model.transformer_blocks:
        block.scale_shift_table.zero_()
        block.scale_shift_table[2] = block.scale_shift_table[5] = 1.0
        for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
            layer.weight.mul_(CALM)


def _copy_columns(model: LTXVideoTransformer3DModel, latents: int, flag: int) -> None:
    """The first layer's last heads: attend to pinned tokens at the same place, write what they hold."""
    attention = model.transformer_blocks[0].attn1
    width = attention.to_q.in_features
    places, values = _places(width), torch.arange(latents) + width // 2
    attention.to_q.bias[places] = COLUMN
    attention.to_k.bias[places] = QUIET
    attention.to_k.weight[places, flag] = COLUMN
    attention.to_v.weight[width // 2 :] = 0
    attention.to_v.bias[width // 2 :] = 0
    attention.to_v.weight[values, torch.arange(latents)] = CLEAN_SCALE
    attention.to_out[0].weight[latents : 2 * latents] = 0
    attention.to_out[0].weight[torch.arange(latents) + latents, values] = 1.0


def _phases(model: LTXVideoTransformer3DModel, y: float, x: float) -> Tensor:
    """How far rotary embeddings turn each pair of channels over (y, x) pixels: (width,), cosines and sines in turn."""
    coordinates = torch.tensor([[0.0, 0.0], [0.0, y], [0.0, x]])
    cos, sin = model.rope(torch.zeros(1, 2, 1), video_coords=coordinates[None])
    cos, sin = cos[0, :, ::2], sin[0, :, ::2]
    difference = cos[0] * cos[1] + sin[0] * sin[1], sin[1] * cos[0] - cos[1] * sin[0]
    return torch.stack(difference, 1).flatten()


def _look_around(model: LTXVideoTransformer3DModel, attention: LTXAttention) -> None:
    """Heads that start by reading what is near: one all around, one each the token on either side.

    What a shape looks like in a token depends on those beside it; from random weights that is not found for thousands
    of steps.
    """
    width = attention.to_q.in_features // attention.heads
    here = _phases(model, 0.0, 0.0)
    for head, (y, x) in enumerate(AROUND, 1):
        channels = slice(head * width, (head + 1) * width)
        for linear in (attention.to_q, attention.to_k):
            linear.weight[channels] *= CALM
        there = _phases(model, y * STEP, x * STEP)
        there[1::2] *= -1
        attention.to_q.bias[channels] = NEAR * here[channels]
        attention.to_k.bias[channels] = NEAR * there[channels]


def _find_the_lot(model: LTXVideoTransformer3DModel) -> None:
    """The first head, which hardly tells places apart, attends to the token that has drawn the subject."""
    attention = model.transformer_blocks[0].attn1
    channels = slice(0, attention.to_q.in_features // attention.heads // 2)
    for linear in (attention.to_q, attention.to_k):
        linear.weight[channels] = 0
        linear.bias[channels] = 0
    attention.to_q.bias[channels] = LOT_QUERY
    attention.to_k.weight[channels, LOTS] = LOT_KEY


@torch.no_grad()
def start(model: LTXVideoTransformer3DModel) -> None:
    """Channels: the input, then the estimate, then the constant, then the flag of pinned tokens."""
    latents, width = model.proj_in.in_features, model.proj_in.out_features
    constant, flag = 2 * latents, 2 * latents + 1
    _calm(model)
    model.proj_in.weight.zero_()
    model.proj_in.bias.zero_()
    model.proj_in.weight[:latents] = torch.eye(latents)
    model.proj_in.bias[constant] = LOUD
    _solve_flag(model, flag)
    _copy_columns(model, latents, flag)
    for block in model.transformer_blocks[1:]:
        block.attn1.to_q.bias[_places(width)] = SAME_PLACE
        block.attn1.to_k.bias[_places(width)] = SAME_PLACE
        _look_around(model, block.attn1)
    _find_the_lot(model)
    model.proj_out.weight.zero_()
    model.proj_out.bias.zero_()
    model.proj_out.weight[:, :latents] = torch.eye(latents)
    model.proj_out.weight[:, latents : 2 * latents] = -torch.eye(latents)
