"""Devices: which there are, what they have room for, and modules that visit them."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from keyreel.errors import ModelError

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


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
    """(free, total) bytes, as seen by this process: what it has reserved and does not use counts as free."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.current_allocated_memory(), total
    return main_memory()


def main_memory() -> tuple[int, int]:
    """(free, total) bytes of main memory, within the limits of this process and its container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [(_available(total), total), *_container_limit(), *_process_limit()]
    return max(min(free for free, _ in limits), 0), min(total for _, total in limits)


def release(device: torch.device) -> None:
    """Gives back what the allocator keeps for later: pieces too small for what is wanted now."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. A wrong answer costs one attempt in vain, or one that was not made."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # For CPU and MPS there is no class of its own, only the text.
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("DefaultCPUAllocator", "MPS backend out of memory")
    )


def _available(total: int) -> int:
    """What Linux says can be had without swapping; elsewhere unknown, and taken for all."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return total
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), total)


def _container_limit() -> Iterator[tuple[int, int]]:
    """(free, total) of the control group that a container is in. Its page cache counts as free."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return
    if limit != "max":
        cache = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
        yield int(limit) - used + cache, int(limit)


def _process_limit() -> Iterator[tuple[int, int]]:
    """(free, total) under `ulimit -v`."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int((PROC / "self" / "statm").read_text().split()[0])
    except OSError:
        return
    yield limit - pages * os.sysconf("SC_PAGE_SIZE"), limit
