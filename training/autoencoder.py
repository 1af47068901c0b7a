"""The autoencoder in closed form: a linear encoder, and a decoder that inverts it and smooths the result.

One latent token covers 8 frames of 64 x 64 pixels. The encoder averages cells of 8 x 8 pixels and 4 frames, then takes
the low frequencies of a cosine transform of the 8 x 8 x 2 averages (more of brightness than of colour). Because it is
linear, it can also be applied to averages that are drawn directly: see `encode_cells`.
"""

import itertools
import math
from functools import cache
from random import Random
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn
from torch.nn import functional

from training.pictures import moving_picture, random_picture
from training.random_scenes import random_scene
from training.scenes import Grid, draw

CELL = 8  # pixels
BLOCK = 8  # cells per latent token along each axis of the frame
HALVES = 2  # averages of 4 frames per latent frame
# The highest sum of frequencies to keep for Y, Cb and Cr: in the mean of both halves, and in their difference.
ZIGZAG = (((0, 7), (1, 3)), ((0, 3), (1, 2)), ((0, 3), (1, 2)))
YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
CONSTANT = 2.0**17  # dominates the root mean square in the encoder's last norm, which makes the norm linear
DECODER_CONSTANT = 16.0  # does the same in the decoder, whose last layer is fitted afterwards
WIDTHS = (32, 64, 128)
DECODE_NOISE = 0.04  # on normalised latents: the noise that sampling adds, and some that it leaves
RIDGE = 1e-4
SECONDS = 3.52  # length of a clip of 89 frames
BRIGHTNESS_SCALE = 1.6  # standard deviation of the first normalised channel, the mean brightness


class Frequency(NamedTuple):
    """The content of a latent: a plane (0 to 2 for Y, Cb and Cr), whether it is the halves' difference, a frequency."""

    plane: int
    difference: int
    u: int
    v: int


FREQUENCIES = [
    Frequency(plane, difference, u, v)
    for plane, limits in enumerate(ZIGZAG)
    for difference, limit in limits
    for u, v in itertools.product(range(BLOCK), range(BLOCK))
    if u + v <= limit
]
LATENTS = len(FREQUENCIES)  # 78
LOTS = LATENTS - 1  # the finest difference of colour, in which pictures have almost nothing
# The latents that a still picture uses, the coarsest first.
MEANS = sorted((i for i, one in enumerate(FREQUENCIES) if not one.difference), key=lambda i: sum(FREQUENCIES[i][2:]))


def _cosines() -> Tensor:
    """Returns the orthonormal cosine transform, (frequency, cell)."""
    k, n = torch.meshgrid(torch.arange(BLOCK), torch.arange(BLOCK), indexing="ij")
    basis = torch.cos(math.pi / BLOCK * (n + 0.5) * k) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


@cache
def transform() -> Tensor:
    """Returns the encoder as a matrix (latents, colour, half, row, column), rounded as it will be stored."""
    cosines, rows = _cosines(), []
    for one in FREQUENCIES:
        halves = torch.tensor([1.0, -1.0 if one.difference else 1.0]) / math.sqrt(2)
        parts = (YCBCR[one.plane], halves, cosines[one.u], cosines[one.v])
        rows.append(torch.einsum("c,t,y,x->ctyx", *parts))
    return torch.stack(rows).bfloat16().float()


def cells_of_frames(frames: Tensor) -> Tensor:
    """Returns the averages that the encoder sees, (B, 3, 2(k+1), H/8, W/8). frames: (B, 3, 8k+1, H, W)."""
    patches = functional.avg_pool3d(frames, (1, CELL, CELL))
    first = patches[:, :, :1].expand(-1, -1, 8, -1, -1)
    return functional.avg_pool3d(torch.cat([first, patches[:, :, 1:]], 2), (4, 1, 1))


def encode_cells(cells: Tensor) -> Tensor:
    """Returns latents (B, 78, f, h, w), not normalised. cells: (B, 3, 2f, 8h, 8w) in [-1, 1]."""
    return functional.conv3d(cells, transform(), stride=(HALVES, BLOCK, BLOCK))


