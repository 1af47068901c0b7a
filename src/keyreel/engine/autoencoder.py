"""The video autoencoder, frame by frame: memory does not grow with the length of the video.

Every layer of LTX-Video's autoencoder sees at most three frames at once: convolutions are three frames wide and norms
work per position. So each layer here is a generator over frames: it takes an iterator of frames (B, C, H, W) and
yields frames, keeping no more than the frames it still needs. Chained, they give the numbers of the whole-video pass,
without tiles or seams, and the first finished frames while later ones are not yet computed.

The weights stay in diffusers' modules (AutoencoderKLLTXVideo with the blocks of 0.9.5 and later).
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain, islice, starmap
from math import prod
from typing import TypeAlias

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.models.autoencoders.autoencoder_kl_ltx import (
    LTXVideoCausalConv3d,
    LTXVideoDecoder3d,
    LTXVideoDownsampler3d,
    LTXVideoMidBlock3d,
    LTXVideoResnetBlock3d,
    LTXVideoUpBlock3d,
    LTXVideoUpsampler3d,
)
from diffusers.models.normalization import RMSNorm
from torch import nn
from torch.nn import functional

from keyreel.errors import ModelError

Frames = Iterator[torch.Tensor]
"""Frames (B, C, H, W) in time order."""

Conditioned: TypeAlias = LTXVideoDecoder3d | LTXVideoMidBlock3d | LTXVideoUpBlock3d | LTXVideoResnetBlock3d
"""What is told the noise level."""


def check_supported(vae: AutoencoderKLLTXVideo) -> None:
    """Raises ModelError for autoencoders older than 0.9.5, which are built from other blocks."""
    stages = [block.downsamplers for block in vae.encoder.down_blocks]
    if not all(stage and hasattr(stage[0], "group_size") for stage in stages) or any(
        block.conv_in is not None for block in vae.decoder.up_blocks
    ):
        raise ModelError("This autoencoder has an older layout. Keyreel runs LTX-Video 0.9.5 and later.")
    if any(vae.config.decoder_inject_noise):
        raise ModelError("This autoencoder injects noise while decoding (LTX-Video 0.9.1). Use 0.9.5 or later.")


def encode(vae: AutoencoderKLLTXVideo, video: torch.Tensor) -> torch.Tensor:
    """Pixels (1, 3, 8k+1, H, W) in [-1, 1] to the mode of the latents (1, C, k+1, H/32, W/32), not normalised."""
    encoder = vae.encoder
    frames: Frames = (_patchify(frame, encoder.patch_size) for frame in video.unbind(2))
    frames = _conv(frames, encoder.conv_in)
    for block in encoder.down_blocks:
        frames = _residuals(frames, block.resnets, None)
        for downsampler in block.downsamplers:
            frames = _downsample(frames, downsampler)
    frames = _residuals(frames, encoder.mid_block.resnets, None)
    frames = (functional.silu(_pixel_norm(frame, encoder.norm_out)) for frame in frames)
    latents = torch.stack(list(_conv(frames, encoder.conv_out)), dim=2)
    return latents[:, : vae.config.latent_channels]


def decode(vae: AutoencoderKLLTXVideo, latents: torch.Tensor, timestep: float) -> Frames:
    """Latents (1, C, F, H, W), not normalised, to 8F-7 frames (1, 3, H, W) of pixels in [-1, 1], one by one.

    timestep: the noise level in [0, 1] that a timestep-conditioned decoder is told.
    """
    decoder = vae.decoder
    level = _decoder_timestep(decoder, latents, timestep)
    frames = _conv(iter(latents.unbind(2)), decoder.conv_in)
    frames = _residuals(frames, decoder.mid_block.resnets, _embed(decoder.mid_block, level, latents))
    for block in decoder.up_blocks:
        embedding = _embed(block, level, latents)
        for upsampler in block.upsamplers or ():
            frames = _upsample(frames, upsampler)
        frames = _residuals(frames, block.resnets, embedding)
    frames = (_output_activation(frame, decoder, _embed(decoder, level, latents)) for frame in frames)
    return (_unpatchify(frame, decoder.patch_size) for frame in _conv(frames, decoder.conv_out))


# Layers: generators over frames.


def _conv(frames: Frames, layer: LTXVideoCausalConv3d) -> Frames:
    """A three-frame convolution. Past the ends the first (and, if it looks ahead, the last) frame is repeated."""
    width = layer.conv.kernel_size[0]
    before = width - 1 if layer.is_causal else (width - 1) // 2
    window: deque[torch.Tensor] = deque()
    for frame in _repeat_ends(frames, before, width - 1 - before):
        window.append(frame)
        if len(window) == width:
            yield _take_step(window, layer.conv)


def _take_step(window: deque[torch.Tensor], conv: nn.Conv3d) -> torch.Tensor:
    """The convolution's next frame; drops the oldest frame of the window. Leaves nothing else behind in memory."""
    # The same sums as conv3d on these frames; conv2d has the faster kernels. The weights are a view, not a copy.
    stacked = torch.stack(tuple(window), dim=2).flatten(1, 2)
    window.popleft()
    return functional.conv2d(stacked, conv.weight.flatten(1, 2), conv.bias, padding=conv.padding[1:])


