"""Builds LTX-Video at its full size, without memory for its weights, and compares it with published figures.

The story goes over catalogue, checkpoint layout and engine. The real files are too large for a test, so the figures
are those that Lightricks and others have published: the numbers of weights, and for
`ltxv-2b-0.9.6-dev-04-25.safetensors` also the numbers of weights and tensors per key prefix.
"""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import T5Config, T5EncoderModel

from keyreel.checkpoints.catalogue import CATALOGUE, SIZE_2B, SIZE_13B, T5, VAE
from keyreel.checkpoints.checkpoint import Stack
from keyreel.engine.single_file import build, transformer_weights, vae_weights
from tests.engine.test_single_file import TRANSFORMER_13B, VAE_097
from tests.tiny_checkpoints import (
    original_transformer_config,
    original_transformer_key,
    original_vae_config,
    original_vae_key,
)

TRANSFORMER_2B = TRANSFORMER_13B | {"attention_head_dim": 64, "cross_attention_dim": 2048, "num_layers": 28}
STATISTICS = ("channel", "mean-of-stds", "mean-of-stds_over_std-of-means")
"""Statistics in Lightricks' files that nothing reads."""


def full_size(transformer: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    config = {"transformer": original_transformer_config(transformer), "vae": original_vae_config(VAE_097)}
    return build(config)


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def stack(module: nn.Module, blocks: nn.ModuleList) -> Stack:
    return Stack(count(module), len(blocks), max(count(block) for block in blocks))


@pytest.mark.parametrize(
    ("config", "size"), [(TRANSFORMER_13B, SIZE_13B), (TRANSFORMER_2B, SIZE_2B)], ids=["13B", "2B"]
)
def test_the_catalogue_has_the_sizes_of_the_models(config: dict[str, Any], size: Any) -> None:
    transformer: Any
    vae: Any
    transformer, vae = full_size(config)
    assert stack(transformer, transformer.transformer_blocks) == size.transformer
    assert count(vae) == size.vae == VAE
    assert transformer.proj_in.out_features == size.width
    out, channels = vae.decoder.conv_out.conv.weight.shape[:2]
    assert channels / (out / 3) == size.detail


def test_the_catalogue_has_the_size_of_the_text_encoder() -> None:
    config = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        encoder = T5EncoderModel(config)
    assert stack(encoder, encoder.encoder.block) == T5
    # The hub lists four files of fp32 weights.
    assert 4 * T5.total / 1e9 == pytest.approx(4.99 + 5.00 + 4.87 + 4.19, abs=0.01)


@pytest.mark.parametrize("config", [TRANSFORMER_13B, TRANSFORMER_2B], ids=["13B", "2B"])
def test_keys_of_the_file_and_weights_of_the_modules_correspond_one_to_one(config: dict[str, Any]) -> None:
    transformer, vae = full_size(config)
    official = official_weights(transformer, vae)
    assert len(official) == len(transformer.state_dict()) + len(vae.state_dict()) + len(STATISTICS)
    remaining = dict(official)
    for ours, module in ((transformer_weights(remaining), transformer), (vae_weights(remaining), vae)):
        expected = dict(_state(module))
        assert ours.keys() == expected.keys()
        assert all(ours[key] is tensor for key, tensor in expected.items())
    assert not remaining


def official_weights(transformer: nn.Module, vae: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the weights of Lightricks' file, as far as they are known without the file."""
    weights = {f"model.diffusion_model.{original_transformer_key(key)}": tensor for key, tensor in _state(transformer)}
    weights |= {f"vae.{original_vae_key(key)}": tensor for key, tensor in _state(vae)}
    return weights | {f"vae.per_channel_statistics.{name}": torch.empty(128, device="meta") for name in STATISTICS}


def _state(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    # keep_vars returns the parameters themselves, so that `is` can compare them.
    return list(module.state_dict(keep_vars=True).items())


def test_the_2b_single_file_has_the_published_figures() -> None:
    """Others have counted them in the real file of 0.9.6-dev."""
    transformer, vae = full_size(TRANSFORMER_2B)
    official = official_weights(transformer, vae)
    sums = {
        prefix: sum(tensor.numel() for key, tensor in official.items() if key.startswith(prefix))
        for prefix in ("model.", "vae.")
    }
    assert sums == {"model.": 1_923_385_472, "vae.": 1_246_914_162}
    tensors = {half: sum(key.startswith(f"vae.{half}.") for key in official) for half in ("encoder", "decoder")}
    assert tensors == {"encoder": 92, "decoder": 132}
    # The hub lists 6.34 GB, in bf16.
    assert 2 * sum(sums.values()) / 1e9 == pytest.approx(6.34, abs=0.005)
    assert CATALOGUE["ltxv-2b-0.9.6-dev"].size / 1e9 == pytest.approx(6.34)


def test_the_13b_single_file_has_the_published_size() -> None:
    official = official_weights(*full_size(TRANSFORMER_13B))
    assert 2 * sum(tensor.numel() for tensor in official.values()) / 1e9 == pytest.approx(28.6, abs=0.05)
    assert CATALOGUE["ltxv-13b-0.9.8-dev"].size / 1e9 == pytest.approx(28.6)
