"""The video autoencoder, a few frames at a time: memory does not grow with the length of the video.

Every layer of LTX-Video's autoencoder sees at most three frames at once: convolutions are three frames wide and norms
work per position. So each layer here is a generator over batches of frames (T, B, H, W, C): T frames in time order of B
videos, with the channels last, which suits the kernels. It holds only the frames that it still needs, and a convolution
takes as many at once as `batch_bytes` allows. The chain of layers gives the numbers of the whole-video pass without
tiles or seams, and it yields the first frames before the later ones are computed.

A suspended generator keeps its variables alive. So no variable below refers to a batch at a `yield`.

The weights stay in diffusers' modules (AutoencoderKLLTXVideo with the blocks of 0.9.5 and later).
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
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

from keyreel.checkpoints.memory import AUTOENCODER_BATCH
from keyreel.errors import ModelError

Conditioned: TypeAlias = LTXVideoDecoder3d | LTXVideoMidBlock3d | LTXVideoUpBlock3d | LTXVideoResnetBlock3d
"""Modules that take the noise level."""
Modulation: TypeAlias = tuple[torch.Tensor, torch.Tensor] | tuple[None, None]
"""Shift and factor of a norm's channels, (C,) each, or nothing in an unconditioned block."""

CPU_BATCH = 2**22
"""Bytes of a convolution's input and output on a CPU. Larger ones take memory and save no time."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A stream of frames. batches: (T, B, H, W, C), in time order. length: how many frames they have together."""

    batches: Iterator[torch.Tensor]
    length: int

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Clip":
        return Clip(map(change, self.batches), self.length)


def check_supported(vae: AutoencoderKLLTXVideo) -> None:
    """Raises ModelError for autoencoders older than 0.9.5, which are built from other blocks."""
    stages = [block.downsamplers for block in vae.encoder.down_blocks]
    if not all(stage and hasattr(stage[0], "group_size") for stage in stages) or any(
        block.conv_in is not None for block in vae.decoder.up_blocks
    ):
        raise ModelError("This autoencoder has an older layout. Keyreel runs LTX-Video 0.9.5 and later.")
    if any(vae.config.decoder_inject_noise):
        raise ModelError("This autoencoder injects noise while decoding (LTX-Video 0.9.1). Use 0.9.5 or later.")


def lay_out(vae: AutoencoderKLLTXVideo) -> None:
    """Stores the weights of convolutions in the order in which `_convolve` reads them. Shapes and values stay."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.permute(0, 3, 4, 2, 1).contiguous().permute(0, 4, 3, 1, 2)


def batch_bytes(device: torch.device) -> int:
    """Returns how many bytes a convolution's input and output may take when it takes several frames at once."""
    return CPU_BATCH if device.type == "cpu" else AUTOENCODER_BATCH


def encode(vae: AutoencoderKLLTXVideo, video: torch.Tensor) -> torch.Tensor:
    """Encodes pixels (1, 3, 8k+1, H, W) in [-1, 1] to the latents' mode (1, C, k+1, H/32, W/32), not normalised."""
    encoder = vae.encoder
    frames = video.movedim(2, 0)
    batches = torch.split(frames, _frames_at_once(frames[0], 4))
    clip = Clip(iter(batches), len(frames)).map(partial(_patchify, size=encoder.patch_size))
    clip = _conv(clip, encoder.conv_in)
    for block in encoder.down_blocks:
        clip = _residuals(clip, block.resnets, None)
        for downsampler in block.downsamplers:
            clip = _downsample(clip, downsampler)
    clip = _residuals(clip, encoder.mid_block.resnets, None)
    clip = clip.map(partial(_activate, norm=encoder.norm_out, modulation=(None, None)))
    latents = torch.cat(list(_conv(clip, encoder.conv_out).batches))
    return latents[..., : vae.config.latent_channels].permute(1, 4, 0, 2, 3)


