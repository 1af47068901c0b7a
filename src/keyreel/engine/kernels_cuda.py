"""The kernels for CUDA, fused. `kernels.Kernels` says what they do, and `kernels_torch` is the reference.

Each program of a Triton kernel computes one token, or a part of one row, in fp32, and rounds once. Its tile depends on
the model's width alone, and nothing is tuned at run time. So the numbers depend neither on how many tokens there are
nor on history.
"""

import torch
import triton
import triton.language as tl
from diffusers.models.activations import GELU
from torch import Tensor, nn
from triton.errors import TritonError

from keyreel.engine import kernels_torch

WARPS = 8
PART = 2048
"""The columns that one program computes where a row can be divided."""
WHOLE = tl.constexpr(1.5 * 2**23)
"""fp32 numbers near it are whole, so adding it and taking it away rounds a number below 2^22, halves to even."""
VERSION: str = triton.__version__


def norm_modulate(hidden: Tensor, shift: Tensor, scale: Tensor, index: Tensor, eps: float) -> Tensor:
    out = torch.empty_like(hidden)
    strides = shift.stride(0), scale.stride(0)
    with torch.cuda.device_of(hidden):
        _norm_modulate[_grid(hidden)](out, hidden, shift, scale, index, *strides, eps, **_tile(hidden))
    return out


def norm_rotate(
    query: Tensor, key: Tensor, norms: tuple[nn.RMSNorm, nn.RMSNorm], table: Tensor
) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(query), torch.empty_like(key)
    weights, eps = [norm.weight for norm in norms], [norm.eps for norm in norms]
    with torch.cuda.device_of(query):
        _norm_rotate[_grid(query, key, table)](
            *out, query, key, *weights, *eps, torch.view_as_real(table), **_tile(query)
        )
    return out


def add_gated(hidden: Tensor, change: Tensor, gate: Tensor, index: Tensor) -> Tensor:
    out = torch.empty_like(hidden)
    with torch.cuda.device_of(hidden):
        _add_gated[_grid(hidden, change)](out, hidden, change, gate, index, gate.stride(0), **_tile(hidden))
    return out


def gelu(layer: GELU, hidden: Tensor) -> Tensor:
    linear = layer.proj
    # A hook adds a LoRA's branch, which comes before the activation.
    is_plain = type(linear) is nn.Linear and linear.bias is not None and not linear._forward_hooks
    if not is_plain or layer.approximate != "tanh":
        return kernels_torch.gelu(layer, hidden)
    # On CUDA this is the tanh approximation (on a CPU it is the exact GELU), computed before the product is rounded.
    flat = torch._addmm_activation(linear.bias, hidden.flatten(0, -2), linear.weight.T, use_gelu=True)
    return torch.unflatten(flat, 0, hidden.shape[:-1])


