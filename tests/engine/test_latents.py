"""Compares each formula with a plain restatement of it in NumPy and fp64."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from keyreel.engine import latents
from keyreel.video.canvas import Grid


def assert_same(ours: torch.Tensor, plain: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(ours.numpy(), plain, rtol=1e-5, atol=1e-6)


def test_the_first_latent_frame_covers_one_frame() -> None:
    frames = latents.coordinates((3, 1, 2), Grid(32, 8), start=5)
    assert frames.tolist() == [[5, 5, 6, 6, 14, 14], [0] * 6, [0, 32] * 3]


@pytest.mark.parametrize("amount", [0.0, 0.6, 1.0])
def test_tone_mapping_follows_its_formula(amount: float) -> None:
    z = torch.linspace(-6, 6, 25)
    x, strength = z.double().numpy(), 0.75 * amount
    plain = x * (1 - 0.8 * strength / (1 + np.exp(-4 * strength * (np.abs(x) - 1))))
    assert_same(latents.tone_mapped(z, amount), plain)


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0])
def test_matching_follows_adains_formula(amount: float) -> None:
    generator = torch.Generator().manual_seed(1)
    z, reference = (torch.randn(1, 3, 2, size, size, generator=generator) for size in (6, 3))
    reference = 2 * reference + 1
    plain = []
    for x, r in zip(z[0].double().numpy(), reference[0].double().numpy(), strict=True):
        plain.append(x + amount * ((x - x.mean()) / x.std(ddof=1) * r.std(ddof=1) + r.mean() - x))
    assert_same(latents.matched(z, reference, amount), np.stack(plain)[None])
