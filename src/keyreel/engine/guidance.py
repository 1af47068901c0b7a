"""How several predictions of one step become one (plain functions).

All tensors are velocities (1, N, C) in fp32. Lightricks' `pipeline_ltx_video.py` applies them in this order.
"""

import torch

from keyreel.recipes import Guidance

EPSILON = 1e-8


def guided(
    positive: torch.Tensor,
    negative: torch.Tensor | None,
    perturbed: torch.Tensor | None,
    guidance: Guidance,
    *,
    cfg_star: bool,
) -> torch.Tensor:
    """The prediction of a step. `negative` and `perturbed` are None where `guidance` has no use for them."""
    velocity = positive
    if negative is not None:
        velocity = classifier_free(fitted(negative, positive) if cfg_star else negative, positive, guidance.scale)
    if perturbed is not None:
        velocity = velocity + guidance.stg * (positive - perturbed)
    return rescaled(velocity, positive, guidance.rescale) if guidance.rescale else velocity


def classifier_free(negative: torch.Tensor, positive: torch.Tensor, scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): away from the negative prompt, by `scale` times the difference."""
    return torch.lerp(negative, positive, scale)


def fitted(negative: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """CFG* (CFG-Zero*, arXiv 2503.18886): the multiple of the negative prediction that is nearest to the positive."""
    share = (positive * negative).sum() / (negative.square().sum() + EPSILON)
    return share * negative


def rescaled(velocity: torch.Tensor, positive: torch.Tensor, amount: float) -> torch.Tensor:
    """Takes back, in part, the standard deviation that guidance has added (arXiv 2305.08891, section 3.4)."""
    factor = positive.std() / velocity.std()
    return velocity * (amount * factor + (1 - amount))
