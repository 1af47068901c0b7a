"""The latent upsampler: latents of twice the width and height, for the second pass of a recipe."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from safetensors import SafetensorError, safe_open

from keyreel.companions import weights_of
from keyreel.engine import latents
from keyreel.engine.devices import on_device
from keyreel.engine.weights import fill, mapped
from keyreel.errors import ModelError

OPTIONS = ("in_channels", "mid_channels", "num_blocks_per_stage", "dims", "spatial_upsample", "temporal_upsample")


def load_upsampler(path: Path, vae: AutoencoderKLLTXVideo, dtype: torch.dtype) -> LTXLatentUpsamplerModel:
    """Reads Lightricks' single file or a folder in diffusers' layout, for that autoencoder. Raises ModelError.

    Both layouts name the weights alike. The module lies on the CPU.
    """
    weights = weights_of(path)
    try:
        config = _config(path, weights)
        with torch.device("meta"):
            upsampler = LTXLatentUpsamplerModel(**{option: config[option] for option in OPTIONS})
        tensors = {key: tensor.to(dtype) for key, tensor in mapped((weights,)).items()}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is no latent upsampler of LTX-Video: {error!r}.") from error
    fill(upsampler, tensors, path)
    if upsampler.temporal_upsample or not upsampler.spatial_upsample:
        raise ModelError(f"{path} upsamples time. Recipes need the spatial upsampler.")
    if upsampler.in_channels != (channels := vae.config.latent_channels):
        raise ModelError(f"{path} is for latents of {upsampler.in_channels} channels; this model has {channels}.")
    return upsampler


def upsample(
    upsampler: LTXLatentUpsamplerModel, z: torch.Tensor, vae: AutoencoderKLLTXVideo, adain: float
) -> torch.Tensor:
    """Normalised latents (1, C, F, H, W) to (1, C, F, 2H, 2W), with the colours of the small ones kept by `adain`.

    The upsampler's weights visit the latents' device: they are few, and used once in a video.
    """
    with on_device(upsampler, z.device):
        doubled = upsampler(latents.denormalise(z, vae).to(upsampler.dtype))
    return latents.matched(latents.normalise(doubled.float(), vae), z, adain)


def _config(path: Path, weights: Path) -> dict[str, Any]:
    """A single file carries its configuration in its metadata."""
    if path.is_dir():
        text = (path / "config.json").read_text(encoding="utf-8")
    else:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {})["config"]
    config: dict[str, Any] = json.loads(text)
    return config
