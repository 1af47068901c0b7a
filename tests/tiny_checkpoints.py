"""Tiny random models in the two layouts in which LTX-Video is published.

The classes, the file names and the key names are the real ones; only the widths are small. Weights are drawn
so that signals keep their size from layer to layer: outputs are finite and depend on every input.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

AnyModule = TypeVar("AnyModule", bound=nn.Module)

WORDS = (
    *("a", "the", "over", ".", "red", "green", "blue", "dark", "light"),
    *("square", "circle", "ring", "star", "sky", "moves", "left", "right", "up", "down"),
)


def tiny_checkpoint(
    folder: Path, *, seed: int = 0, spatial: int = 32, heads: int = 2, dtype: torch.dtype = torch.float32
) -> Path:
    """Writes a model in diffusers' layout. spatial: the pixels along each side of a latent cell."""
    generator = torch.Generator().manual_seed(seed)
    pipeline = LTXConditionPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=tiny_vae(generator, spatial),
        text_encoder=tiny_text_encoder(generator),
        tokenizer=tiny_tokenizer(),
        transformer=tiny_transformer(generator, heads),
    )
    pipeline.to(dtype)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_transformer(generator: torch.Generator, heads: int = 2) -> LTXVideoTransformer3DModel:
    transformer = LTXVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=heads,
        attention_head_dim=16,
        cross_attention_dim=16 * heads,
        num_layers=2,
        caption_channels=24,
    )
    return randomised(transformer, generator)


def tiny_vae(generator: torch.Generator, spatial: int) -> AutoencoderKLLTXVideo:
    vae = AutoencoderKLLTXVideo(
        latent_channels=16,
        block_out_channels=(8, 16, 16, 32, 32),
        down_block_types=("LTXVideo095DownBlock3D",) * 4,
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True,) * 4,
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_residual=(True,) * 3,
        upsample_factor=(2,) * 3,
        timestep_conditioning=True,
        patch_size=spatial // 8,
        encoder_causal=True,
        decoder_causal=False,
        spatial_compression_ratio=spatial,
        temporal_compression_ratio=8,
    )
    vae.latents_mean.copy_(torch.randn(16, generator=generator) * 0.3)
    vae.latents_std.copy_(torch.rand(16, generator=generator) + 0.5)
    with torch.no_grad():
        randomised(vae, generator).decoder.conv_out.conv.weight.mul_(0.3)  # most pixels inside [-1, 1]
    return vae


def tiny_text_encoder(generator: torch.Generator) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(WORDS) + 3,
        d_model=24,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return randomised(T5EncoderModel(config), generator)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token per word. Like T5's, it pads with 0 and ends with `</s>`."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=128,
    )


def tiny_upsampler(folder: Path, *, seed: int = 0, channels: int = 16) -> Path:
    """Writes a latent upsampler in diffusers' layout."""
    upsampler = LTXLatentUpsamplerModel(in_channels=channels, mid_channels=32, num_blocks_per_stage=2)
    randomised(upsampler, torch.Generator().manual_seed(seed)).save_pretrained(folder)
    return folder


def single_file_upsampler(folder: Path, path: Path) -> Path:
    """Writes an upsampler in Lightricks' layout: one file with the same key names and the configuration inside."""
    config = {key: value for key, value in _config(folder).items() if not key.startswith("_")}
    metadata = {"config": json.dumps({"_class_name": "LatentUpsampler", **config})}
    save_file(_weights(folder), path, metadata=metadata)
    return path


def tiny_lora(path: Path, *, seed: int = 9, width: int = 32) -> Path:
    """Writes a LoRA for the tiny transformer, strong enough to change the video visibly."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        f"transformer.transformer_blocks.0.attn1.to_q.lora_{side}.weight": torch.randn(shape, generator=generator)
        for side, shape in (("A", (4, width)), ("B", (width, 4)))
    }
    save_file(weights, path)
    return path


def randomised(module: AnyModule, generator: torch.Generator) -> AnyModule:
    """Gives the module random weights that keep the size of signals, and returns it in evaluation mode."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 0:
                continue  # the factor 1000 on the decoder's timestep
            noise = torch.randn(parameter.shape, generator=generator)
            if "scale_shift_table" in name or name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
    return module.eval()


def single_file(folder: Path, path: Path) -> Path:
    """Writes a folder's transformer and VAE in Lightricks' layout: one file with the configuration inside."""
    tensors = {
        f"model.diffusion_model.{original_transformer_key(key)}": tensor
        for key, tensor in _weights(folder / "transformer").items()
    }
    tensors |= {f"vae.{original_vae_key(key)}": tensor for key, tensor in _weights(folder / "vae").items()}
    # Lightricks' files contain these statistics, but nothing reads them.
    tensors["vae.per_channel_statistics.channel"] = torch.arange(16.0)
    tensors["vae.per_channel_statistics.mean-of-stds"] = torch.ones(16)
    tensors["vae.per_channel_statistics.mean-of-stds_over_std-of-means"] = torch.ones(16)
    save_file(tensors, path, metadata={"config": json.dumps(original_config(folder))})
    return path


