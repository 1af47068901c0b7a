"""What code for CUDA demands of its arguments holds for all that a step computes. This needs no GPU."""

from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn
from torch.nn import functional

pytest.importorskip("triton", reason="Triton has no wheel for this system.")

from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.engine import kernels_cuda, kernels_torch, quantised
from keyreel.engine import transformer as transformer_module
from keyreel.engine.adapters import Adapter, Branch, attached
from keyreel.engine.ranks import Group, Split
from keyreel.engine.transformer import Forward, Levels, rotary, text_key_values, velocities
from keyreel.video.recipes import StgMode
from tests.engine.test_adapters import tiny_transformer


class Checking:
    """The kernels in torch, behind the preconditions of the fused ones."""

    def norm_modulate(self, hidden: Tensor, shift: Tensor, scale: Tensor, index: Tensor, eps: float) -> Tensor:
        kernels_cuda._grid(hidden)
        assert shift.stride(1) == scale.stride(1) == index.stride(0) == 1
        return kernels_torch.norm_modulate(hidden, shift, scale, index, eps)

    def norm_rotate(
        self, query: Tensor, key: Tensor, norms: tuple[nn.RMSNorm, nn.RMSNorm], table: Tensor
    ) -> tuple[Tensor, Tensor]:
        kernels_cuda._grid(query, key, table)
        assert table.dtype == torch.complex64
        assert query.shape == key.shape == (*table.shape[:2], 2 * table.shape[2])
        return kernels_torch.norm_rotate(query, key, norms, table)

    def add_gated(self, hidden: Tensor, change: Tensor, gate: Tensor, index: Tensor) -> Tensor:
        kernels_cuda._grid(hidden, change)
        assert hidden.shape == change.shape
        assert gate.stride(1) == index.stride(0) == 1
        return kernels_torch.add_gated(hidden, change, gate, index)

    def gelu(self, layer: GELU, hidden: Tensor) -> Tensor:
        return kernels_torch.gelu(layer, hidden)

    def quantise(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return kernels_torch.quantise(rows, dtype)

    def dequantise(self, values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        kernels_cuda._parts(values)
        assert scale.is_contiguous()
        return kernels_torch.dequantise(values, scale, dtype)

    def scale_sums(self, sums: Tensor, row_scale: Tensor, column_scale: Tensor, bias: Tensor, out: Tensor) -> None:
        kernels_cuda._parts(sums, out)
        assert sums.shape == out.shape == (len(row_scale), len(column_scale))
        assert all(tensor.is_contiguous() for tensor in (row_scale, column_scale, bias))
        kernels_torch.scale_sums(sums, row_scale, column_scale, bias, out)


def checked_int_mm(values: Tensor, weight: Tensor) -> Tensor:
    """torch's product of int8, with what CUDA demands of its factors."""
    assert len(values) > 16
    assert values.stride() == (values.shape[1], 1)
    assert weight.stride() == (1, weight.shape[0]), "only a transposed second factor is fast"
    assert all(size % 8 == 0 for size in weight.shape)
    return values.int() @ weight.int()


def checked_scaled_mm(values: Tensor, weight: Tensor, **options: Any) -> Tensor:
    """torch's product of fp8, with what CUDA demands of its factors, their scales and the bias."""
    rows, width, columns = *values.shape, weight.shape[1]
    assert values.stride() == (width, 1)
    assert weight.stride() == (1, width)
    assert width % 16 == columns % 16 == 0
    scales, bias = (options["scale_a"], options["scale_b"]), options["bias"]
    assert [scale.shape for scale in scales] == [(rows, 1), (1, columns)]
    assert all(scale.is_contiguous() and scale.dtype == torch.float32 for scale in scales)
    assert bias.shape == (columns,)
    assert bias.dtype == options["output_dtype"] == torch.bfloat16
    product: Tensor = (values.float() * scales[0]) @ (weight.float() * scales[1]) + bias
    return product.to(torch.bfloat16)


MODES: tuple[StgMode, ...] = get_args(StgMode)


@pytest.mark.parametrize("kind", [None, "int8", "fp8"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("styled", [False, True], ids=["plain", "LoRA"])
@torch.inference_mode()
def test_all_that_a_step_computes_keeps_to_the_rules_of_a_gpu(
    kind: Quantisation | None, ranks: int, styled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the fused kernels, of products in eight bits, and of NCCL, which sends only what lies in one piece."""

    def exchanged(_split: Split, values: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        assert values.is_contiguous()
        assert values.numel() == sum(sent)
        return values.new_zeros(sum(received))

    for module in (transformer_module, quantised):
        monkeypatch.setattr(module, "kernels_for", lambda _device: Checking())
    monkeypatch.setattr(quantised, "_aligned", lambda rows: functional.pad(rows, (0, 0, 0, -len(rows) % 32)))
    monkeypatch.setattr(torch, "_int_mm", checked_int_mm)
    monkeypatch.setattr(functional, "scaled_mm", checked_scaled_mm)
    monkeypatch.setattr(Split, "_exchange", exchanged)
    monkeypatch.setattr(Split, "joined", lambda _split, predictions: list(predictions))
    module = tiny_transformer().to(torch.bfloat16)
    if kind:
        quantised.quantise_linears(module.transformer_blocks, kind)
    split = Group(ranks - 1, ranks).split(7)
    table = rotary(module, split.cut(torch.rand(3, 7), 1), 25)
    levels = Levels(torch.tensor([0.2, 0.9]), torch.tensor([0, 1, 1, 0, 1, 1, 1]))
    layers = [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear) and "blocks" in path]
    branches = {path: Branch(*low_rank(module.get_submodule(path)), 1.0) for path in layers if styled}
    with attached(module, [Adapter("a LoRA", branches, 1.0)]):
        (text,) = text_key_values(module, [torch.randn(1, 3, module.config.caption_channels, dtype=torch.bfloat16)])
        forwards = [Forward(text), *(Forward(text, (1,), mode) for mode in MODES)]
        tokens = torch.randn(1, 7, module.config.in_channels, dtype=torch.bfloat16)
        predictions = velocities(module, tokens, levels, table, forwards, split)
    assert [prediction.shape[1] for prediction in predictions] == [split.counts[split.rank]] * len(forwards)
    assert all(prediction.isfinite().all() for prediction in predictions)


def low_rank(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return torch.randn(2, layer.in_features) / 8, torch.randn(layer.out_features, 2) / 8
