"""Optimisers (Muon for matrices, to be used with AdamW for the rest), learning rates, and an average of the weights."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalise(matrix: Tensor) -> Tensor:
    """Returns a matrix (out, in) with all singular values near one, by Muon's Newton-Schulz iteration."""
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(4):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.7750 * gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum: every direction of a weight matrix learns at the same rate."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, _closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group["lr"], group["momentum"])

    def _step_one(self, parameter: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
        state = self.state[parameter]
        buffer = state.setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(gradient, 1 - momentum)
        update = orthogonalise(gradient.lerp(buffer, momentum))
        shape = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
        parameter.mul_(1 - lr * 0.02).add_(update, alpha=-lr * shape)


class CombinedOptimiser:
    """Two optimisers that act as one."""

    def __init__(self, *optimisers: torch.optim.Optimizer) -> None:
        self.optimisers = optimisers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def zero_grad(self) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def step(self) -> None:
        for optimiser in self.optimisers:
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(i): optimiser.state_dict() for i, optimiser in enumerate(self.optimisers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for i, optimiser in enumerate(self.optimisers):
            optimiser.load_state_dict(state[str(i)])


def warm_cosine(optimiser: torch.optim.Optimizer | CombinedOptimiser, steps: int, warm: int) -> Callable[[int], None]:
    """Returns a function of the step that sets the learning rates: a linear start, then a cosine to a twentieth."""
    peaks = [group["lr"] for group in optimiser.param_groups]

    def set_rates(step: int) -> None:
        cosine = 0.525 + 0.475 * math.cos(math.pi * step / steps)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * min(1.0, (step + 1) / warm) * cosine

    return set_rates


class Hold:
    """Keeps some entries of a model's parameters unchanged. masks: true for entries to keep, by parameter name."""

    def __init__(self, model: nn.Module, masks: dict[str, Tensor]) -> None:
        self.kept = [(p, masks[name], p.detach().clone()) for name, p in model.named_parameters() if masks[name].any()]

    def before(self) -> None:
        """Zeroes the gradients of the kept entries, before gradients are clipped."""
        for parameter, mask, _ in self.kept:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(mask, 0.0)

    @torch.no_grad()
    def after(self) -> None:
        """Restores the kept entries after the optimiser's step."""
        for parameter, mask, value in self.kept:
            parameter.copy_(torch.where(mask, value, parameter))


class Average:
    """An exponential average of a model's parameters. The average is shipped."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.count += 1
        keep = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, parameter in model.named_parameters():
            self.values[name].lerp_(parameter, 1 - keep)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(self.values[name])

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.values = state["count"], state["values"]


def warm_stable(
    optimiser: torch.optim.Optimizer | CombinedOptimiser, steps: int, warm: int, cool: int
) -> Callable[[int], None]:
    """Returns a function of the step that sets the learning rates.

    They rise linearly, stay constant, and fall linearly to zero over the last `cool` steps.
    """
    peaks = [group["lr"] for group in optimiser.param_groups]

    def set_rates(step: int) -> None:
        share = min(1.0, (step + 1) / warm, (steps - step) / cool)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * share

    return set_rates