def decode(vae: AutoencoderKLLTXVideo, latents: torch.Tensor, timestep: float) -> Iterator[torch.Tensor]:
    """Decodes latents (B, C, F, H, W), not normalised. Yields 8F-7 frames (B, 3, H, W) of pixels in [-1, 1].

    timestep: the noise level in [0, 1] for a timestep-conditioned decoder.
    """
    decoder = vae.decoder
    level = _decoder_timestep(decoder, latents, timestep)
    clip = Clip(iter([latents.permute(2, 0, 3, 4, 1).contiguous()]), latents.shape[2])
    clip = _conv(clip, decoder.conv_in)
    clip = _residuals(clip, decoder.mid_block.resnets, _embed(decoder.mid_block, level))
    for block in decoder.up_blocks:
        for upsampler in block.upsamplers or ():
            clip = _upsample(clip, upsampler)
        clip = _residuals(clip, block.resnets, _embed(block, level))
    (modulation,) = _modulations(decoder, _embed(decoder, level), 1)
    clip = clip.map(partial(_activate, norm=decoder.norm_out, modulation=modulation))
    clip = _conv(clip, decoder.conv_out).map(partial(_unpatchify, size=decoder.patch_size))
    return chain.from_iterable(map(torch.Tensor.unbind, clip.batches))


# Layers.


def _conv(clip: Clip, layer: LTXVideoCausalConv3d) -> Clip:
    """A convolution over three frames. Pads by repeating the first frame and, unless it is causal, the last."""
    return Clip(_convolutions(clip, layer), clip.length)


def _convolutions(clip: Clip, layer: LTXVideoCausalConv3d) -> Iterator[torch.Tensor]:
    overlap = layer.conv.kernel_size[0] - 1
    before = overlap if layer.is_causal else overlap // 2
    coming, window = clip.length, torch.empty(0)
    for batch in clip.batches:
        parts = [batch[:1]] * before if coming == clip.length else [window]
        coming -= len(batch)
        window = torch.cat([*parts, batch, *[batch[-1:]] * (0 if coming else overlap - before)])
        del batch, parts
        at_once = _frames_at_once(window[0], 4 * max(1, layer.out_channels / layer.in_channels))
        while len(window) > overlap:
            count = min(at_once, len(window) - overlap)
            stacked = [torch.cat([window[start : start + count] for start in range(overlap + 1)], dim=-1)]
            window = _rest(window, count)
            yield _convolve(stacked.pop(), layer.conv)


def _convolve(stacked: torch.Tensor, conv: nn.Conv3d) -> torch.Tensor:
    """Convolves (T, B, H, W, 3 * C), which holds three frames at each place. Returns (T, B, H, W, C)."""
    # Equals conv3d, but conv2d has faster kernels. After `lay_out`, the flattened weights are a view, not a copy.
    pictures = stacked.flatten(0, 1).permute(0, 3, 1, 2)
    weight = conv.weight.transpose(1, 2).flatten(1, 2)
    result = functional.conv2d(pictures, weight, conv.bias, padding=conv.padding[1:])
    return torch.unflatten(result.permute(0, 2, 3, 1), 0, stacked.shape[:2])


def _residuals(clip: Clip, blocks: nn.ModuleList, embedding: torch.Tensor | None) -> Clip:
    for block in blocks:
        clip = _residual(clip, block, embedding)
    return clip


def _residual(clip: Clip, block: LTXVideoResnetBlock3d, embedding: torch.Tensor | None) -> Clip:
    branch, shortcut = _fork(clip)
    first, second = _modulations(block, embedding, 2)
    branch = _conv(branch.map(partial(_activate, norm=block.norm1, modulation=first)), block.conv1)
    branch = _conv(branch.map(partial(_activate, norm=block.norm2, modulation=second)), block.conv2)
    return branch.map(lambda change: _add(change, map(partial(_project, block=block), shortcut.pop(len(change)))))


