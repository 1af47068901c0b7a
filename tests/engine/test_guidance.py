"""Compares each formula with a plain restatement of it in NumPy and fp64."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from keyreel.engine.guidance import classifier_free, fitted, guided, rescaled
from keyreel.video.recipes import Guidance

Array = NDArray[np.float64]

POSITIVE, NEGATIVE, PERTURBED = torch.randn(3, 1, 7, 5, generator=torch.Generator().manual_seed(3)).unbind(0)
P, N, S = (value.double().numpy() for value in (POSITIVE, NEGATIVE, PERTURBED))


def assert_same(ours: torch.Tensor, plain: Array) -> None:
    np.testing.assert_allclose(ours.numpy(), plain, rtol=1e-5, atol=1e-6)


def test_classifier_free_guidance_follows_its_formula() -> None:
    assert_same(classifier_free(NEGATIVE, POSITIVE, 3.0), N + 3.0 * (P - N))


def test_fitted_returns_the_nearest_multiple() -> None:
    ours = fitted(NEGATIVE, POSITIVE)
    assert_same(ours, N * np.sum(P * N) / np.sum(N * N))
    rest = (P - ours.numpy()).flatten()
    assert rest @ N.flatten() == pytest.approx(0, abs=1e-4)
    assert torch.equal(fitted(torch.zeros_like(NEGATIVE), POSITIVE), torch.zeros_like(NEGATIVE))


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0])
def test_rescaling_follows_its_formula(amount: float) -> None:
    factor = P.std(ddof=1) / (4 * P + N).std(ddof=1)
    assert_same(rescaled(4 * POSITIVE + NEGATIVE, POSITIVE, amount), (4 * P + N) * (amount * factor + 1 - amount))


@pytest.mark.parametrize("cfg_star", [False, True])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
@pytest.mark.parametrize("stg", [0.0, 2.0])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_formulas_are_combined_as_by_lightricks(scale: float, stg: float, rescale: float, cfg_star: bool) -> None:
    """In ltx_video's `pipeline_ltx_video.py`."""
    plain = P.copy()
    if scale > 1:
        negative = N * np.sum(P * N) / np.sum(N * N) if cfg_star else N
        plain = negative + scale * (P - negative)
    plain = plain + stg * (P - S)
    plain = plain * (rescale * P.std(ddof=1) / plain.std(ddof=1) + 1 - rescale)
    ours = guided(
        POSITIVE,
        NEGATIVE if scale > 1 else None,
        PERTURBED if stg else None,
        Guidance(scale, stg, rescale, (0,)),
        cfg_star=cfg_star,
    )
    assert_same(ours, plain)


def test_without_guidance_the_prediction_is_returned_unchanged() -> None:
    assert guided(POSITIVE, None, None, Guidance(), cfg_star=True) is POSITIVE
