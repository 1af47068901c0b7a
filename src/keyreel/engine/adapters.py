"""LoRAs as low-rank branches beside the model's weights.

The weights themselves never change: merging a LoRA and undoing it in bf16 would leave rounding errors, and a video must
not depend on the LoRAs of earlier requests.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from keyreel.checkpoints.lora_keys import LowRank, check_lora, first_names
from keyreel.errors import Loc, RequestError


@dataclass(frozen=True, slots=True)
class Branch:
    """The update of one linear layer: gain * b @ a. a: (rank, in), b: (out, rank), as in the file."""

    a: Tensor
    b: Tensor
    gain: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA that fits a model. scale: its strength in the request, a factor on each branch's gain."""

    name: str
    branches: Mapping[str, Branch]
    scale: float


def linear_shapes(transformer: LTXVideoTransformer3DModel) -> dict[str, tuple[int, int]]:
    """Returns the (out, in) features of each linear layer by module path, as `check_lora` needs them."""
    return {
        path: (module.out_features, module.in_features)
        for path, module in transformer.named_modules()
        if isinstance(module, nn.Linear)
    }


def read_adapter(path: Path, transformer: LTXVideoTransformer3DModel, scale: float, loc: Loc, name: str) -> Adapter:
    """Reads a LoRA into main memory. Raises RequestError unless all of it fits the transformer.

    loc: the LoRA's place in the request, for example `("loras", 0, "path")`. name: what messages call the file.
    """
    layers = check_lora(path, linear_shapes(transformer), loc=loc, name=name)
    tensors = load_file(path)
    branches = {module: _branch(layer, tensors) for module, layer in layers.items()}
    broken = [module for module, branch in branches.items() if not _is_finite(branch)]
    if broken:
        message = f"{name} holds infinities or NaNs (layers: {first_names(broken)}): its training went wrong."
        raise RequestError.at(loc, message, "lora_load_error")
    return Adapter(name, branches, scale)


@contextmanager
def attached(transformer: LTXVideoTransformer3DModel, adapters: Sequence[Adapter]) -> Iterator[None]:
    """Adds the adapters to the linear layers within the context, and removes them afterwards.

    Acts where layers are called (`layer(x)`), not where their weights are read.
    """
    # Asked once: the model looks at all its weights to answer.
    device, dtype = transformer.device, transformer.dtype
    with ExitStack() as hooks:
        for path, branches in _by_module(adapters).items():
            module = transformer.get_submodule(path)
            # The layer's own weight may be on another device and of another type until its block computes.
            hook = _branch_hook(*_stack(branches, device, dtype))
            hooks.enter_context(module.register_forward_hook(hook))
        yield


def _branch(layer: LowRank, tensors: Mapping[str, Tensor]) -> Branch:
    gain = layer.gain if layer.alpha is None else float(tensors[layer.alpha]) / layer.rank
    return Branch(tensors[layer.a], tensors[layer.b], gain)


def _is_finite(branch: Branch) -> bool:
    numbers = (branch.a.float(), branch.b.float(), torch.tensor(branch.gain))
    return all(bool(torch.isfinite(number).all()) for number in numbers)


def _by_module(adapters: Sequence[Adapter]) -> dict[str, list[tuple[Branch, float]]]:
    """Returns the branches of each module, each with its factor."""
    modules = defaultdict(list)
    for adapter in adapters:
        if adapter.scale == 0:
            continue
        for path, branch in adapter.branches.items():
            modules[path].append((branch, adapter.scale * branch.gain))
    return modules


def _stack(branches: Sequence[tuple[Branch, float]], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Combines branches into one A (sum of ranks, in) and one B (out, sum of ranks), which includes the factors."""
    a = torch.cat([_moved(branch.a, device).to(dtype) for branch, _ in branches])
    # Scaled in fp32: rounding the factor itself would bias all weights in the same direction.
    b = torch.cat([(_moved(branch.b, device).float() * factor).to(dtype) for branch, factor in branches], dim=1)
    return a, b


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Moves the stored bytes, before they are converted: on the device that is faster, and pinned memory need not be
    waited for.
    """
    return tensor.to(device, non_blocking=tensor.is_pinned())


def _branch_hook(a: Tensor, b: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    def add(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        # In place is safe: the layer has just made the output and nothing else refers to it. The sum within the product
        # saves a pass over the output and, in bf16, a rounding.
        narrow = functional.linear(inputs[0], a)
        output.view(-1, len(b)).addmm_(narrow.view(-1, len(a)), b.T)
        return output

    return add