def original_config(folder: Path) -> dict[str, Any]:
    """Returns the configuration of a model folder as Lightricks' files contain it."""
    transformer, vae = _config(folder / "transformer"), _config(folder / "vae")
    return {
        "transformer": original_transformer_config(transformer),
        "vae": original_vae_config(vae),
        "scheduler": {
            "_class_name": "RectifiedFlowScheduler",
            "num_train_timesteps": 1000,
            "shifting": None,
            "base_resolution": None,
            "sampler": "LinearQuadratic",
        },
    }


def original_transformer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    same = (
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
    return {
        "_class_name": "Transformer3DModel",
        "_diffusers_version": "0.25.1",
        "_name_or_path": "PixArt-alpha/PixArt-XL-2-256x256",
        **{key: config[key] for key in same},
        "attention_type": "default",
        "double_self_attention": False,
        "dropout": 0.0,
        "norm_num_groups": 32,
        "num_embeds_ada_norm": 1000,
        "num_vector_embeds": None,
        "only_cross_attention": False,
        "project_to_2d_pos": True,
        "upcast_attention": False,
        "use_linear_projection": False,
        "qk_norm": "rms_norm",
        "standardization_norm": "rms_norm",
        "positional_embedding_type": "rope",
        "positional_embedding_theta": 10000.0,
        "positional_embedding_max_pos": [20, 2048, 2048],
        "timestep_scale_multiplier": 1000,
        "causal_temporal_positioning": True,
    }


def original_vae_config(config: Mapping[str, Any]) -> dict[str, Any]:
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    encoder: list[tuple[str, dict[str, Any]]] = [("res_x", {"num_layers": layers[0]})]
    names = {"spatial": "compress_space_res", "temporal": "compress_time_res"}
    for index, kind in enumerate(config["downsample_type"]):
        multiplier = widths[index + 1] // widths[index]
        encoder.append((names.get(kind, "compress_all_res"), {"multiplier": multiplier}))
        encoder.append(("res_x", {"num_layers": layers[index + 1]}))
    # The decoder's blocks are listed from the pixels to the latents, like the encoder's.
    deep = config["decoder_layers_per_block"]
    decoder: list[tuple[str, dict[str, Any]]] = [("res_x", {"num_layers": deep[0], "inject_noise": False})]
    for factor, residual, number in zip(config["upsample_factor"], config["upsample_residual"], deep[1:], strict=True):
        decoder.append(("compress_all", {"residual": residual, "multiplier": factor}))
        decoder.append(("res_x", {"num_layers": number, "inject_noise": False}))
    return {
        "_class_name": "CausalVideoAutoencoder",
        "dims": 3,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "latent_channels": config["latent_channels"],
        "encoder_blocks": encoder,
        "decoder_blocks": decoder,
        "encoder_base_channels": widths[0],
        "decoder_base_channels": config["decoder_block_out_channels"][0] // config["upsample_factor"][0],
        "scaling_factor": 1.0,
        "norm_layer": "pixel_norm",
        "patch_size": config["patch_size"],
        "latent_log_var": "uniform",
        "use_quant_conv": False,
        "causal_decoder": False,
        "timestep_conditioning": config["timestep_conditioning"],
        "normalize_latent_channels": False,
    }


def original_transformer_key(key: str) -> str:
    """Returns the key in Lightricks' files."""
    names = {"proj_in": "patchify_proj", "time_embed": "adaln_single", "norm_q": "q_norm", "norm_k": "k_norm"}
    return ".".join(names.get(part, part) for part in key.split("."))


def original_vae_key(key: str) -> str:
    """Returns the key in Lightricks' files, which number residual, resampling and middle blocks in one list."""
    if key.startswith("latents_"):
        return f"per_channel_statistics.{key.removeprefix('latents_')}-of-means"
    side, block, *rest = key.split(".")
    if block == "mid_block":
        return _join(side, "up_blocks.0" if side == "decoder" else "down_blocks.8", rest)
    if block in {"down_blocks", "up_blocks"}:
        index, kind = int(rest[0]), rest[1]
        resampling = kind in {"downsamplers", "upsamplers"}
        number = 2 * index + resampling if block == "down_blocks" else 2 * index + 2 - resampling
        return _join(side, f"{block}.{number}", rest[3:] if resampling else rest[1:])
    last = "last_" if block in {"time_embedder", "scale_shift_table"} else ""
    return _join(side, last + block, rest)


def _join(side: str, block: str, rest: list[str]) -> str:
    return ".".join([side, block, *rest]).replace(".resnets.", ".res_blocks.")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(folder / "diffusion_pytorch_model.safetensors")
    return weights


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config
