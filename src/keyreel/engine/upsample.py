"""The latent upsampler: doubles width and height of latents for the second pass of a recipe."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from safetensors import SafetensorError, safe_open

from keyreel.checkpoints.auxiliary import upsampler_weights
from keyreel.engine import latents
from keyreel.engine.devices import on_device
from keyreel.engine.weights import fill, mapped
from keyreel.errors import ModelError

OPTIONS = ("in_channels", "mid_channels", "num_blocks_per_stage", "dims", "spatial_upsample", "temporal_upsample")


def load_upsampler(path: Path, vae: AutoencoderKLLTXVideo, dtype: torch.dtype) -> LTXLatentUpsamplerModel:
    """Loads an upsampler for the autoencoder, on the CPU. Raises ModelError.

    path: Lightricks' single file or a folder in diffusers' layout. Both use the same weight names.
    """
    weights = upsampler_weights(path)
    try:
        config = _config(path, weights)
        with torch.device("meta"):
            upsampler = LTXLatentUpsamplerModel(**{option: config[option] for option in OPTIONS})
        tensors = {key: tensor.to(dtype) for key, tensor in mapped((weights,)).items()}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not a latent upsampler of LTX-Video: {error!r}.") from error
    fill(upsampler, tensors, path)
    if upsampler.temporal_upsample or not upsampler.spatial_upsample:
        raise ModelError(f"{path} upsamples time. Recipes need the spatial upsampler.")
    if upsampler.in_channels != (channels := vae.config.latent_channels):
        raise ModelError(f"{path} is for latents of {upsampler.in_channels} channels; this model has {channels}.")
    return upsampler


def upsample(
    upsampler: LTXLatentUpsamplerModel, z: torch.Tensor, vae: AutoencoderKLLTXVideo, adain: float
) -> torch.Tensor:
    """Upsamples normalised latents (1, C, F, H, W) to (1, C, F, 2H, 2W).

    adain: how much each channel's statistics are matched to the input's, which keeps the colours. The upsampler's few
    weights are copied to the latents' device for this call, because a video needs them only once.
    """
    with on_device(upsampler, z.device):
        doubled = upsampler(latents.denormalise(z, vae).to(upsampler.dtype))
    return latents.matched(latents.normalise(doubled.float(), vae), z, adain)


def _config(path: Path, weights: Path) -> dict[str, Any]:
    """Returns the configuration: config.json in a folder, the metadata in a single file."""
    if path.is_dir():
        text = (path / "config.json").read_text(encoding="utf-8")
    else:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {})["config"]
    config: dict[str, Any] = json.loads(text)
    return config
