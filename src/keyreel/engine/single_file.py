"""Lightricks' layout: transformer and autoencoder in one safetensors file that holds its configuration.

diffusers can read such files, but it fetches their configuration from the hub and tells versions apart by the width of
one layer. Here the configuration in the file decides.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import nn

from keyreel.checkpoints.checkpoint import STATISTICS, single_file_config
from keyreel.engine.weights import fill, first_keys, mapped
from keyreel.errors import ModelError

TRANSFORMER_PREFIX = "model.diffusion_model."
VAE_PREFIX = "vae."
DOWN_BLOCK = re.compile(r"encoder\.down_blocks\.(\d+)\.")

TRANSFORMER_OPTIONS = (
    "activation_fn",
    "attention_bias",
    "attention_head_dim",
    "caption_channels",
    "cross_attention_dim",
    "in_channels",
    "norm_elementwise_affine",
    "norm_eps",
    "num_attention_heads",
    "num_layers",
    "out_channels",
)
TRANSFORMER_NAMES = {
    "patchify_proj": "proj_in",
    "adaln_single": "time_embed",
    "q_norm": "norm_q",
    "k_norm": "norm_k",
}
SPACE, TIME = "compress_space_res", "compress_time_res"
DOWNSAMPLING = {
    SPACE: "spatial",
    TIME: "temporal",
    "compress_all_res": "spatiotemporal",
}

FIXED: Mapping[str, Mapping[str, Any]] = {
    "transformer": {
        "causal_temporal_positioning": True,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "positional_embedding_theta": 10_000,
        "positional_embedding_type": "rope",
        "qk_norm": "rms_norm",
        "standardization_norm": "rms_norm",
        "timestep_scale_multiplier": 1000,
    },
    "vae": {
        "latent_log_var": "uniform",
        "norm_layer": "pixel_norm",
        "scaling_factor": 1,
        "spatial_padding_mode": "zeros",
    },
    "scheduler": {"_class_name": "RectifiedFlowScheduler", "sampler": "LinearQuadratic", "shifting": None},
}
"""Lightricks' options that LTX-Video 0.9.5 to 0.9.8 share, and that the engine has no other way to run."""

Block = tuple[str, Mapping[str, Any]]


def load_single_file(path: Path) -> tuple[nn.Module, nn.Module]:
    """Loads transformer and autoencoder, on the CPU. Raises ModelError, which names missing or unknown weights."""
    config = single_file_config(path)
    check_fixed(config)
    try:
        transformer, vae = build(config)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} describes a model that Keyreel cannot build: {error!r}.") from error
    weights = mapped((path,))
    fill(transformer, transformer_weights(weights), path)
    fill(vae, vae_weights(weights), path)
    if weights:
        raise ModelError(f"{path} holds weights that Keyreel does not know: {first_keys(weights)}.")
    return transformer, vae


