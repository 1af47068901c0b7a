"""Compares the reading of Lightricks' layout with diffusers'."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_ltx_vae_checkpoint_to_diffusers,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from keyreel.checkpoints.catalogue import find_model
from keyreel.checkpoints.checkpoint import check_files
from keyreel.engine.single_file import build, load_single_file, transformer_weights, vae_config, vae_weights
from keyreel.errors import ModelError
from tests.tiny_checkpoints import (
    original_transformer_config,
    original_transformer_key,
    original_vae_config,
    original_vae_key,
    single_file,
    tiny_checkpoint,
)

Weights = dict[str, torch.Tensor]

TRANSFORMER_13B = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 128,
    "caption_channels": 4096,
    "cross_attention_dim": 4096,
    "in_channels": 128,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "num_attention_heads": 32,
    "num_layers": 48,
    "out_channels": 128,
}
VAE_097 = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 128,
    "block_out_channels": [128, 256, 512, 1024, 2048],
    "down_block_types": ["LTXVideo095DownBlock3D"] * 4,
    "downsample_type": ["spatial", "temporal", "spatiotemporal", "spatiotemporal"],
    "layers_per_block": [4, 6, 6, 2, 2],
    "spatio_temporal_scaling": [True] * 4,
    "decoder_block_out_channels": [256, 512, 1024],
    "decoder_layers_per_block": [5, 5, 5, 5],
    "decoder_spatio_temporal_scaling": [True] * 3,
    "decoder_inject_noise": [False] * 4,
    "upsample_residual": [True] * 3,
    "upsample_factor": [2] * 3,
    "timestep_conditioning": True,
    "patch_size": 4,
    "encoder_causal": True,
    "decoder_causal": False,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("single file") / "tiny")
    return single_file(folder, folder / "tiny.safetensors")


@pytest.fixture(scope="module")
def full_size() -> tuple[Any, Any]:
    """LTX-Video 0.9.7 (13B) from its published configuration, without memory for its weights."""
    config = {
        "transformer": original_transformer_config(TRANSFORMER_13B),
        "vae": original_vae_config(VAE_097),
    }
    return build(config)


def rewritten(original: Path, path: Path, change: Callable[[Weights], object]) -> Path:
    """Writes a copy of the file with changed weights and the same configuration."""
    weights = load_file(original)
    change(weights)
    with safe_open(original, framework="pt") as file:
        save_file(weights, path, metadata=file.metadata())
    return path


def test_the_configuration_of_the_autoencoder_is_read() -> None:
    assert vae_config(original_vae_config(VAE_097)) == VAE_097


def test_the_full_size_model_has_the_published_number_of_weights(full_size: tuple[Any, Any]) -> None:
    transformer, vae = full_size
    assert sum(weight.numel() for weight in transformer.parameters()) == 13_042_569_344
    assert sum(weight.numel() for weight in vae.parameters()) == 1_246_913_522
    assert (vae.spatial_compression_ratio, vae.temporal_compression_ratio) == (32, 8)


def test_keys_of_the_transformer_are_converted_like_diffusers(full_size: tuple[Any, Any]) -> None:
    names = [f"model.diffusion_model.{original_transformer_key(key)}" for key in full_size[0].state_dict()]
    weights = dict.fromkeys(names, torch.empty(0))
    theirs = convert_ltx_transformer_checkpoint_to_diffusers(dict(weights))
    assert transformer_weights(weights).keys() == theirs.keys() == full_size[0].state_dict().keys()
    assert not weights


def test_keys_of_the_autoencoder_are_converted_like_diffusers(full_size: tuple[Any, Any]) -> None:
    expected = full_size[1].state_dict()
    weights = {f"vae.{original_vae_key(key)}": tensor for key, tensor in expected.items()}
    theirs = convert_ltx_vae_checkpoint_to_diffusers(dict(weights))
    ours = vae_weights(weights)
    assert ours.keys() == theirs.keys() == expected.keys()
    assert all(ours[key] is theirs[key] is expected[key] for key in expected)


def test_weights_are_mapped_from_the_file(original: Path) -> None:
    """In the file's type, so that nothing is read before it is used."""
    for module in load_single_file(original):
        tensors = module.state_dict().values()
        assert {(tensor.device.type, tensor.dtype) for tensor in tensors} == {("cpu", torch.float32)}
        assert not any(weight.requires_grad for weight in module.parameters())
    maps = Path("/proc/self/maps").read_text()
    assert str(original) in maps


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("transformer", "timestep_scale_multiplier", 1),
        ("transformer", "positional_embedding_max_pos", [60, 2048, 2048]),
        ("transformer", "positional_embedding_theta", 1000.0),
        ("transformer", "causal_temporal_positioning", False),
        ("transformer", "standardization_norm", "layer_norm"),
        ("vae", "spatial_padding_mode", "reflect"),
        ("vae", "norm_layer", "group_norm"),
        ("vae", "latent_log_var", "per_channel"),
        ("scheduler", "sampler", "Uniform"),
    ],
)
def test_a_file_that_asks_for_another_computation_is_refused(
    original: Path, tmp_path: Path, part: str, name: str, value: object
) -> None:
    with safe_open(original, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
    config[part][name] = value
    save_file(load_file(original), tmp_path / "other.safetensors", metadata={"config": json.dumps(config)})
    with pytest.raises(ModelError, match=f"sets `{part}.{name}` to"):
        load_single_file(tmp_path / "other.safetensors")


def test_statistics_that_are_not_used_may_have_any_type(original: Path) -> None:
    def add(weights: Weights) -> None:
        weights["vae.per_channel_statistics.channel"] = torch.arange(4)

    path = rewritten(original, original.with_name("indexed.safetensors"), add)
    check_files(find_model(str(path)))
    load_single_file(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.diffusion_model.proj_out.bias", "lacks weights of LTXVideoTransformer3DModel: proj_out.bias"),
        ("vae.decoder.conv_in.conv.bias", "lacks weights of AutoencoderKLLTXVideo: decoder.conv_in.conv.bias"),
        ("vae.per_channel_statistics.std-of-means", "lacks weights of AutoencoderKLLTXVideo: latents_std"),
    ],
)
def test_a_missing_weight_is_refused(original: Path, tmp_path: Path, key: str, message: str) -> None:
    path = rewritten(original, tmp_path / "short.safetensors", lambda weights: weights.pop(key))
    with pytest.raises(ModelError, match=message):
        load_single_file(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.diffusion_model.audio.bias", "LTXVideoTransformer3DModel does not have: audio.bias"),
        ("vae.encoder.extra.bias", "AutoencoderKLLTXVideo does not have: encoder.extra.bias"),
        ("text_encoders.t5xxl.weight", "that Keyreel does not know: text_encoders.t5xxl.weight"),
    ],
)
def test_an_unknown_weight_is_refused(original: Path, tmp_path: Path, key: str, message: str) -> None:
    path = rewritten(original, tmp_path / "more.safetensors", lambda weights: weights.update({key: torch.ones(1)}))
    with pytest.raises(ModelError, match=message):
        load_single_file(path)


def test_a_weight_of_another_shape_is_refused(original: Path, tmp_path: Path) -> None:
    change = {"model.diffusion_model.proj_out.bias": torch.ones(3)}
    path = rewritten(original, tmp_path / "other.safetensors", lambda weights: weights.update(change))
    with pytest.raises(ModelError, match=r"other shapes than its configuration says: proj_out.bias"):
        load_single_file(path)


@pytest.mark.parametrize("blocks", [[("res_x", {}), ("compress_all", {})], [("res_x_y", {})]])
def test_autoencoders_before_0_9_5_are_refused(blocks: list[tuple[str, dict[str, Any]]]) -> None:
    config = original_vae_config(VAE_097) | {"encoder_blocks": blocks}
    with pytest.raises(ModelError, match=r"not that of LTX-Video 0.9.5 or later"):
        vae_config(config)
