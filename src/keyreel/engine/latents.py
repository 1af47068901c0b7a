"""Latents: their layouts, coordinates and normalisation (pure functions).

A video's latents are a grid (1, C, F, H, W). The transformer takes them as a sequence of tokens (1, F*H*W, C).
"""

import torch
from diffusers import AutoencoderKLLTXVideo

from keyreel.video.canvas import Grid

LatentShape = tuple[int, int, int]
"""(F, H, W)."""


def pack(grid: torch.Tensor) -> torch.Tensor:
    """(1, C, F, H, W) -> (1, F*H*W, C)."""
    return grid.flatten(2).transpose(1, 2)


def unpack(tokens: torch.Tensor, shape: LatentShape) -> torch.Tensor:
    """(1, F*H*W, C) -> (1, C, F, H, W) for shape (F, H, W)."""
    return torch.unflatten(tokens.transpose(1, 2), 2, shape)


def coordinates(shape: LatentShape, grid: Grid, start: int = 0) -> torch.Tensor:
    """Returns the coordinates of each token, (3, F*H*W) fp32: frame number, and y and x in pixels.

    start: the frame where the latents start. The first latent frame holds one frame and each later one holds
    `grid.temporal` frames, so with 8 of them latent frame i begins at max(0, 8i - 7).
    """
    frame, y, x = (torch.arange(length, dtype=torch.float32) for length in shape)
    frame = (frame * grid.temporal + 1 - grid.temporal).clamp(min=0) + start
    mesh = torch.meshgrid(frame, y * grid.spatial, x * grid.spatial, indexing="ij")
    return torch.stack(mesh).flatten(1)


def normalise(latents: torch.Tensor, vae: AutoencoderKLLTXVideo) -> torch.Tensor:
    """Converts the autoencoder's latents (1, C, F, H, W) to the scale that the transformer was trained on."""
    mean, std = _statistics(latents, vae)
    return (latents - mean) / std


def denormalise(latents: torch.Tensor, vae: AutoencoderKLLTXVideo) -> torch.Tensor:
    """The inverse of `normalise`."""
    mean, std = _statistics(latents, vae)
    return latents * std + mean


def tone_mapped(latents: torch.Tensor, amount: float) -> torch.Tensor:
    """Compresses the extreme values of normalised latents by `amount` from 0 (unchanged) to 1 (LTX-Video 0.9.8)."""
    strength = 0.75 * amount
    return latents * (1 - 0.8 * strength * torch.sigmoid(4 * strength * (latents.abs() - 1)))


def matched(latents: torch.Tensor, reference: torch.Tensor, amount: float) -> torch.Tensor:
    """AdaIN (arXiv 1703.06868): moves each channel to the reference's mean and deviation, by `amount` from 0 to 1.

    Both are (1, C, F, H, W). Their F, H and W may differ.
    """
    dims = (2, 3, 4)
    std, mean = torch.std_mean(latents, dims, keepdim=True)
    reference_std, reference_mean = torch.std_mean(reference, dims, keepdim=True)
    return latents.lerp((latents - mean) / std * reference_std + reference_mean, amount)


def _statistics(latents: torch.Tensor, vae: AutoencoderKLLTXVideo) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns mean and standard deviation of the autoencoder's latents, (1, C, 1, 1, 1) each."""
    mean, std = (value.to(latents).view(1, -1, 1, 1, 1) for value in (vae.latents_mean, vae.latents_std))
    return mean, std / vae.config.scaling_factor
