import copy
import gc
import json
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors.torch import save_file
from torch import Tensor, nn

from keyreel.engine.adapters import Adapter, attached, linear_shapes, read_adapter
from keyreel.errors import RequestError
from tests.spellings import SPELLINGS, Factors, underscored

LOC = ("loras", 0, "path")


def tiny_transformer() -> LTXVideoTransformer3DModel:
    torch.manual_seed(0)
    return LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=12,
    ).eval()


@pytest.fixture(scope="module")
def transformer() -> LTXVideoTransformer3DModel:
    return tiny_transformer()


def predict(transformer: LTXVideoTransformer3DModel) -> Tensor:
    noise = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 2 * 3 * 4, 8, generator=noise)
    prompt = torch.randn(1, 5, 12, generator=noise)
    with torch.inference_mode():
        velocity: Tensor = transformer(
            latents.to(transformer.dtype),
            encoder_hidden_states=prompt.to(transformer.dtype),
            timestep=torch.tensor([700]),
            encoder_attention_mask=torch.ones(1, 5, dtype=torch.int64),
            num_frames=2,
            height=3,
            width=4,
            return_dict=False,
        )[0]
    return velocity.float()


def random_factors(transformer: LTXVideoTransformer3DModel, rank: int = 4, seed: int = 2) -> Factors:
    """Returns A (rank, in) and B (out, rank) for every linear layer."""
    noise = torch.Generator().manual_seed(seed)
    return {
        path: (
            torch.randn(rank, inputs, generator=noise) / inputs**0.5,
            torch.randn(outputs, rank, generator=noise) / rank**0.5,
        )
        for path, (outputs, inputs) in linear_shapes(transformer).items()
    }


def merged(transformer: LTXVideoTransformer3DModel, *loras: tuple[Factors, float]) -> LTXVideoTransformer3DModel:
    """Returns a copy whose weights contain the LoRAs."""
    result = copy.deepcopy(transformer)
    for factors, strength in loras:
        for path, (a, b) in factors.items():
            weight = result.get_submodule(path).weight
            weight.data += (strength * (b @ a)).to(weight.dtype)
    return result


@pytest.fixture
def adapter(tmp_path: Path, transformer: LTXVideoTransformer3DModel) -> Callable[..., Adapter]:
    """A function that writes a LoRA file and reads it."""

    def read(tensors: Mapping[str, Tensor], scale: float = 1.0, metadata: dict[str, str] | None = None) -> Adapter:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
        return read_adapter(path, transformer, scale, LOC, path.name)

    return read


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_lora_in_every_spelling_acts_like_merged_weights(
    spelling: str, transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    factors = random_factors(transformer)
    with attached(transformer, [adapter(SPELLINGS[spelling](factors), 0.7)]):
        found = predict(transformer)
    assert_same(found, predict(merged(transformer, (factors, 0.7))))
    assert (found - predict(transformer)).abs().max() > 0.1


@pytest.mark.parametrize("scale", [-1.0, 0.25, 2.0])
def test_the_strength_is_scale_times_alpha_over_rank(
    scale: float, transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    factors = random_factors(transformer, rank=4)
    alphas = {f"lora_unet_{underscored(path)}.alpha": torch.tensor(3.0) for path in factors}
    with attached(transformer, [adapter(SPELLINGS["kohya"](factors) | alphas, scale)]):
        found = predict(transformer)
    assert_same(found, predict(merged(transformer, (factors, scale * 3 / 4))))


@pytest.mark.parametrize(
    ("config", "strength", "strength_of_q"),
    [
        ({"transformer.r": 4, "transformer.lora_alpha": 2}, 2 / 4, 2 / 4),
        ({"r": 4, "lora_alpha": 2, "alpha_pattern": {"attn1.to_q": 6}}, 2 / 4, 6 / 4),
        ({"transformer.lora_alpha": 3, "transformer.use_rslora": True}, 3 / 2, 3 / 2),
        ({"text_encoder.lora_alpha": 3}, 1, 1),
    ],
)
def test_the_strength_follows_pefts_configuration(
    config: dict[str, object],
    strength: float,
    strength_of_q: float,
    transformer: LTXVideoTransformer3DModel,
    adapter: Callable[..., Adapter],
) -> None:
    factors = random_factors(transformer, rank=4)
    of_q = {path: factor for path, factor in factors.items() if path.endswith("attn1.to_q")}
    others = {path: factor for path, factor in factors.items() if path not in of_q}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config)}
    with attached(transformer, [adapter(SPELLINGS["diffusers"](factors), metadata=metadata)]):
        found = predict(transformer)
    assert_same(found, predict(merged(transformer, (others, strength), (of_q, strength_of_q))))