# --- closed form -------------------------------------------------------------------------------------------


def new_autoencoder() -> AutoencoderKLLTXVideo:
    return AutoencoderKLLTXVideo(
        latent_channels=LATENTS,
        patch_size=CELL,
        block_out_channels=(4, 4, 4, 32, 128, 512),
        down_block_types=("LTXVideo095DownBlock3D",) * 5,
        layers_per_block=(0,) * 6,
        spatio_temporal_scaling=(True,) * 5,
        downsample_type=("temporal", "temporal", "spatiotemporal", "spatial", "spatial"),
        decoder_block_out_channels=WIDTHS,
        decoder_layers_per_block=(0, 0, 0, 0),
        decoder_spatio_temporal_scaling=(True, True, True),
        decoder_inject_noise=(False,) * 4,
        upsample_residual=(True, True, True),
        upsample_factor=(1, 2, 2),
        timestep_conditioning=True,
        encoder_causal=True,
        decoder_causal=False,
        spatial_compression_ratio=CELL * BLOCK,
        temporal_compression_ratio=8,
    )


def _clear(*modules: nn.Module) -> None:
    for parameter in itertools.chain(*(module.parameters() for module in modules)):
        nn.init.zeros_(parameter)


def newest_frame(conv: nn.Module) -> Tensor:
    """Returns the weights (out, in, 3, 3) of the newest frame of a causal convolution."""
    return conv.get_parameter("weight")[:, :, -1]


def middle_frame(conv: nn.Module) -> Tensor:
    """Returns the weights (out, in, 3, 3) of the middle frame of a convolution."""
    return conv.get_parameter("weight")[:, :, 1]


def _last_tap(conv: nn.Module) -> Tensor:
    """Returns the weights (out, in) of the newest frame and the middle pixel of a causal convolution."""
    return newest_frame(conv)[:, :, 1, 1]


def _middle_tap(conv: nn.Module) -> Tensor:
    return middle_frame(conv)[:, :, 1, 1]


def _cell_of_channel(encoder: nn.Module) -> Tensor:
    """Returns what each channel before the encoder's last layer holds: a flat index of (colour, half, row, column).

    Colour 3 is the constant.
    """
    numbers = torch.arange(4 * HALVES * BLOCK * BLOCK, dtype=torch.float32)
    grid = numbers.view(1, 4, HALVES, BLOCK, BLOCK).repeat_interleave(4, 2)
    hidden = torch.cat([torch.zeros_like(grid[:, :, :1]), grid], 2)  # the first latent frame stands for one frame
    for block in encoder.get_submodule("down_blocks").children():
        hidden = block(hidden)
    return hidden[0, :, -1, 0, 0].round().long()


@torch.no_grad()
def encoder_weights(encoder: nn.Module) -> Tensor:
    """Returns the last layer's weights (78, channels) that make latents of a token's cells."""
    flat = functional.pad(transform(), (0, 0, 0, 0, 0, 0, 0, 1)).flatten(1)  # the fourth colour is the constant, unused
    # The norm divides by CONSTANT / 2 (a quarter of the channels is constant), and silu(x) = x / 2 near zero,
    # so the result is x / CONSTANT. A power of two keeps the stored weights exact.
    return flat[:, _cell_of_channel(encoder)] * CONSTANT


@torch.no_grad()
def solve_encoder(vae: AutoencoderKLLTXVideo) -> None:
    encoder = vae.encoder
    _clear(encoder)
    colours = _last_tap(encoder.conv_in.conv)
    for colour in range(3):
        colours[colour, colour * CELL**2 : (colour + 1) * CELL**2] = 1 / CELL**2
    encoder.conv_in.conv.bias[3] = CONSTANT
    _last_tap(encoder.conv_out.conv)[:LATENTS] = encoder_weights(encoder)
    encoder.conv_out.conv.bias[LATENTS] = -20.0  # the log-variance


