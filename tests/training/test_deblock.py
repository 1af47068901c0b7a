"""The layers that smooth the edges between tokens, and the autoencoder as it ships with them."""

from copy import deepcopy
from random import Random

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo
from training.autoencoder import LATENTS, cells_of_frames, encode_cells, middle_frame, training_clip
from training.deblock import ERROR, Mix, sample_latents, solve_sharpening, solve_smoothing
from training.judge import edge_steps, signal_to_noise

import keyreel
from keyreel.engine.autoencoder import decode, encode
from keyreel.engine.models import Model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> Model:
    return keyreel.load_model("demo", "cpu")


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    """A drawn scene, (1, 3, 1, 256, 256) in [-1, 1]."""
    return training_clip(Random(5), 1)[None]  # noqa: S311


def test_a_mix_of_latents_can_be_written_for_latents_that_are_not_normalised() -> None:
    torch.manual_seed(0)
    mix = Mix(torch.randn(LATENTS, LATENTS, 3, 3), torch.randn(LATENTS))
    mean, std, latents = torch.randn(LATENTS), torch.rand(LATENTS) + 0.5, torch.randn(1, LATENTS, 4, 5)
    scaled = latents * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
    made = mix.denormalised(mean, std)(scaled, outside=torch.zeros(LATENTS))  # a convolution pads with zeros
    expected = mix(latents, -mean / std) * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
    torch.testing.assert_close(made, expected, atol=1e-2, rtol=1e-3)


def test_smoothing_takes_noise_away_and_sharpening_undoes_it(model: Model) -> None:
    clean = sample_latents(model.vae, seed=1, clips=40)
    outside = -model.vae.latents_mean.float() / model.vae.latents_std.float()
    smoothing = solve_smoothing(clean, outside, seed=0)
    sharpening = solve_sharpening(clean, outside, smoothing)
    every = torch.cat(clean)
    noisy = every + ERROR * torch.randn(every.shape, generator=torch.Generator().manual_seed(7))

    def error(made: torch.Tensor) -> float:
        return float((made - every).square().mean())

    assert error(smoothing(noisy, outside)) < 0.5 * error(noisy)
    assert error(smoothing(sharpening(every, outside), outside)) < 0.3 * error(smoothing(every, outside))


def decoded(vae: AutoencoderKLLTXVideo, latents: torch.Tensor) -> torch.Tensor:
    """Returns the first frame, (1, 3, H, W) in [0, 1]."""
    return (next(decode(vae, latents, 0.05)).float() / 2 + 0.5).clamp(0, 1)


@torch.inference_mode()
def test_shipped_decoder_smooths_what_the_transformer_draws(model: Model, picture: torch.Tensor) -> None:
    plain = deepcopy(model.vae)
    first = plain.decoder.conv_in.conv
    middle_frame(first)[:LATENTS, :LATENTS] = 0
    middle_frame(first)[:LATENTS, :LATENTS, 1, 1] = torch.eye(LATENTS)
    first.bias[:LATENTS] = 0
    latents = encode_cells(cells_of_frames(picture))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    drawn = latents + ERROR * plain.latents_std.view(1, -1, 1, 1, 1) * noise
    (before, _), (after, _) = (edge_steps(decoded(vae, drawn), 64) for vae in (plain, model.vae))
    assert after < 0.7 * before


@torch.inference_mode()
def test_shipped_autoencoder_keeps_pictures_sharp(model: Model, picture: torch.Tensor) -> None:
    original = picture[:, :, 0] / 2 + 0.5
    sharpened = signal_to_noise(decoded(model.vae, encode(model.vae, picture)), original)
    plain = signal_to_noise(decoded(model.vae, encode_cells(cells_of_frames(picture))), original)
    assert sharpened > plain + 0.5
