"""Compares coding in windows with diffusers, which codes the whole video at once."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from keyreel.engine.autoencoder import check_supported, decode, encode
from keyreel.errors import ModelError
from tests.tiny_checkpoints import tiny_vae

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(params=[32, 64], ids=["32x", "64x"])
def vae(request: pytest.FixtureRequest) -> Any:
    return tiny_vae(torch.Generator().manual_seed(1), request.param)


@pytest.fixture
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("frames", [1, 9, pytest.param(25, marks=pytest.mark.slow)])
def test_encoding_equals_diffusers_encoding(vae: Any, frames: int) -> None:
    video = torch.rand(1, 3, frames, 64, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    whole = vae.encode(video).latent_dist.mode()
    assert whole.std() > 0.1
    torch.testing.assert_close(encode(vae, video), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("timestep", [0.0, 0.05])
@pytest.mark.parametrize("frames", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_decoding_equals_diffusers_decoding(vae: Any, frames: int, timestep: float) -> None:
    latents = torch.randn(1, 16, frames, 2, 3, generator=torch.Generator().manual_seed(3))
    whole = vae.decode(latents, torch.tensor([timestep])).sample
    assert whole.std() > 0.1
    ours = torch.stack(list(decode(vae, latents, timestep)), dim=2)
    torch.testing.assert_close(ours, whole, rtol=0, atol=2e-5)


def test_a_frame_depends_on_a_window_of_latents_only(vae: Any) -> None:
    """This makes the memory independent of the length."""
    latents = torch.randn(1, 16, 60, 2, 2, generator=torch.Generator().manual_seed(4))
    changed = latents.clone()
    changed[:, :, 40:] = 7.0
    first = next(iter(decode(vae, latents, 0.05)))
    assert torch.equal(first, next(iter(decode(vae, changed, 0.05))))


def test_older_autoencoders_are_refused(vae: Any) -> None:
    vae.encoder.down_blocks[0].downsamplers = None
    with pytest.raises(ModelError, match="older layout"):
        check_supported(vae)