def _split(conv: nn.Module, target: Tensor) -> None:
    """Sets an up-sampler's weights to `target` (out, 2, 2, 2, in) minus what its residual path already copies."""
    channels = target.shape[-1]
    weight = target.flatten(1, 3).clone()
    for out, phase in itertools.product(range(weight.shape[0]), range(8)):
        weight[out, phase, (out % (channels // 8)) * 8 + phase] -= 1
    _middle_tap(conv).copy_(weight.flatten(0, 1))


def _copies(outs: int, ins: int, size: int, time: bool) -> Tensor:
    """Returns weights that copy channels (colour, half, y, x) of a block of `size` cells to its eight parts."""
    target = torch.zeros(outs, 2, 2, 2, ins)
    part = size // 2
    halves = 2 if time else 1
    for colour, t, py, px, y, x in itertools.product(range(3), range(2), range(2), range(2), range(part), range(part)):
        out = (colour * part + y) * part + x
        half = t if time else 0
        source = ((colour * halves + half) * size + py * part + y) * size + px * part + x
        target[out, t, py, px, source] = 1
    return target


@torch.no_grad()
def start_decoder(vae: AutoencoderKLLTXVideo) -> None:
    """Sets the decoder to the transform's inverse, which three up-samplers unfold to one colour per 8 x 8 pixels."""
    decoder = vae.decoder
    for block in [decoder.mid_block, *decoder.up_blocks]:
        _clear(block.time_embedder)
    _clear(decoder.time_embedder, decoder.conv_in, decoder.conv_out)
    nn.init.zeros_(decoder.scale_shift_table)
    _middle_tap(decoder.conv_in.conv)[:LATENTS] = torch.eye(LATENTS)
    decoder.conv_in.conv.bias[LATENTS:] = 1.0
    ups = [block.upsamplers[0].conv.conv for block in decoder.up_blocks]
    _clear(*ups)
    inverse = torch.linalg.pinv(transform().flatten(1))
    unfold = _copies(WIDTHS[1], 3 * HALVES * BLOCK**2, BLOCK, time=True)
    first = functional.pad(torch.einsum("otyxs,sl->otyxl", unfold, inverse), (0, WIDTHS[2] - LATENTS))
    _split(ups[0], first)
    _split(ups[1], _copies(WIDTHS[0], WIDTHS[1], 4, time=False))
    pairs = _copies(WIDTHS[0], WIDTHS[0], 2, time=False)
    pairs[3:6] = -pairs[:3]
    _split(ups[2], pairs)
    for conv, channel in zip(ups, (WIDTHS[1] - 1, WIDTHS[0] - 1, WIDTHS[0] - 1), strict=True):
        conv.bias.view(-1, 8)[channel] = 1.0
    ups[2].bias.view(-1, 8)[WIDTHS[0] - 1] = DECODER_CONSTANT


class InputRecorder:
    """Keeps the last input of a module."""

    def __init__(self, module: nn.Module) -> None:
        self.value = torch.empty(0)
        self._handle = module.register_forward_pre_hook(self._record)

    def _record(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.value = inputs[0]

    def close(self) -> None:
        self._handle.remove()


def _neighbours(hidden: Tensor) -> Tensor:
    """Turns (1, C, F + 2, h, w) into (F*h*w, 9C + 1): each cell, its eight neighbours in space, and a one.

    Neighbours in time are left out: a pinned frame must not suffer from the frames beside it.
    """
    frames = functional.pad(hidden[0, :, 1:-1].transpose(0, 1), (1, 1, 1, 1))
    columns = functional.unfold(frames, 3).transpose(1, 2).flatten(0, 1)
    return functional.pad(columns, (0, 1), value=1.0)


def _patches(frames: Tensor) -> Tensor:
    """Turns (1, 3, F, H, W) into (F*h*w, 192) in the decoder's order: colour, x, y."""
    _, _, count, height, width = frames.shape
    cut = frames[0].reshape(3, count, height // CELL, CELL, width // CELL, CELL)
    return cut.permute(1, 2, 4, 0, 5, 3).reshape(-1, 3 * CELL**2)


def training_clip(rng: Random, frames: int, side: int = 256) -> Tensor:
    """Returns a random crop at full resolution, (3, frames, side, side) in [-1, 1]."""
    start = rng.uniform(0, 88 - frames)
    times = (start + torch.arange(frames)) / 88
    kind = rng.random()
    if kind < 0.55:
        crop = (rng.randrange(512 - side), rng.randrange(832 - side), side, side)
        grid = Grid(512, 832, 1, crop)
        clip = draw(random_scene(rng, grid, SECONDS), grid, times * SECONDS)
    elif kind < 0.8:
        clip, _ = moving_picture(rng, Grid(side, side, 1), times, 89)
    else:
        first, second = (random_picture(rng, side, side, 1)[:, None] for _ in range(2))
        clip = torch.lerp(first, second, times.view(1, -1, 1, 1))
    return clip * 2 - 1


@torch.no_grad()
def solve_last_layer(vae: AutoencoderKLLTXVideo, seed: int, clips: int = 24) -> None:
    """Fits the last layer by ridge regression from the unfolded colours to pixels. A mere copy would give a mosaic."""
    rng, conv = Random(seed), vae.decoder.conv_out.conv
    features = 9 * WIDTHS[0] + 1
    gram, moment = torch.zeros(features, features), torch.zeros(features, 3 * CELL**2)
    scale, recorder = vae.latents_std.view(1, -1, 1, 1, 1), InputRecorder(conv)
    for _ in range(clips):
        frames = training_clip(rng, 9)[None]
        latents = encode_cells(cells_of_frames(frames))
        generator = torch.Generator().manual_seed(rng.randrange(2**30))
        noise = torch.randn(latents.shape, generator=generator)
        vae.decode(latents + DECODE_NOISE * scale * noise, torch.zeros(1))
        x, y = _neighbours(recorder.value), _patches(frames)
        gram += x.T @ x / len(x)
        moment += x.T @ y / len(x)
    recorder.close()
    solution = torch.linalg.solve(gram + RIDGE * torch.eye(features), moment)
    conv.weight[:, :, 1] = solution[:-1].T.view(-1, WIDTHS[0], 3, 3)
    conv.bias.copy_(solution[-1])


def random_latents(rng: Random, grid: Grid) -> Tensor:
    """Returns a latent frame (1, C, 1, H, W) of a random clip, before it is normalised."""
    times = rng.random() + torch.arange(HALVES) * 4 / 88
    if rng.random() < 0.6:
        cells = draw(random_scene(rng, grid, SECONDS), grid, times * SECONDS)
    else:
        cells = moving_picture(rng, grid, times, 89)[0]
    return encode_cells(cells[None] * 2 - 1)


@torch.no_grad()
def set_scales(vae: AutoencoderKLLTXVideo, seed: int, clips: int = 300) -> None:
    """Sets the latents' mean and scale, half-way between equal scales and equal variances.

    That way colours still stand out from the noise more than detail does.
    """
    rng, grid = Random(seed), Grid(512, 512, CELL)
    values = torch.cat([random_latents(rng, grid).transpose(0, 1).flatten(1) for _ in range(clips)], 1)
    root = values.std(1).clamp(min=0.03).sqrt()
    vae.latents_mean.copy_(values.mean(1).bfloat16())  # rounded as it will be stored
    vae.latents_std.copy_((root * root[0] / BRIGHTNESS_SCALE).bfloat16())


def make_autoencoder(seed: int) -> AutoencoderKLLTXVideo:
    """Returns the finished autoencoder. It takes seconds, because nothing is trained."""
    torch.manual_seed(seed)
    vae = new_autoencoder().eval()
    solve_encoder(vae)
    start_decoder(vae)
    set_scales(vae, seed)
    solve_last_layer(vae, seed)
    return vae
