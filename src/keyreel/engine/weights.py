"""Weights from files into modules.

They stay where they are: files are mapped into memory, not read. What a module computes with is copied out of them
later, by `keyreel.engine.placement`.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from keyreel.errors import ModelError


def mapped(paths: Iterable[Path]) -> dict[str, torch.Tensor]:
    """All tensors of safetensors files, on the CPU, in the files' own types."""
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            weights |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (a file is no mapping)
    return weights


def fill(module: nn.Module, weights: Mapping[str, torch.Tensor], source: Path) -> None:
    """Gives a module without weights (on the meta device) these ones, in evaluation mode and without gradients.

    Raises ModelError, naming what is missing, unknown or of another shape.
    """
    expected = module.state_dict()
    name = type(module).__name__
    if missing := expected.keys() - weights.keys():
        raise ModelError(f"{source} lacks weights of {name}: {some(missing)}.")
    if unknown := weights.keys() - expected.keys():
        raise ModelError(f"{source} holds weights that {name} does not have: {some(unknown)}.")
    if wrong := {key for key in expected if expected[key].shape != weights[key].shape}:
        raise ModelError(f"{source} holds weights of other shapes than its configuration says: {some(wrong)}.")
    module.load_state_dict(weights, assign=True)
    if any(tensor.is_meta for tensor in chain(module.parameters(), module.buffers())):
        raise ModelError(f"{name} has weights that no file holds: this version of its library is not supported.")
    module.eval().requires_grad_(False)


def some(keys: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    names = sorted(keys)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
