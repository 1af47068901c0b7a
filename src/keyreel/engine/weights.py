"""Gives modules the weights of files.

The files are mapped into memory, not read. `keyreel.engine.placement` later copies the weights to the device.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from keyreel.errors import ModelError


def mapped(paths: Iterable[Path]) -> dict[str, torch.Tensor]:
    """Maps all tensors of safetensors files into memory, on the CPU and in the files' types."""
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            weights |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    return weights


def fill(module: nn.Module, weights: Mapping[str, torch.Tensor], source: Path) -> None:
    """Gives weights to a module that has none (on the meta device). Sets evaluation mode, without gradients.

    Raises ModelError, which names the weights that are missing, unknown or of another shape.
    """
    expected = module.state_dict()
    name = type(module).__name__
    if missing := expected.keys() - weights.keys():
        raise ModelError(f"{source} lacks weights of {name}: {first_keys(missing)}.")
    if unknown := weights.keys() - expected.keys():
        raise ModelError(f"{source} holds weights that {name} does not have: {first_keys(unknown)}.")
    if misshapen := {key for key in expected if expected[key].shape != weights[key].shape}:
        raise ModelError(
            f"{source} holds weights of other shapes than its configuration says: {first_keys(misshapen)}."
        )
    module.load_state_dict(weights, assign=True)
    if any(tensor.is_meta for tensor in chain(module.parameters(), module.buffers())):
        raise ModelError(f"{name} has weights that no file provides: this version of its library is not supported.")
    module.eval().requires_grad_(False)


def first_keys(keys: Iterable[str]) -> str:
    """Returns the first few names, and how many more there are."""
    names = sorted(keys)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
