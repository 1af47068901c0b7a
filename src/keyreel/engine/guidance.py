"""Guidance: combines the predictions of a step into one (pure functions).

All tensors are velocities (1, N, C) in fp32. The order is that of Lightricks' `pipeline_ltx_video.py`.
"""

import torch

from keyreel.video.recipes import Guidance

EPSILON = 1e-8


def guided(
    positive: torch.Tensor,
    negative: torch.Tensor | None,
    perturbed: torch.Tensor | None,
    guidance: Guidance,
    *,
    cfg_star: bool,
) -> torch.Tensor:
    """Returns the guided prediction of a step. `negative` and `perturbed` are None if `guidance` does not use them."""
    velocity = positive
    if negative is not None:
        velocity = classifier_free(fitted(negative, positive) if cfg_star else negative, positive, guidance.scale)
    if perturbed is not None:
        velocity = velocity + guidance.stg * (positive - perturbed)
    return rescaled(velocity, positive, guidance.rescale) if guidance.rescale else velocity


def classifier_free(negative: torch.Tensor, positive: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): negative + scale * (positive - negative)."""
    return torch.lerp(negative, positive, scale)


def fitted(negative: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """CFG-Zero* (arXiv 2503.18886): scales the negative prediction to the multiple nearest to the positive one."""
    factor = (positive * negative).sum() / (negative.square().sum() + EPSILON)
    return factor * negative


def rescaled(velocity: torch.Tensor, positive: torch.Tensor, amount: float) -> torch.Tensor:
    """Guidance rescale (arXiv 2305.08891, section 3.4): restores the positive's standard deviation by `amount`."""
    factor = positive.std() / velocity.std()
    return velocity * (amount * factor + (1 - amount))
