"""Times work on a device."""

import statistics
import time
from collections.abc import Callable

import torch

BATCHES = 5
TOO_LARGE = "does not fit beside the weights"


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what was queued. A CPU queues nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def seconds(work: Callable[[], object], device: torch.device, span: float) -> float:
    """Returns the median seconds of `work` over some batches that take about `span` seconds each. Warms up first."""
    work()
    once = elapsed(work, device)
    count = max(1, round(span / max(once, 1e-6)))
    batches = BATCHES if once < span else 2
    return statistics.median(elapsed(work, device, count) / count for _ in range(batches))


def elapsed(work: Callable[[], object], device: torch.device, count: int = 1) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        work()
    synchronize(device)
    return time.perf_counter() - start


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int:
    """Returns the most bytes that tensors took on a GPU since `reset_peak`. A CPU does not count them: 0."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
