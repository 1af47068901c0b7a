"""The video autoencoder, frame by frame: memory does not grow with the length of the video.

Every layer of LTX-Video's autoencoder sees at most three frames at once: convolutions are three frames wide and norms
work per position. So each layer here is a generator over frames: it takes an iterator of frames (B, C, H, W), yields
frames and holds only those that it still needs. The chain of layers gives the numbers of the whole-video pass without
tiles or seams, and it yields the first frames before the later ones are computed.

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
"""Modules that take the noise level."""


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
    """Encodes pixels (1, 3, 8k+1, H, W) in [-1, 1] to the latents' mode (1, C, k+1, H/32, W/32), not normalised."""
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
    """Decodes latents (1, C, F, H, W), not normalised. Yields 8F-7 frames (1, 3, H, W) of pixels in [-1, 1].

    timestep: the noise level in [0, 1] for a timestep-conditioned decoder.
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
    """A three-frame convolution. Pads by repeating the first frame and, unless it is causal, the last."""
    width = layer.conv.kernel_size[0]
    before = width - 1 if layer.is_causal else (width - 1) // 2
    window: deque[torch.Tensor] = deque()
    for frame in _repeat_ends(frames, before, width - 1 - before):
        window.append(frame)
        if len(window) == width:
            yield _convolve(window, layer.conv)


def _convolve(window: deque[torch.Tensor], conv: nn.Conv3d) -> torch.Tensor:
    """Returns the convolution's next frame and drops the window's oldest. Holds no other frame afterwards."""
    # Equals conv3d on these frames, but conv2d has faster kernels. The flattened weights are a view, not a copy.
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
        yield change.add_(_project(frame, block))  # in place: nothing else refers to the change


def _upsample(frames: Frames, layer: LTXVideoUpsampler3d) -> Frames:
    """A convolution whose channels become space and time, plus the repeated input if the layer has a residual."""
    if not layer.residual:
        return _trim(_upscale(_conv(frames, layer.conv), layer), layer)
    branch, shortcut = _fork(frames)
    repeats = prod(layer.stride) // layer.upscale_factor
    changes = _upscale(_conv(branch, layer.conv), layer)
    copies = (frame.repeat(1, repeats, 1, 1) for frame in _upscale(shortcut, layer))
    return _trim(starmap(torch.add, zip(changes, copies, strict=True)), layer)


def _upscale(frames: Frames, layer: LTXVideoUpsampler3d) -> Frames:
    return chain.from_iterable(_channels_to_frames(frame, layer.stride) for frame in frames)


def _trim(frames: Frames, layer: LTXVideoUpsampler3d) -> Frames:
    """Drops the surplus frames at the start: the first latent frame stands for one frame, not for eight."""
    return islice(frames, layer.stride[0] - 1, None)


def _downsample(frames: Frames, layer: LTXVideoDownsampler3d) -> Frames:
    """Moves space and time into channels. Adds the input, averaged over groups of channels, to the convolution."""
    stride = layer.stride
    branch, shortcut = _fork(_repeat_ends(frames, stride[0] - 1, 0))
    grouped = zip(_groups(_conv(branch, layer.conv), stride[0]), _groups(shortcut, stride[0]), strict=True)
    for changes, inputs in grouped:
        mean = torch.unflatten(_frames_to_channels(inputs, stride), 1, (-1, layer.group_size)).mean(dim=2)
        yield _frames_to_channels(changes, stride) + mean


def _fork(frames: Frames) -> tuple[Frames, Frames]:
    """Returns two iterators over the frames. The second must never be ahead of the first.

    Holds only the frames between the two. itertools.tee would hold up to 57 frames that both have consumed.
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
    """(B, C, H*p, W*p) -> (B, C*p*p, H, W). Inside a patch, the column comes before the row."""
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
    """RMS norm over the channels of each pixel (without weights)."""
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
    """Returns the decoder's timestep as embedded by the module: (B, K), or None without a timestep."""
    if level is None:
        return None
    embedding: torch.Tensor = owner.time_embedder(
        timestep=level, resolution=None, aspect_ratio=None, batch_size=latents.shape[0], hidden_dtype=latents.dtype
    )
    return embedding


def _modulation(block: LTXVideoResnetBlock3d, embedding: torch.Tensor | None) -> tuple[torch.Tensor | float, ...]:
    """Returns shift and scale of a block's two norms: (B, C, 1, 1), or 0 in an unconditioned block."""
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