def build(config: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Builds transformer and autoencoder without weights (on the meta device), from Lightricks' configuration."""
    with torch.device("meta"):
        transformer = LTXVideoTransformer3DModel.from_config(transformer_config(config["transformer"]))
        vae = AutoencoderKLLTXVideo.from_config(vae_config(config["vae"]))
    return transformer, vae


def check_fixed(config: Mapping[str, Any]) -> None:
    """Raises ModelError if the file asks for another computation than the engine's."""
    for part, options in FIXED.items():
        given = config.get(part, {})
        for name, value in options.items():
            if name in given and given[name] != value:
                raise ModelError(
                    f"This file sets `{part}.{name}` to {given[name]!r}. Keyreel runs only models with {value!r}."
                )


def transformer_config(original: Mapping[str, Any]) -> dict[str, Any]:
    """Translates Lightricks' configuration of the transformer to diffusers'."""
    return {option: original[option] for option in TRANSFORMER_OPTIONS if option in original}


def vae_config(original: Mapping[str, Any]) -> dict[str, Any]:
    """Translates Lightricks' configuration of the autoencoder to diffusers'. Raises ModelError before 0.9.5."""
    down_layers, down = _stages(original["encoder_blocks"], set(DOWNSAMPLING))
    up_layers, up = _stages(original["decoder_blocks"], {"compress_all"})
    factors = [options.get("multiplier", 1) for _, options in up]
    return {
        "in_channels": original.get("in_channels", 3),
        "out_channels": original.get("out_channels", 3),
        "latent_channels": original["latent_channels"],
        "block_out_channels": _widths(
            original.get("encoder_base_channels", 128),
            [1, *(options.get("multiplier", 2) for _, options in down)],
        ),
        "down_block_types": ["LTXVideo095DownBlock3D"] * len(down),
        "downsample_type": [DOWNSAMPLING[name] for name, _ in down],
        "layers_per_block": [options["num_layers"] for options in down_layers],
        "spatio_temporal_scaling": [True] * len(down),
        "decoder_block_out_channels": _widths(original.get("decoder_base_channels", 128), factors),
        "decoder_layers_per_block": [options["num_layers"] for options in up_layers],
        "decoder_spatio_temporal_scaling": [True] * len(up),
        "decoder_inject_noise": [options.get("inject_noise", False) for options in up_layers],
        "upsample_residual": [options.get("residual", False) for _, options in up],
        "upsample_factor": factors,
        "timestep_conditioning": original.get("timestep_conditioning", False),
        "patch_size": original["patch_size"],
        "encoder_causal": True,
        "decoder_causal": original.get("causal_decoder", False),
        "spatial_compression_ratio": original["patch_size"] * 2 ** sum(name != TIME for name, _ in down),
        "temporal_compression_ratio": 2 ** sum(name != SPACE for name, _ in down),
    }


def transformer_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Removes the transformer's weights from `weights` and returns them under diffusers' names."""
    taken = _take(weights, TRANSFORMER_PREFIX)
    return {
        ".".join(TRANSFORMER_NAMES.get(part, part) for part in key.split(".")): tensor for key, tensor in taken.items()
    }


def vae_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Removes the autoencoder's weights from `weights` and returns them under diffusers' names."""
    taken = _take(weights, VAE_PREFIX)
    statistics = _take(taken, STATISTICS)
    middle = max((int(found[1]) for key in taken if (found := DOWN_BLOCK.match(key))), default=0)
    named = {_vae_name(key, middle): tensor for key, tensor in taken.items()}
    # No computation needs the others.
    for name, original in (("latents_mean", "mean-of-means"), ("latents_std", "std-of-means")):
        if original in statistics:
            named[name] = statistics[original]
    return named


def _vae_name(key: str, middle: int) -> str:
    """Returns diffusers' name of a weight.

    Lightricks numbers residual and resampling blocks in one list. middle: the number of the encoder's last block.
    """
    side, block, *rest = key.replace(".res_blocks.", ".resnets.").split(".")
    if block in {"down_blocks", "up_blocks"}:
        number = int(rest.pop(0))
        block = _down_block(number, middle) if block == "down_blocks" else _up_block(number)
    return ".".join([side, block.removeprefix("last_"), *rest])


def _down_block(number: int, middle: int) -> str:
    if number == middle:
        return "mid_block"
    return f"down_blocks.{number // 2}" + (".downsamplers.0" if number % 2 else "")


def _up_block(number: int) -> str:
    if number == 0:
        return "mid_block"
    return f"up_blocks.{(number - 1) // 2}" + (".upsamplers.0" if number % 2 else "")


def _stages(blocks: list[Block], resampling: set[str]) -> tuple[list[Mapping[str, Any]], list[Block]]:
    """Splits `res_x, compress, res_x, ...` into the options of the residual blocks and the resampling blocks."""
    residual, others = blocks[::2], blocks[1::2]
    known = all(name == "res_x" for name, _ in residual) and all(name in resampling for name, _ in others)
    if not known or len(blocks) % 2 == 0:
        names = ", ".join(name for name, _ in blocks)
        raise ModelError(f"This autoencoder is not that of LTX-Video 0.9.5 or later: its blocks are {names}.")
    return [options for _, options in residual], others


def _widths(base: int, factors: list[int]) -> list[int]:
    widths = [base]
    for factor in factors:
        widths.append(widths[-1] * factor)
    return widths[1:]


def _take(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): weights.pop(key) for key in list(weights) if key.startswith(prefix)}
