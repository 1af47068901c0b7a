"""How several predictions of one step become one (plain functions)."""

import torch


def classifier_free(negative: torch.Tensor, positive: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): away from the negative prompt, by `scale` times the difference."""
    return torch.lerp(negative, positive, scale)