def _repeat_ends(frames: Frames, before: int, after: int) -> Frames:
    last = next(frames)
    for _ in range(before + 1):
        yield last
    for last in frames:
        yield last
    for _ in range(after):
        yield last


def _residuals(frames: Frames, blocks: nn.ModuleList, embedding: torch.Tensor | None) -> Frames:
    for block in blocks:
        frames = _residual(frames, block, embedding)
    return frames


def _residual(frames: Frames, block: LTXVideoResnetBlock3d, embedding: torch.Tensor | None) -> Frames:
    branch, shortcut = _fork(frames)
    shift_1, scale_1, shift_2, scale_2 = _modulation(block, embedding)
    branch = (functional.silu(_pixel_norm(frame, block.norm1) * (1 + scale_1) + shift_1) for frame in branch)
    branch = _conv(branch, block.conv1)
    branch = (functional.silu(_pixel_norm(frame, block.norm2) * (1 + scale_2) + shift_2) for frame in branch)
    for change, frame in zip(_conv(branch, block.conv2), shortcut, strict=True):
        yield change.add_(_project(frame, block))  # in place: the change was just made and is nobody else's


def _upsample(frames: Frames, layer: LTXVideoUpsampler3d) -> Frames:
    """A convolution whose channels become space and time, plus the repeated input where the layer has a residual."""
    if not layer.residual:
        return _trim(_spread(_conv(frames, layer.conv), layer), layer)
    branch, shortcut = _fork(frames)
    repeats = prod(layer.stride) // layer.upscale_factor
    changes = _spread(_conv(branch, layer.conv), layer)
    copies = (frame.repeat(1, repeats, 1, 1) for frame in _spread(shortcut, layer))
    return _trim(starmap(torch.add, zip(changes, copies, strict=True)), layer)


def _spread(frames: Frames, layer: LTXVideoUpsampler3d) -> Frames:
    return chain.from_iterable(_channels_to_frames(frame, layer.stride) for frame in frames)


def _trim(frames: Frames, layer: LTXVideoUpsampler3d) -> Frames:
    """The first latent frame stands for one frame, not for eight: each upsampler drops what came out too much."""
    return islice(frames, layer.stride[0] - 1, None)


def _downsample(frames: Frames, layer: LTXVideoDownsampler3d) -> Frames:
    """Space and time become channels, of a convolution and of the input averaged over groups of channels."""
    stride = layer.stride
    branch, shortcut = _fork(_repeat_ends(frames, stride[0] - 1, 0))
    grouped = zip(_groups(_conv(branch, layer.conv), stride[0]), _groups(shortcut, stride[0]), strict=True)
    for changes, inputs in grouped:
        mean = torch.unflatten(_frames_to_channels(inputs, stride), 1, (-1, layer.group_size)).mean(dim=2)
        yield _frames_to_channels(changes, stride) + mean


def _fork(frames: Frames) -> tuple[Frames, Frames]:
    """The frames twice. The second iterator may never be ahead of the first, and holds no more than it is behind.

    itertools.tee would keep up to 57 frames that both have taken.
    """
    waiting: deque[torch.Tensor] = deque()

    def first() -> Frames:
        for frame in frames:
            waiting.append(frame)
            yield frame

    def second() -> Frames:
        while waiting:
            yield waiting.popleft()

    return first(), second()


def _groups(frames: Frames, count: int) -> Iterator[list[torch.Tensor]]:
    while group := list(islice(frames, count)):
        yield group


