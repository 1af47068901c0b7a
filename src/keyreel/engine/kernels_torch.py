"""The kernels in torch, for CPU and MPS, and the reference for the fused ones. `kernels.Kernels` says what they do."""

import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The largest value of each type. int8 could hold -128, but then its levels would not be symmetric."""
TINY = torch.finfo(torch.float32).tiny


def norm_modulate(hidden: Tensor, shift: Tensor, scale: Tensor, index: Tensor, eps: float) -> Tensor:
    return modulate(_normed(hidden, eps).to(hidden.dtype), shift, scale, index)


def modulate(hidden: Tensor, shift: Tensor, scale: Tensor, index: Tensor) -> Tensor:
    """Scales and shifts each token (1, N, D) as its level demands."""
    return torch.addcmul(spread(shift, index), hidden, spread(1 + scale, index))


def norm_rotate(
    query: Tensor, key: Tensor, norms: tuple[nn.RMSNorm, nn.RMSNorm], table: Tensor
) -> tuple[Tensor, Tensor]:
    norm_query, norm_key = norms
    return _norm_rotate(query, norm_query, table), _norm_rotate(key, norm_key, table)


def add_gated(hidden: Tensor, change: Tensor, gate: Tensor, index: Tensor) -> Tensor:
    return torch.addcmul(hidden, change, spread(gate, index))


def gelu(layer: GELU, hidden: Tensor) -> Tensor:
    # In place is safe: the layer has just made the output and nothing else refers to it.
    activated: Tensor = torch.ops.aten.gelu_(layer.proj(hidden), approximate=layer.approximate)
    return activated


def quantise(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    scale = rows.abs().amax(dim=1, keepdim=True).float().clamp_(min=TINY) / LARGEST[dtype]
    scaled = rows / scale
    return (scaled.round_() if dtype == torch.int8 else scaled).to(dtype), scale


def dequantise(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return values.float().mul_(scale[:, None]).to(dtype)


def scale_sums(sums: Tensor, row_scale: Tensor, column_scale: Tensor, bias: Tensor, out: Tensor) -> None:
    torch.addcmul(bias, sums * row_scale, column_scale, out=out)


def spread(rows: Tensor, index: Tensor) -> Tensor:
    """Gives each token the row of its level: (K, D) -> (1, N, D), or (1, 1, D) when there is only one level."""
    return rows[None] if len(rows) == 1 else rows[index][None]


def _norm_rotate(vectors: Tensor, norm: nn.RMSNorm, table: Tensor) -> Tensor:
    assert norm.eps is not None, "LTX-Video's models have one"  # noqa: S101
    normed = _normed(vectors, norm.eps).mul_(norm.weight)
    pairs = torch.view_as_complex(torch.unflatten(normed, 2, (-1, 2)))
    return torch.view_as_real(pairs.mul_(table)).flatten(2).to(vectors.dtype)


def _normed(vectors: Tensor, eps: float) -> Tensor:
    """Divides each token (1, N, D) by its root mean square. Returns a new tensor in fp32."""
    vectors = vectors.float()
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * torch.rsqrt(length.square() / vectors.shape[-1] + eps)
