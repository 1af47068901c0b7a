"""Compares the fused kernels with their reference, on a GPU if there is one. `test_kernels_cuda.py` runs this file.

Without a GPU they run in Triton's interpreter, which has to be chosen before Triton is imported: TRITON_INTERPRET=1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn

from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.engine import kernels_cuda, kernels_torch, quantised, transformer
from keyreel.engine.kernels import Kernels
from keyreel.engine.quantised import TYPES, QuantisedLinear
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
        assert ((rounded.float() - number).abs() <= allowance(number, torch.bfloat16) + 1e-6).all()


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


EIGHT_BITS = (torch.int8, torch.float8_e4m3fn)
each_kind = pytest.mark.parametrize("kind", EIGHT_BITS, ids=str)
each_exact_kind = pytest.mark.parametrize("kind", EIGHT_BITS[: 1 if DEVICE.type == "cpu" else 2], ids=str)
"""The interpreter rounds to fp8 without carrying into the exponent."""
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
each_shape = pytest.mark.parametrize("shape", [(1, 32), (7, 34), (3, 4096), (2, 5000)], ids=str)


def matrix(rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of very different sizes, the last one of zeros."""
    generator = torch.Generator().manual_seed(rows)
    values = torch.randn(rows, width, generator=generator) * torch.logspace(-3, 3, rows)[:, None]
    return torch.cat((values, torch.zeros(1, width))).to(DEVICE, dtype)


@each_exact_kind
@each_dtype
@each_shape
@torch.inference_mode()
def test_rows_are_rounded_to_the_same_bytes(kind: torch.dtype, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    rows = matrix(*shape, dtype)
    rows[0, :5] = rows[0].abs().max() * torch.tensor([1, -0.5, 0.5, 2.5 / 127, -3.5 / 127])  # halves between two levels
    values, scale = kernels_cuda.quantise(rows, kind)
    expected, expected_scale = kernels_torch.quantise(rows, kind)
    assert values.dtype == kind
    assert torch.equal(scale, expected_scale)
    assert torch.equal(values.float(), expected.float())


@torch.inference_mode()
def test_rows_have_the_same_scales_in_fp8() -> None:
    rows = matrix(7, 34)
    _, scale = kernels_cuda.quantise(rows, torch.float8_e4m3fn)
    assert torch.equal(scale, kernels_torch.quantise(rows, torch.float8_e4m3fn)[1])


@torch.inference_mode()
def test_rows_to_be_rounded_may_lie_apart() -> None:
    rows = matrix(4, 64).T
    values, scale = kernels_cuda.quantise(rows, torch.int8)
    expected, expected_scale = kernels_torch.quantise(rows, torch.int8)
    assert torch.equal(values, expected)
    assert torch.equal(scale, expected_scale)


@each_kind
@each_dtype
@each_shape
@torch.inference_mode()
def test_weights_get_back_their_size(kind: torch.dtype, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    values, scale = kernels_torch.quantise(matrix(*shape), kind)
    found = kernels_cuda.dequantise(values, scale[:, 0], dtype)
    exact = kernels_torch.dequantise(values, scale[:, 0], torch.float32)
    assert found.dtype == dtype
    assert ((found.float() - exact).abs() <= allowance(exact, dtype)).all()


@each_dtype
@each_shape
@torch.inference_mode()
def test_sums_are_scaled_in_fp32(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """Also those that are too large for fp32 to tell neighbours apart."""
    generator = torch.Generator().manual_seed(5)
    sums = torch.randint(-(2**26), 2**26, shape, generator=generator, dtype=torch.int32).to(DEVICE)
    row_scale, column_scale = matrix(shape[0], 1)[:-1].abs(), matrix(1, shape[1])[0].abs()
    bias = matrix(1, shape[1], dtype)[0]
    out, exact = sums.new_empty(shape, dtype=dtype), sums.new_empty(shape, dtype=torch.float32)
    kernels_cuda.scale_sums(sums, row_scale, column_scale, bias, out)
    kernels_torch.scale_sums(sums, row_scale, column_scale, bias.float(), exact)
    assert ((out.float() - exact).abs() <= allowance(exact, dtype) + exact.abs() * 1e-6 + 1e-6).all()


def allowance(exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns by how much numbers may differ when they are rounded once."""
    # In bf16 the interpreter cuts off where a GPU rounds.
    return torch.exp2(exact.abs().log2().floor() - 7) if dtype == torch.bfloat16 else torch.zeros_like(exact)


@each_exact_kind
@torch.inference_mode()
def test_a_layer_in_eight_bits_computes_what_it_does_with_torch(
    kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[torch.dtype, Quantisation] = {dtype: name for name, dtype in TYPES.items()}
    wide, narrow = (
        QuantisedLinear(nn.Linear(*size), names[kind]).to(DEVICE).requires_grad_(False) for size in ((64, 96), (96, 64))
    )
    tokens = matrix(39, 64)[None]
    expected = narrow(wide(tokens))
    monkeypatch.setattr(quantised, "kernels_for", lambda _device: kernels_cuda)
    torch.testing.assert_close(narrow(wide(tokens)), expected, rtol=1e-4, atol=1e-4)


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