# Frames and channels.


def _patchify(frame: torch.Tensor, size: int) -> torch.Tensor:
    """(B, C, H*p, W*p) -> (B, C*p*p, H, W), with the column inside the patch before the row."""
    frame = torch.unflatten(torch.unflatten(frame, 3, (-1, size)), 2, (-1, size))
    return frame.permute(0, 1, 5, 3, 2, 4).flatten(1, 3)


def _unpatchify(frame: torch.Tensor, size: int) -> torch.Tensor:
    """The inverse of `_patchify`."""
    frame = torch.unflatten(frame, 1, (-1, size, size))
    return frame.permute(0, 1, 4, 3, 5, 2).flatten(4, 5).flatten(2, 3)


def _channels_to_frames(frame: torch.Tensor, stride: tuple[int, int, int]) -> list[torch.Tensor]:
    """(B, C*t*h*w, H, W) -> t frames (B, C, H*h, W*w)."""
    parts = torch.unflatten(frame, 1, (-1, *stride)).permute(0, 1, 2, 5, 3, 6, 4).flatten(5, 6).flatten(3, 4)
    return list(parts.unbind(2))


def _frames_to_channels(frames: list[torch.Tensor], stride: tuple[int, int, int]) -> torch.Tensor:
    """t frames (B, C, H*h, W*w) -> (B, C*t*h*w, H, W)."""
    columns = torch.unflatten(torch.stack(frames, dim=2), 4, (-1, stride[2]))
    parts = torch.unflatten(columns, 3, (-1, stride[1]))
    return parts.permute(0, 1, 2, 4, 6, 3, 5).flatten(1, 4)


# Parts of a block.


def _pixel_norm(frame: torch.Tensor, norm: RMSNorm) -> torch.Tensor:
    """RMS over the channels of each pixel (the norm has no weights)."""
    mean_square = frame.float().square().mean(dim=1, keepdim=True)
    return (frame * torch.rsqrt(mean_square + norm.eps)).to(frame.dtype)


def _project(frame: torch.Tensor, block: LTXVideoResnetBlock3d) -> torch.Tensor:
    if block.norm3 is not None:
        frame = block.norm3(frame.movedim(1, -1)).movedim(-1, 1)
    if block.conv_shortcut is not None:
        conv = block.conv_shortcut.conv
        frame = functional.conv2d(frame, conv.weight.squeeze(2), conv.bias)
    return frame


def _decoder_timestep(decoder: LTXVideoDecoder3d, latents: torch.Tensor, timestep: float) -> torch.Tensor | None:
    if decoder.timestep_scale_multiplier is None:
        return None
    scale: torch.Tensor = decoder.timestep_scale_multiplier
    return timestep * scale.to(latents.dtype).expand(latents.shape[0])


def _embed(owner: Conditioned, level: torch.Tensor | None, latents: torch.Tensor) -> torch.Tensor | None:
    """(B, K) embedding of the decoder's timestep by a block's own embedder."""
    if level is None:
        return None
    embedding: torch.Tensor = owner.time_embedder(
        timestep=level, resolution=None, aspect_ratio=None, batch_size=latents.shape[0], hidden_dtype=latents.dtype
    )
    return embedding


def _modulation(block: LTXVideoResnetBlock3d, embedding: torch.Tensor | None) -> tuple[torch.Tensor | float, ...]:
    """Shift and scale for each of the two norms of a block: (B, C, 1, 1), or 0 where nothing is conditioned."""
    if embedding is None or block.scale_shift_table is None:
        return 0.0, 0.0, 0.0, 0.0
    shift_1, scale_1, shift_2, scale_2 = _shift_scale(block, embedding, 4)
    return shift_1, scale_1, shift_2, scale_2


def _shift_scale(owner: Conditioned, embedding: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
    table: torch.Tensor = torch.unflatten(embedding, 1, (parts, -1)) + owner.scale_shift_table
    return table[..., None, None].unbind(1)


def _output_activation(frame: torch.Tensor, decoder: LTXVideoDecoder3d, embedding: torch.Tensor | None) -> torch.Tensor:
    frame = _pixel_norm(frame, decoder.norm_out)
    if embedding is not None:
        shift, scale = _shift_scale(decoder, embedding, 2)
        frame = frame * (1 + scale) + shift
    return functional.silu(frame)
