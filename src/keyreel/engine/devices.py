"""Devices: which there are, what they have room for, and modules that visit them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn

from keyreel.errors import ModelError


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the fastest. Raises ModelError when this machine has no such device."""
    available = device_names()
    if name is None:
        return torch.device(available[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        raise ModelError(f"There is no device {name!r} here. This machine has {', '.join(available)}.")
    return torch.device(wanted)


def device_names() -> list[str]:
    """Devices of this machine, the fastest first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def choose_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device computes in it: half the memory, and what the model was trained in.

    CPUs without AMX take three times as long in bf16 as in fp32, and GPUs before Ampere only emulate it.
    """
    if device.type == "mps":
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def memory(device: torch.device) -> tuple[int, int]:
    """(free, total) bytes. What a CPU has free is unknown: taken for all of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.driver_allocated_memory(), total
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return total, total


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """The module on `device` for a while. Its weights stay where they are: only the copy comes and goes."""
    tensors = list(chain(module.parameters(), module.buffers()))
    home = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device)
        yield
    finally:
        for tensor, data in zip(tensors, home, strict=True):
            tensor.data = data


def size_in_memory(module: nn.Module) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in chain(module.parameters(), module.buffers()))
