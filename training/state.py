"""Checkpoints, which are written completely or not at all, and a clock that prints progress."""

import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save_state(path: Path, parts: dict[str, Any], step: int) -> None:
    """Writes the state of all parts, and the step to resume with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()} | {"step": step}
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(path)


def load_state(path: Path, parts: dict[str, Any]) -> int:
    """Restores all parts from a checkpoint. Returns the step to resume with, 0 if there is no checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


class Clock:
    """Prints the mean losses and the time every `every` steps, and after the last one."""

    def __init__(self, name: str, steps: int, every: int = 50) -> None:
        self.name, self.steps, self.every = name, steps, every
        self.losses: list[list[float]] = []
        self.start, self.cpu = time.monotonic(), time.process_time()

    def tick(self, step: int, *losses: Tensor) -> None:
        self.losses.append([loss.item() for loss in losses])
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        mean = " ".join(f"{sum(values) / len(values):.4f}" for values in zip(*self.losses, strict=True))
        wall, cpu = time.monotonic() - self.start, time.process_time() - self.cpu
        print(f"{self.name} {step + 1}/{self.steps} loss {mean} {wall:.0f} s ({cpu:.0f} CPU-s)", flush=True)
        self.losses.clear()
