"""Compares coding a few frames at a time with diffusers, which codes the whole video at once."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo
from torch.utils._python_dispatch import TorchDispatchMode

from keyreel.engine import autoencoder
from keyreel.engine.autoencoder import check_supported, decode, encode, lay_out
from keyreel.errors import ModelError
from tests.engine.test_single_file import VAE_097
from tests.tiny_checkpoints import tiny_vae

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(params=[32, 64], ids=["32x", "64x"])
def vae(request: pytest.FixtureRequest) -> Any:
    vae = tiny_vae(torch.Generator().manual_seed(1), request.param)
    lay_out(vae)
    return vae


@pytest.fixture
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(params=[1, 2**14, 2**24], ids=["one frame", "some frames", "many frames"])
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits how many frames a convolution takes at once."""
    monkeypatch.setattr(autoencoder, "CPU_BATCH", request.param)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within the context, counts operations that compute or copy. Each is a kernel that a GPU has to start."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += not (func.is_view or "empty" in func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("frames", [1, 9, pytest.param(25, marks=pytest.mark.slow)])
def test_encoding_equals_diffusers_encoding(vae: Any, frames: int) -> None:
    video = torch.rand(1, 3, frames, 64, 128, generator=torch.Generator().manual_seed(2)) * 2 - 1
    whole = vae.encode(video).latent_dist.mode()
    assert whole.std() > 0.1
    torch.testing.assert_close(encode(vae, video), whole, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("batch")
@pytest.mark.parametrize("timestep", [0.0, 0.05])
@pytest.mark.parametrize("frames", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_decoding_equals_diffusers_decoding(vae: Any, frames: int, timestep: float) -> None:
    latents = torch.randn(1, 16, frames, 2, 3, generator=torch.Generator().manual_seed(3))
    whole = vae.decode(latents, torch.tensor([timestep])).sample
    assert whole.std() > 0.1
    ours = torch.stack(list(decode(vae, latents, timestep)), dim=2)
    torch.testing.assert_close(ours, whole, rtol=0, atol=2e-5)


def test_videos_are_decoded_together(vae: Any) -> None:
    """Previews are."""
    latents = torch.randn(3, 16, 2, 2, 3, generator=torch.Generator().manual_seed(3))
    together = torch.stack(list(decode(vae, latents, 0.05)), dim=2)
    each = [torch.stack(list(decode(vae, one[None], 0.05)), dim=2) for one in latents]
    torch.testing.assert_close(together, torch.cat(each), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_decoding_starts_few_kernels() -> None:
    """A kernel on the memory of a single frame takes a GPU less time than it takes to start.

    Frame by frame it were 26,230, and diffusers, whose memory grows with the length, starts 761.
    """
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo.from_config(VAE_097).to(torch.bfloat16).eval().requires_grad_(False)
        latents = torch.empty(1, 128, 12, 15, 26, dtype=torch.bfloat16)
    frames = decode(vae, latents, 0.05)
    with Operations() as operations:  # type: ignore[no-untyped-call]
        next(frames)
        first = operations.count
        assert sum(1 for _ in frames) == 89 - 1
    assert operations.count < 3500
    assert first < operations.count / 2, "the first frame came after later ones were computed"


def test_weights_are_laid_out_once() -> None:
    vae = tiny_vae(torch.Generator().manual_seed(1), 32)
    before = {key: weight.clone() for key, weight in vae.state_dict().items()}
    lay_out(vae)
    assert all(torch.equal(before[key], weight) for key, weight in vae.state_dict().items())
    weight = vae.decoder.conv_in.conv.weight
    flattened = weight.transpose(1, 2).flatten(1, 2)
    assert flattened.data_ptr() == weight.data_ptr()
    assert flattened.is_contiguous(memory_format=torch.channels_last)


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
