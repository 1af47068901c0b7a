"""Linear layers that multiply in eight bits: int8 or fp8 (e4m3), with a scale per row of both factors.

A weight has a scale per output, an activation one per token, and each is rounded to values that are multiples of it.
With x and w for the rounded values, the layer computes

    out[token, i] = sum over k of x[token, k] * w[i, k]  *  scale[token] * scale[i]  +  bias[i]

The sum is exact for int8 and in fp32 for fp8, what follows is in fp32, and the result has the type of the activations.

The second layer of each feed-forward rounds only its weight. A few of its inputs are much larger than the others, so a
common scale would leave little of these: rounding them caused most of the error.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import ScalingType

from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.checkpoints.memory import PRODUCT_ROWS
from keyreel.engine.kernels import kernels_for, reference
from keyreel.errors import ModelError

TYPES: dict[Quantisation, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
NEEDED: dict[Quantisation, str] = {
    "int8": "int8 (NVIDIA Turing or later: compute capability 7.5 or more)",
    "fp8": "fp8 with a scale per row (NVIDIA Ada, Hopper or later: compute capability 8.9 or more)",
}
INSTEAD: dict[Quantisation, str] = {
    "int8": "Name the model without +int8.",
    "fp8": "Name the model with +int8 instead. It takes as little memory.",
}
ALIGNED_ROWS = 32
"""A GPU's int8 kernels refuse fewer than 17 rows, and may refuse an odd number of them."""


class QuantisedLinear(nn.Linear):
    """A linear layer with a weight (out, in) in eight bits and its scale (out,) in fp32. Has a bias always.

    rounds_inputs: whether it multiplies in eight bits, too.
    """

    scale: nn.Parameter

    def __init__(self, dense: nn.Linear, kind: Quantisation) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would draw random weights
        self.in_features, self.out_features = dense.in_features, dense.out_features
        # The feed-forward's second layer is the only one that has more inputs than outputs.
        self.rounds_inputs = self.in_features <= self.out_features
        weight = dense.weight.data
        values, scale = kernels_for(weight.device).quantise(weight, TYPES[kind])
        bias = torch.zeros(self.out_features) if dense.bias is None else dense.bias.data
        for name, tensor in {"weight": values, "scale": scale[:, 0], "bias": bias}.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's name
        kernels = kernels_for(input.device)
        if not self.rounds_inputs:
            return functional.linear(input, kernels.dequantise(self.weight, self.scale, input.dtype), self.bias)
        rows = input.reshape(-1, self.in_features)
        out = rows.new_empty(len(rows), self.out_features)
        multiply = _multiply_int8 if self.weight.dtype == torch.int8 else _multiply_fp8
        # A part at a time, so that what lies between the factors and the result stays small and in the cache.
        for part, result in zip(torch.split(rows, PRODUCT_ROWS), torch.split(out, PRODUCT_ROWS), strict=True):
            multiply(*kernels.quantise(_aligned(part), self.weight.dtype), self, result)
        return out.view(*input.shape[:-1], self.out_features)


def quantise_linears(module: nn.Module, kind: Quantisation) -> None:
    """Replaces every linear layer within the module by a quantised one."""
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, QuantisedLinear(layer, kind))


def check_device(kind: Quantisation, device: torch.device) -> None:
    """Raises ModelError if the device does not multiply in this type. Asks the device itself, with a small product."""
    try:
        # By torch alone: Triton raises other errors where a GPU has no fp8.
        with reference():
            _try_product(kind, device)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"+{kind} needs a GPU that multiplies in {NEEDED[kind]}, and {device} does not: {reason} {INSTEAD[kind]}"
        ) from error


@torch.inference_mode()
def _try_product(kind: Quantisation, device: torch.device, size: int = 256) -> None:
    dense: nn.Linear = nn.utils.skip_init(nn.Linear, size, size, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    QuantisedLinear(dense, kind).to(device)(torch.ones(size, size, dtype=torch.bfloat16, device=device)).sum().item()


def _multiply_int8(values: Tensor, scale: Tensor, layer: QuantisedLinear, out: Tensor) -> None:
    sums = _integer_product(values, layer.weight)[: len(out)]
    kernels_for(out.device).scale_sums(sums, scale[: len(out)], layer.scale, layer.bias, out)


def _integer_product(values: Tensor, weight: Tensor) -> Tensor:
    """Multiplies (M, K) by (N, K) -> (M, N)."""
    if values.device.type == "mps":  # has no product of integers; in fp32 large sums are rounded
        return values.float() @ weight.float().T
    return torch._int_mm(values, weight.T)


def _multiply_fp8(values: Tensor, scale: Tensor, layer: QuantisedLinear, out: Tensor) -> None:
    product = functional.scaled_mm(
        values,
        layer.weight.T,
        scale_a=scale,
        scale_recipe_a=ScalingType.RowWise,
        scale_b=layer.scale[None],
        scale_recipe_b=ScalingType.RowWise,
        bias=layer.bias,
        output_dtype=out.dtype,
    )
    out.copy_(product[: len(out)])


def _aligned(rows: Tensor) -> Tensor:
    """Adds rows of zeros, of which nothing remains in the result, where a GPU needs them."""
    missing = -len(rows) % ALIGNED_ROWS if rows.device.type == "cuda" else 0
    return functional.pad(rows, (0, 0, 0, missing)) if missing else rows