def quantise(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rows = rows.contiguous()
    values, scale = torch.empty_like(rows, dtype=dtype), rows.new_empty(len(rows), 1, dtype=torch.float32)
    kind = {"TINY": kernels_torch.TINY, "LARGEST": kernels_torch.LARGEST[dtype], "ROUND": dtype == torch.int8}
    with torch.cuda.device_of(rows):
        _quantise[(len(rows),)](values, scale, rows, **kind, **_tile(rows))
    return values, scale


def dequantise(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    out = torch.empty_like(values, dtype=dtype)
    with torch.cuda.device_of(values):
        _dequantise[_parts(values)](out, values, scale, **_part(values))
    return out


def scale_sums(sums: Tensor, row_scale: Tensor, column_scale: Tensor, bias: Tensor, out: Tensor) -> None:
    with torch.cuda.device_of(sums):
        _scale_sums[_parts(sums, out)](out, sums, row_scale, column_scale, bias, **_part(sums))


def try_out(device: torch.device) -> None:
    """Compiles a kernel and launches it. Raises RuntimeError, OSError or SubprocessError if it fails."""
    tokens = torch.ones(1, 1, 32, device=device)
    try:
        add_gated(tokens, tokens, tokens[0], torch.zeros(1, dtype=torch.long, device=device)).cpu()
    except TritonError as error:  # such as its assembler's, which may be older than the GPU
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _grid(*tokens: Tensor) -> tuple[int]:
    """Returns the number of programs, one per token."""
    _check_order(*tokens)
    return (tokens[0].shape[1],)


def _parts(*matrices: Tensor) -> tuple[int, int]:
    """Returns the numbers of programs: the rows, and the parts of each."""
    _check_order(*matrices)
    rows, width = matrices[0].shape
    return rows, triton.cdiv(width, PART)


def _check_order(*tensors: Tensor) -> None:
    assert all(tensor.is_contiguous() for tensor in tensors), "a program reads channels one after the other"  # noqa: S101


def _tile(rows: Tensor) -> dict[str, int]:
    width = rows.shape[-1]
    return {"WIDTH": width, "BLOCK": triton.next_power_of_2(width), "num_warps": WARPS}


def _part(matrix: Tensor) -> dict[str, int]:
    return {"WIDTH": matrix.shape[1], "BLOCK": PART, "num_warps": WARPS}


@triton.jit
def _norm_modulate(
    out, hidden, shift, scale, index, shift_stride, scale_stride, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    channels, inside, start = _token(WIDTH, BLOCK)
    level = tl.load(index + tl.program_id(0))
    scales = _row(scale + level * scale_stride, channels, inside)
    shifts = _row(shift + level * shift_stride, channels, inside)
    normed = _normed(_row(hidden + start, channels, inside), eps, WIDTH)
    tl.store(out + start + channels, normed * (1 + scales) + shifts, inside)


@triton.jit
def _norm_rotate(
    query_out,
    key_out,
    query,
    key,
    query_weight,
    key_weight,
    query_eps,
    key_eps,
    table,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    channels, inside, start = _token(WIDTH, BLOCK)
    cosines, sines = _pairs(_row(table + start, channels, inside), BLOCK)
    queries = _normed(_row(query + start, channels, inside), query_eps, WIDTH) * _row(query_weight, channels, inside)
    tl.store(query_out + start + channels, _rotated(queries, cosines, sines, BLOCK), inside)
    keys = _normed(_row(key + start, channels, inside), key_eps, WIDTH) * _row(key_weight, channels, inside)
    tl.store(key_out + start + channels, _rotated(keys, cosines, sines, BLOCK), inside)


@triton.jit
def _add_gated(out, hidden, change, gate, index, gate_stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    channels, inside, start = _token(WIDTH, BLOCK)
    gates = _row(gate + tl.load(index + tl.program_id(0)) * gate_stride, channels, inside)
    changed = _row(hidden + start, channels, inside) + _row(change + start, channels, inside) * gates
    tl.store(out + start + channels, changed, inside)


@triton.jit
def _quantise(
    out,
    scale_out,
    rows,
    TINY: tl.constexpr,
    LARGEST: tl.constexpr,
    ROUND: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    channels, inside, start = _token(WIDTH, BLOCK)
    values = _row(rows + start, channels, inside)
    scale = tl.div_rn(tl.maximum(tl.max(tl.abs(values), 0), TINY), LARGEST)
    scaled = tl.div_rn(values, scale)
    if ROUND:
        scaled = (scaled + WHOLE) - WHOLE
    tl.store(out + start + channels, scaled.to(out.dtype.element_ty), inside)
    tl.store(scale_out + tl.program_id(0), scale)


@triton.jit
def _dequantise(out, values, scale, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    columns, inside, start = _part_of_row(WIDTH, BLOCK)
    scaled = _row(values + start, columns, inside) * tl.load(scale + tl.program_id(0))
    tl.store(out + start + columns, scaled, inside)


@triton.jit
def _scale_sums(out, sums, row_scale, column_scale, bias, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    columns, inside, start = _part_of_row(WIDTH, BLOCK)
    scaled = _row(sums + start, columns, inside) * tl.load(row_scale + tl.program_id(0))
    scaled = scaled * _row(column_scale, columns, inside) + _row(bias, columns, inside)
    tl.store(out + start + columns, scaled, inside)


@triton.jit
def _part_of_row(WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Returns the columns of this program's part, which of them exist, and where the row starts."""
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return columns, columns < WIDTH, tl.program_id(0).to(tl.int64) * WIDTH


@triton.jit
def _token(WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Returns the channels of this program's token, which of them exist, and where the token starts."""
    channels = tl.arange(0, BLOCK)
    return channels, channels < WIDTH, tl.program_id(0).to(tl.int64) * WIDTH


@triton.jit
def _row(start, channels, inside):
    return tl.load(start + channels, inside, other=0.0).to(tl.float32)


@triton.jit
def _normed(values, eps, WIDTH: tl.constexpr):
    return values * tl.rsqrt(tl.sum(values * values, 0) / WIDTH + eps)


@triton.jit
def _rotated(values, cosines, sines, BLOCK: tl.constexpr):
    even, odd = _pairs(values, BLOCK)
    return tl.reshape(tl.join(even * cosines - odd * sines, odd * cosines + even * sines), (BLOCK,))


@triton.jit
def _pairs(values, BLOCK: tl.constexpr):
    return tl.split(tl.reshape(values, (BLOCK // 2, 2)))
