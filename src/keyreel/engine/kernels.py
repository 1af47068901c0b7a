"""The operations of a transformer block around its matrix products: which code computes them on a device.

On a GPU each is one pass over its data instead of several, because memory traffic bounds them. Elsewhere, and as the
reference of what the fused ones compute, torch computes them step by step.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from subprocess import SubprocessError
from typing import Protocol

import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn

LOG = logging.getLogger(__name__)
AMPERE = (8, 0)
"""The oldest generation of GPUs for which Triton is made, and which computes in bf16."""

_is_reference = ContextVar("is_reference", default=False)


class Kernels(Protocol):
    """What has to be computed, for tokens (1, N, D).

    A step has K noise levels: shift, scale and gate are (K, D), a row for each level. index: (N,) the level of each
    token. table: (1, N, D / 2) complex fp32, the rotation of each pair of neighbouring channels.
    """

    def norm_modulate(self, hidden: Tensor, shift: Tensor, scale: Tensor, index: Tensor, eps: float) -> Tensor:
        """Divides each token by its root mean square, then scales and shifts it as its level demands."""

    def norm_rotate(
        self, query: Tensor, key: Tensor, norms: tuple[nn.RMSNorm, nn.RMSNorm], table: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Normalises the queries and the keys, and rotates their pairs of channels."""

    def add_gated(self, hidden: Tensor, change: Tensor, gate: Tensor, index: Tensor) -> Tensor:
        """Adds to each token its change times the gate of its level."""

    def gelu(self, layer: GELU, hidden: Tensor) -> Tensor:
        """Computes a linear layer and the GELU of its output."""

    def quantise(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rounds each row to multiples of its scale. rows: (M, K) -> values (M, K) in `dtype`, scales (M, 1) in fp32.

        dtype: int8 or float8_e4m3fn.
        """

    def dequantise(self, values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """Multiplies each row by its scale. values: (M, K) in eight bits. scale: (M,) in fp32 -> (M, K) in `dtype`."""

    def scale_sums(self, sums: Tensor, row_scale: Tensor, column_scale: Tensor, bias: Tensor, out: Tensor) -> None:
        """Computes sums * row_scale * column_scale + bias in fp32. sums: (M, N). row_scale: (M, 1). Others: (N,).

        out: (M, N), where the result goes.
        """


def kernels_for(device: torch.device) -> Kernels:
    """Returns the fastest code for a device."""
    if _is_fused(device):
        from keyreel.engine import kernels_cuda  # it needs Triton, which only torch for CUDA brings

        return kernels_cuda
    from keyreel.engine import kernels_torch

    return kernels_torch


def kernels_trait(device: torch.device) -> str:
    """Returns which code `kernels_for` chooses, as far as the bytes of a video depend on it."""
    if not _is_fused(device):
        return "torch"
    from keyreel.engine import kernels_cuda

    return f"triton {kernels_cuda.VERSION}"


@contextmanager
def reference() -> Iterator[None]:
    """Has torch compute on every device within the context, for benchmarks and tests."""
    token = _is_reference.set(True)
    try:
        yield
    finally:
        _is_reference.reset(token)


def _is_fused(device: torch.device) -> bool:
    return device.type == "cuda" and not _is_reference.get() and _has_triton(device)


@cache
def _has_triton(device: torch.device) -> bool:
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < AMPERE:
        return False
    try:
        from keyreel.engine import kernels_cuda

        kernels_cuda.try_out(device)
    except (ImportError, OSError, RuntimeError, SubprocessError) as error:
        LOG.warning(
            "Triton cannot compile kernels, so torch computes on %s, which takes longer. Triton needs a C compiler,"
            " Python's header files and a folder to write to (TRITON_CACHE_DIR): %s",
            device,
            error,
        )
        return False
    return True