def test_an_alpha_tensor_overrides_the_header(
    transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    factors = random_factors(transformer, rank=4)
    alphas = {f"transformer.{path}.alpha": torch.tensor([2.0]) for path in factors}
    metadata = {"lora_adapter_metadata": '{"lora_alpha": 64}'}
    lora = adapter(SPELLINGS["diffusers"](factors) | alphas, metadata=metadata)
    assert {branch.gain for branch in lora.branches.values()} == {0.5}


def test_adapters_of_different_rank_and_scale_add_up(
    transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    wide = random_factors(transformer, rank=8, seed=3)
    narrow = {path: f for path, f in random_factors(transformer, rank=2, seed=4).items() if "attn" in path}
    loras = [adapter(SPELLINGS["comfy"](wide), 0.5), adapter(SPELLINGS["bare"](narrow), -1.5)]
    with attached(transformer, loras):
        found = predict(transformer)
    assert_same(found, predict(merged(transformer, (wide, 0.5), (narrow, -1.5))))


def test_in_bf16_a_lora_is_as_exact_as_a_merge(adapter: Callable[..., Adapter]) -> None:
    exact = tiny_transformer()
    factors = random_factors(exact)
    truth = predict(merged(exact, (factors, 0.1)))
    rounded = tiny_transformer().to(torch.bfloat16)
    with attached(rounded, [adapter(SPELLINGS["diffusers"](factors), 0.1)]):
        found = predict(rounded)
    branch_error, merge_error = found - truth, predict(merged(rounded, (factors, 0.1))) - truth
    assert branch_error.norm() <= 1.2 * merge_error.norm()
    assert branch_error.norm() <= 0.03 * truth.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_loras_can_be_stored_in_other_types(
    dtype: torch.dtype, transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    factors = {path: (a.to(dtype), b.to(dtype)) for path, (a, b) in random_factors(transformer).items()}
    with attached(transformer, [adapter(SPELLINGS["diffusers"](factors))]):
        found = predict(transformer)
    exact = {path: (a.float(), b.float()) for path, (a, b) in factors.items()}
    assert_same(found, predict(merged(transformer, (exact, 1))))


def test_a_lora_acts_on_weights_stored_in_fp8(adapter: Callable[..., Adapter]) -> None:
    model = tiny_transformer()
    factors = random_factors(model)
    model.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    plain = predict(model)
    with attached(model, [adapter(SPELLINGS["diffusers"](factors), 0.5)]):
        assert (predict(model) - plain).abs().max() > 0.1
    assert torch.equal(predict(model), plain)


def test_a_detached_lora_leaves_the_model_unchanged(
    transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    before = predict(transformer)
    weights = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    lora = adapter(SPELLINGS["diffusers"](random_factors(transformer)))
    for _ in range(3):
        with attached(transformer, [lora]):
            predict(transformer)
    assert torch.equal(predict(transformer), before)
    assert all(torch.equal(weight, weights[name]) for name, weight in transformer.state_dict().items())


def attach_and_fail(transformer: LTXVideoTransformer3DModel, lora: Adapter) -> "weakref.ref[object]":
    with suppress(InterruptedError), attached(transformer, [lora]):
        (hook,) = transformer.get_submodule("proj_in")._forward_hooks.values()
        reference = weakref.ref(hook)
        raise InterruptedError
    return reference


@pytest.mark.slow
def test_an_error_detaches_and_frees_the_lora(
    transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    lora = adapter(SPELLINGS["diffusers"](random_factors(transformer)))
    hook = attach_and_fail(transformer, lora)
    gc.collect()
    assert hook() is None
    assert not any(module._forward_hooks for module in transformer.modules() if isinstance(module, nn.Linear))


def test_a_lora_of_scale_zero_is_not_attached(
    transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    before = predict(transformer)
    with attached(transformer, [adapter(SPELLINGS["diffusers"](random_factors(transformer)), 0.0)]):
        assert not transformer.get_submodule("proj_in")._forward_hooks
        assert torch.equal(predict(transformer), before)


@pytest.mark.parametrize("bad_value", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", ["lora_A.weight", "alpha"])
def test_weights_that_are_not_finite_are_refused(
    bad_value: float, part: str, transformer: LTXVideoTransformer3DModel, adapter: Callable[..., Adapter]
) -> None:
    tensors = SPELLINGS["diffusers"](random_factors(transformer)) | {"transformer.proj_out.alpha": torch.tensor(4.0)}
    tensors[f"transformer.proj_out.{part}"].view(-1)[0] = bad_value
    with pytest.raises(RequestError, match=r"loras\.0\.path: .*infinities or NaNs \(layers: proj_out\)"):
        adapter(tensors)


def test_a_lora_for_a_model_of_another_width_is_refused(adapter: Callable[..., Adapter]) -> None:
    tensors = {
        "diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.zeros(4, 32),
        "diffusion_model.transformer_blocks.0.attn1.to_q.lora_B.weight": torch.zeros(32, 4),
    }
    with pytest.raises(RequestError, match="made for a model of width 32, this model has width 16"):
        adapter(tensors)
