"""Devices: which ones this machine has, their free memory, and modules that move to one temporarily."""

import logging
import os
import platform
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import chain
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from keyreel.engine.kernels import AMPERE, kernels_trait
from keyreel.errors import ModelError

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
HOPPER = (9, 0)
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "MPS backend out of memory",
    "CUDA error: out of memory",  # pinned memory, and what CUDA allocates itself, such as room for a kernel's code
    "Triton Error [CUDA]: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says when memory ran out that it does not allocate as a tensor on a GPU."""
NO_CODE = "no kernel image is available"
LOG = logging.getLogger(__name__)


def choose_device(name: str | None) -> torch.device:
    """Returns the named device, or the fastest. Raises ModelError when this machine has no such device."""
    available = device_names()
    if name and "," in name:
        raise ModelError(f"Only a worker can use several devices for one video: keyreel serve --device {name}.")
    wanted = available[0] if name is None else "cuda:0" if name == "cuda" else name
    if wanted not in available:
        raise ModelError(f"There is no device {name!r} here. This machine has {', '.join(available)}.")
    device = torch.device(wanted)
    check_code(device)
    return device


@cache
def check_code(device: torch.device) -> None:
    """Raises ModelError if the installed torch has no code for a GPU, which is too old or too new for it."""
    if device.type != "cuda":
        return
    try:
        _add(device)
    except RuntimeError as error:
        if NO_CODE not in str(error):
            raise
        gpu, (major, minor) = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        raise ModelError(
            f"torch {torch.__version__} has no code for {device}, {gpu} (compute capability {major}.{minor}). Install "
            "a torch that has (https://pytorch.org/get-started/locally/), or choose --device cpu."
        ) from error


def _add(device: torch.device) -> None:
    torch.ones(1, device=device).add_(1).cpu()


def choose_devices(names: str | None) -> tuple[torch.device, ...]:
    """Returns the named devices, comma-separated, or the fastest one. Raises ModelError if they cannot work together.

    The CPU may be named several times, to try out what several devices do.
    """
    chosen = tuple(choose_device(name.strip()) for name in names.split(",")) if names else (choose_device(None),)
    if len({device.type for device in chosen}) > 1:
        raise ModelError(f"The devices of one worker must be of one kind, but {names!r} names different kinds.")
    if chosen[0].type != "cpu" and len(set(chosen)) < len(chosen):
        raise ModelError(f"{names!r} names a device twice. Each device of a worker needs to be another one.")
    return chosen


def make_current(device: torch.device) -> None:
    """Makes a GPU the one that this process uses by default. Otherwise pinning memory takes some of the first GPU's.

    Its convolutions then sum in one order only, because equal requests give equal bytes.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True


def device_names() -> list[str]:
    """Returns the devices of this machine, the fastest first."""
    # Asked first, because torch counts GPUs also under a driver that is too old for it. It then warns and says why.
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda = [f"cuda:{index}" for index in range(count)]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def choose_dtype(device: torch.device) -> torch.dtype:
    """Returns bf16 where the device computes in it, else fp32.

    The model was trained in bf16, which takes half the memory. But CPUs without AMX take three times as long in bf16 as
    in fp32, and GPUs before Ampere only emulate it.
    """
    if device.type == "mps":
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE:
        return torch.bfloat16
    return torch.float32


def attention_backends(device: torch.device, *, biased: bool = False) -> list[SDPBackend]:
    """Returns the implementations of attention in order of preference. torch takes the first that can do a call.

    Left to itself, torch may choose FlashAttention 2 on a GPU of the Hopper generation or later, where cuDNN's takes
    about half the time. biased: the scores get a bias, which cuDNN adds on few GPUs.
    """
    plain = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if device.type != "cuda" or biased or torch.cuda.get_device_capability(device) < HOPPER:
        return plain
    return [SDPBackend.CUDNN_ATTENTION, *plain] if _has_cudnn_attention(device) else plain


@cache
def _has_cudnn_attention(device: torch.device) -> bool:
    """Asks cuDNN itself, with a small call: torch offers it also on a GPU that it does not know yet, and then fails."""
    ones = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16, device=device)
    try:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return torch.allclose(functional.scaled_dot_product_attention(ones, ones, ones), ones, atol=0.01)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return False


def traits(device: torch.device, dtype: torch.dtype, ranks: int = 1) -> dict[str, str]:
    """Returns what the bytes of a video depend on beside model and job. Where all are equal, so are the bytes."""
    return {
        "device": _model_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "kernels": kernels_trait(device),
        "torch": str(torch.__version__),
        "ranks": str(ranks),
    }


def memory(device: torch.device) -> tuple[int, int]:
    """Returns (free, total) bytes. Memory that this process has reserved but does not use counts as free."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.current_allocated_memory(), total
    return main_memory()


def main_memory() -> tuple[int, int]:
    """Returns (free, total) bytes of main memory, within the limits of this process and its container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [(_available(total), total), *_container_limit(), *_process_limit()]
    return max(min(free for free, _ in limits), 0), min(total for _, total in limits)


def release(device: torch.device) -> None:
    """Frees the allocators' caches, whose blocks may be too small for the next allocations."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.accelerator.empty_host_cache()  # of pinned memory
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts a copy of the module's weights on `device` within the context. The originals stay where they are."""
    tensors = list(chain(module.parameters(), module.buffers()))
    originals = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device)
        yield
    finally:
        for tensor, data in zip(tensors, originals, strict=True):
            tensor.data = data


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor from main memory to a device, without waiting for what the device still has to do."""
    if device.type != "cuda":
        return tensor.to(device)
    # Only pinned memory is copied without waiting. torch reuses it no sooner than the copy is done.
    return pinned(tensor).to(device, non_blocking=True)


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Copies a tensor into pinned memory. Returns the tensor itself where there is no more of it."""
    return _unless_denied(tensor.pin_memory, lambda: tensor)


def pinned_bytes(count: int) -> torch.Tensor:
    """Returns room in pinned memory, or elsewhere in main memory where there is no more of it."""
    room = partial(torch.empty, count, dtype=torch.uint8)
    return _unless_denied(partial(room, pin_memory=True), room)


def _unless_denied(pin: Callable[[], torch.Tensor], otherwise: Callable[[], torch.Tensor]) -> torch.Tensor:
    try:
        return pin()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    _warn_of_pinning()
    return otherwise()


@cache
def _warn_of_pinning() -> None:
    LOG.warning(
        "The system gives no more pinned memory, so copies to the GPU take longer. Under WSL and in its containers,"
        " little memory can be pinned."
    )


def wait_for(device: torch.device) -> None:
    """Waits until the device has done everything that it was given so far. A CPU always has."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error is a failed allocation. A wrong answer costs a useless retry, or a retry that is not made."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # For the rest there is only the text.
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def _model_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"mps, {platform.machine()}"
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _available(total: int) -> int:
    """Returns the bytes that Linux can give without swapping. Other systems do not say: returns `total`."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return total
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), total)


def _container_limit() -> Iterator[tuple[int, int]]:
    """Yields (free, total) of the container's control group, if it has a limit. Page cache counts as free."""
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
    """Yields (free, total) under `ulimit -v`, if it is set."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int((PROC / "self" / "statm").read_text().split()[0])
    except OSError:
        return
    yield limit - pages * os.sysconf("SC_PAGE_SIZE"), limit