def _upsample(clip: Clip, layer: LTXVideoUpsampler3d) -> Clip:
    """A convolution whose channels become space and time, plus the repeated input if the layer has a residual."""
    branch, shortcut = _fork(clip) if layer.residual else (clip, _Queue())
    repeats = prod(layer.stride) // layer.upscale_factor

    def upscaled(change: torch.Tensor) -> torch.Tensor:
        parts = (_channels_to_frames(part, layer.stride).unsqueeze(-2) for part in shortcut.pop(len(change)))
        total = torch.unflatten(_channels_to_frames(change, layer.stride), -1, (repeats, -1))
        return _add(total, parts).flatten(-2)

    # The first latent frame stands for one frame, not for eight: surplus frames at the start are dropped.
    surplus = layer.stride[0] - 1
    batches = _without_first(surplus, _conv(branch, layer.conv).map(upscaled).batches)
    return Clip(batches, clip.length * layer.stride[0] - surplus)


def _downsample(clip: Clip, layer: LTXVideoDownsampler3d) -> Clip:
    """Moves space and time into channels. Adds the input, averaged over groups of channels, to the convolution."""
    stride = layer.stride
    repeated = Clip(_repeat_first(stride[0] - 1, clip.batches), clip.length + stride[0] - 1)
    branch, shortcut = _fork(repeated)

    def downscaled(change: torch.Tensor) -> torch.Tensor:
        inputs = _frames_to_channels(torch.cat(shortcut.pop(len(change))), stride)
        mean = torch.unflatten(inputs, -1, (-1, layer.group_size)).mean(dim=-1)
        return _frames_to_channels(change, stride).add_(mean)

    changes = _regroup(_conv(branch, layer.conv), stride[0]).map(downscaled)
    return Clip(changes.batches, repeated.length // stride[0])


# Streams of frames.


class _Queue:
    """Frames that wait, the oldest first."""

    def __init__(self) -> None:
        self._batches: deque[torch.Tensor] = deque()

    def push(self, batch: torch.Tensor) -> torch.Tensor:
        self._batches.append(batch)
        return batch

    def pop(self, count: int) -> list[torch.Tensor]:
        """Removes and returns the first `count` frames, in one or more batches."""
        popped = []
        while count and self._batches:
            batch = self._batches.popleft()
            if len(batch) > count:
                self._batches.appendleft(_rest(batch, count))
            popped.append(batch[:count])
            count -= len(popped[-1])
        return popped


def _fork(clip: Clip) -> tuple[Clip, _Queue]:
    """Returns the clip, and a queue into which each of its batches goes as it is taken."""
    queue = _Queue()
    return clip.map(queue.push), queue


def _rest(batch: torch.Tensor, count: int) -> torch.Tensor:
    """Returns a batch without its first frames. Copies a short rest, so that the memory of the others can be freed."""
    rest = batch[count:]
    return rest if len(rest) > count else rest.clone()


def _regroup(clip: Clip, multiple: int) -> Clip:
    """Joins batches until they fill a convolution's call. The number of frames of each is a multiple of `multiple`."""

    def groups() -> Iterator[torch.Tensor]:
        waiting, coming = _Queue(), clip.length
        length = 0
        for batch in clip.batches:
            coming, length = coming - len(batch), length + len(batch)
            size = max(multiple, _frames_at_once(batch[0], 4) // multiple * multiple)
            waiting.push(batch)
            del batch
            while length >= size or (length and not coming):
                parts = waiting.pop(min(size, length))
                length -= sum(map(len, parts))
                joined = [torch.cat(parts)]
                del parts
                yield joined.pop()

    return Clip(groups(), clip.length)


def _repeat_first(count: int, batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    first = [next(batches)]
    yield torch.cat([*[first[0][:1]] * count, first.pop()])
    yield from batches


def _without_first(count: int, batches: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    yield next(batches)[count:]
    yield from batches


def _add(total: torch.Tensor, parts: Iterator[torch.Tensor]) -> torch.Tensor:
    """Adds parts, which follow each other in time, to `total` in place."""
    start = 0
    for part in parts:
        total[start : start + len(part)].add_(part)
        start += len(part)
    return total


def _frames_at_once(frame: torch.Tensor, copies: float) -> int:
    """Returns how many frames a call may take that holds `copies` times the values of each."""
    return max(1, int(batch_bytes(frame.device) / (frame.nbytes * copies)))


# Frames and channels.


def _patchify(frames: torch.Tensor, size: int) -> torch.Tensor:
    """(T, B, C, H*p, W*p) -> (T, B, H, W, C*p*p). Inside a patch, the column comes before the row."""
    frames = torch.unflatten(torch.unflatten(frames, 4, (-1, size)), 3, (-1, size))
    return frames.permute(0, 1, 3, 5, 2, 6, 4).flatten(4)


def _unpatchify(frames: torch.Tensor, size: int) -> torch.Tensor:
    """The inverse of `_patchify`."""
    patches = torch.unflatten(frames, 4, (-1, size, size)).permute(0, 1, 4, 2, 6, 3, 5)
    return patches.flatten(5, 6).flatten(3, 4)


def _channels_to_frames(frames: torch.Tensor, stride: tuple[int, int, int]) -> torch.Tensor:
    """(T, B, H, W, C*t*h*w) -> (T*t, B, H*h, W*w, C)."""
    parts = torch.unflatten(frames, 4, (-1, *stride)).permute(0, 5, 1, 2, 6, 3, 7, 4)
    return parts.flatten(5, 6).flatten(3, 4).flatten(0, 1)


def _frames_to_channels(frames: torch.Tensor, stride: tuple[int, int, int]) -> torch.Tensor:
    """(T*t, B, H*h, W*w, C) -> (T, B, H, W, C*t*h*w)."""
    columns = torch.unflatten(frames, 3, (-1, stride[2]))
    parts = torch.unflatten(torch.unflatten(columns, 2, (-1, stride[1])), 0, (-1, stride[0]))
    return parts.permute(0, 2, 3, 5, 7, 1, 4, 6).flatten(4)


# Parts of a block.


def _activate(frames: torch.Tensor, norm: RMSNorm, modulation: Modulation) -> torch.Tensor:
    """RMS norm over the channels of each pixel, the noise level's factor and shift, and SiLU."""
    shift, factor = modulation
    normed = functional.rms_norm(frames, frames.shape[-1:], factor, norm.eps)
    return functional.silu(normed if shift is None else normed.add_(shift), inplace=True)


def _project(frames: torch.Tensor, block: LTXVideoResnetBlock3d) -> torch.Tensor:
    if block.norm3 is not None:
        frames = block.norm3(frames)
    if block.conv_shortcut is not None:
        conv = block.conv_shortcut.conv
        frames = functional.linear(frames, conv.weight.flatten(1), conv.bias)
    return frames


def _decoder_timestep(decoder: LTXVideoDecoder3d, latents: torch.Tensor, timestep: float) -> torch.Tensor | None:
    if decoder.timestep_scale_multiplier is None:
        return None
    scale: torch.Tensor = decoder.timestep_scale_multiplier
    return timestep * scale.to(latents.dtype).reshape(1)


def _embed(owner: Conditioned, level: torch.Tensor | None) -> torch.Tensor | None:
    """Returns the decoder's timestep as embedded by the module: (K,), or None without a timestep."""
    if level is None:
        return None
    embedding: torch.Tensor = owner.time_embedder(
        timestep=level, resolution=None, aspect_ratio=None, batch_size=1, hidden_dtype=level.dtype
    )
    return embedding[0]


def _modulations(owner: Conditioned, embedding: torch.Tensor | None, norms: int) -> list[Modulation]:
    """Returns the modulation of each of a module's norms."""
    if embedding is None or owner.scale_shift_table is None:
        return [(None, None)] * norms
    table: torch.Tensor = torch.unflatten(embedding, 0, (2 * norms, -1)) + owner.scale_shift_table
    return [(shift, 1 + scale) for shift, scale in zip(table[::2], table[1::2], strict=True)]
