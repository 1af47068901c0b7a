"""Compares the fused kernels with their reference, on a GPU if there is one. `test_kernels_cuda.py` runs this file.

Without a GPU they run in Triton's interpreter, which has to be chosen before Triton is imported: TRITON_INTERPRET=1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn

from keyreel.engine import kernels_cuda, kernels_torch, transformer
from keyreel.engine.kernels import Kernels
from tests.engine import test_transformer as small

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = [(1, 32, 1), (7, 34, 4), (5, 96, 2), (3, 2048, 3)]
"""Tokens, width and noise levels."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """vectors: three times (1, N, D). rows: three times (K, D), not contiguous, as in a block."""

    vectors: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    index: Tensor
    weights: tuple[Tensor, Tensor]
    table: Tensor

    def to(self, dtype: torch.dtype) -> "Inputs":
        def cast(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(tensor.to(dtype) for tensor in tensors)

        query, key = cast(self.weights)
        return Inputs(cast(self.vectors), cast(self.rows), self.index, (query, key), self.table)

    @property
    def norms(self) -> tuple[nn.RMSNorm, nn.RMSNorm]:
        query, key = (nn.RMSNorm(len(weight), eps=1e-5) for weight in self.weights)
        query.weight, key.weight = (nn.Parameter(weight, requires_grad=False) for weight in self.weights)
        return query, key


def inputs(tokens: int, width: int, levels: int) -> Inputs:
    generator = torch.Generator().manual_seed(tokens)
    vectors = torch.randn(3, 1, tokens, width, generator=generator).to(DEVICE)
    rows = torch.randn(levels, 6, width, generator=generator).to(DEVICE)
    angles = torch.rand(1, tokens, width // 2, generator=generator).to(DEVICE) * 6
    return Inputs(
        vectors.unbind(),
        rows.unbind(1)[:3],
        torch.randint(levels, (tokens,), generator=generator).to(DEVICE),
        (rows[0, 3], rows[0, 4]),
        torch.polar(torch.ones_like(angles), angles),
    )


def norm_modulate(kernels: Kernels, given: Inputs) -> tuple[Tensor, ...]:
    shift, scale, _ = given.rows
    return (kernels.norm_modulate(given.vectors[0], shift, scale, given.index, 1e-6),)


def norm_rotate(kernels: Kernels, given: Inputs) -> tuple[Tensor, ...]:
    return kernels.norm_rotate(given.vectors[0], given.vectors[1], given.norms, given.table)


def add_gated(kernels: Kernels, given: Inputs) -> tuple[Tensor, ...]:
    return (kernels.add_gated(given.vectors[0], given.vectors[1], given.rows[2], given.index),)


each_kernel = pytest.mark.parametrize("kernel", [norm_modulate, norm_rotate, add_gated])
each_size = pytest.mark.parametrize("size", SIZES, ids=str)
Kernel = Callable[[Kernels, Inputs], tuple[Tensor, ...]]


@each_kernel
@each_size
@torch.inference_mode()
def test_in_fp32_the_numbers_are_those_of_the_reference(kernel: Kernel, size: tuple[int, int, int]) -> None:
    given = inputs(*size)
    torch.testing.assert_close(kernel(kernels_cuda, given), kernel(kernels_torch, given), rtol=1e-6, atol=1e-6)


@each_kernel
@each_size
@torch.inference_mode()
def test_in_bf16_the_exact_numbers_are_rounded_once(kernel: Kernel, size: tuple[int, int, int]) -> None:
    given = inputs(*size).to(torch.bfloat16)
    exact = kernel(kernels_torch, given.to(torch.float32))
    for rounded, number in zip(kernel(kernels_cuda, given), exact, strict=True):
        assert rounded.dtype == torch.bfloat16
        spacing = torch.exp2(number.abs().log2().floor() - 7)  # the interpreter cuts off where a GPU rounds
        assert ((rounded.float() - number).abs() <= spacing + 1e-6).all()


@each_kernel
@torch.inference_mode()
def test_a_token_does_not_depend_on_the_others(kernel: Kernel) -> None:
    """Not on how many they are either, nor on what was computed before."""
    given = inputs(7, 34, 4)
    whole = kernel(kernels_cuda, given)
    few = Inputs(
        tuple(vectors[:, 2:5].contiguous() for vectors in given.vectors),
        given.rows,
        given.index[2:5],
        given.weights,
        given.table[:, 2:5].contiguous(),
    )
    kernel(kernels_cuda, inputs(5, 96, 2))
    for all_, part in zip(whole, kernel(kernels_cuda, few), strict=True):
        assert torch.equal(all_[:, 2:5], part)


def test_a_kernel_can_be_tried_out() -> None:
    kernels_cuda.try_out(DEVICE)


@torch.inference_mode()
def test_inputs_must_be_contiguous() -> None:
    given = inputs(7, 34, 4)
    transposed = given.vectors[0].transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(AssertionError, match="one after the other"):
        kernels_cuda.add_gated(transposed, given.vectors[1], given.rows[2], given.index)


def test_predictions_equal_diffusers_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    module = small.small_transformer(layers=2).to(DEVICE)
    monkeypatch.setattr(transformer, "kernels_for", lambda _device: kernels_cuda)
    if DEVICE.type == "cpu":  # where the product's epilogue is another function
        monkeypatch.setattr(kernels_cuda, "gelu", kernels_torch.gelu)
    positive, negative = small.ours(module)
    torch.testing.assert_close(positive, small.stock(module, small.TEXTS[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(negative, small.stock(module, small.TEXTS[1]), rtol=0, atol=1e-5)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="On a CPU the epilogue is another function.")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@torch.inference_mode()
def test_the_gelu_in_the_epilogue_is_the_approximate_one(dtype: torch.dtype, tolerance: float) -> None:
    layer = LTXVideoTransformer3DModel(num_layers=1).transformer_blocks[0].ff.net[0].to(DEVICE, dtype)
    hidden = torch.randn(1, 77, layer.proj.in_features, device=DEVICE, dtype=dtype)
    exact = kernels_torch.gelu(layer.float(), hidden.float())
    found = kernels_cuda.gelu(layer.to(dtype), hidden).float()
    torch.testing.assert_close(found, exact, rtol=tolerance, atol=tolerance)
