"""Where the transformer starts: a network that already hands pinned pictures on to the other frames.

From random weights most of the training went into copying. So the residual stream is laid out by hand: the noisy
latent, an estimate of the clean one (at first what the first layer finds pinned at the same place in other
frames), a constant that keeps the norms from hiding how bright a token is. Everything stays trainable.
"""

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn

LOUD = 12.0  # the constant; the noise of a token has a norm of about 10.6
COLUMN = 0.8  # strength of "same place" in queries, and for pinned tokens in keys
QUIET = 0.4  # the same in the keys of tokens that are not pinned
CALM = 0.3  # new branches start at this share of their usual size
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
        block.attn1.to_q.bias[_places(width)] = COLUMN
        block.attn1.to_k.bias[_places(width)] = COLUMN
    model.proj_out.weight.zero_()
    model.proj_out.bias.zero_()
    model.proj_out.weight[:, :latents] = torch.eye(latents)
    model.proj_out.weight[:, latents : 2 * latents] = -torch.eye(latents)
