"""Compares the estimates of memory plans with the memory that the engine's operations take at full size.

The estimates are in `keyreel.checkpoints.memory`. No weights are needed: everything is on the meta device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import distributed, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from keyreel.checkpoints import memory as plans
from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.engine.autoencoder import decode, encode, lay_out
from keyreel.engine.quantised import QuantisedLinear
from keyreel.engine.ranks import ALONE, MOST_FORWARDS, Group
from keyreel.engine.transformer import Forward, Levels, velocities
from tests.engine.live_memory import LiveMemory
from tests.engine.test_single_file import TRANSFORMER_13B, VAE_097

WIDTH, HEIGHT = 832, 480
DETAIL = 8
BATCHES = plans.AUTOENCODER_BATCHES * plans.AUTOENCODER_BATCH


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.device("meta"):
        vae = AutoencoderKLLTXVideo.from_config(VAE_097).to(torch.bfloat16).eval().requires_grad_(False)
    lay_out(vae)
    return vae


@contextmanager
def first_of(ranks: int) -> Iterator[Group]:
    """Yields rank 0 of a group whose exchanges take memory but send nothing."""
    if ranks == 1:
        yield ALONE
        return
    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield Group(0, ranks)
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("forwards", [1, MOST_FORWARDS])
@pytest.mark.parametrize("ranks", [1, 2, 8])
@torch.inference_mode()
def test_the_estimate_for_a_prediction_is_an_upper_bound(dtype: torch.dtype, forwards: int, ranks: int) -> None:
    whole, layers = 4680, 2
    tokens = whole // ranks  # of this rank
    with torch.device("meta"):
        transformer = LTXVideoTransformer3DModel.from_config(TRANSFORMER_13B | {"num_layers": layers}).to(dtype)
        width = transformer.proj_in.out_features
        latents = torch.empty(1, whole, 128, dtype=dtype)
        levels = Levels(torch.empty(2), torch.empty(whole, dtype=torch.long))
        table = torch.empty(1, tokens, width // 2, dtype=torch.complex64)
        texts = [torch.empty(1, 256, width, dtype=dtype) for _ in range(forwards)]
        prompts = [Forward([(text, text)] * layers) for text in texts]
        with first_of(ranks) as group, LiveMemory([*transformer.parameters(), latents, table, *texts]) as live:
            velocities(transformer, latents, levels, table, prompts, group.split(whole))
    estimate = tokens * width * plans.TOKEN_VALUES * dtype.itemsize
    assert live.peak <= estimate
    if forwards == MOST_FORWARDS and ranks > 1:  # the most expensive case
        assert live.peak > 0.9 * estimate


@pytest.mark.parametrize("kind", ["int8", "fp8"])
@torch.inference_mode()
def test_the_estimate_for_quantised_products_is_an_upper_bound(kind: Quantisation) -> None:
    """Of the largest layers: those of the feed-forward, four times as wide as the model on one side."""
    width = 4096
    converted = 4 * width**2 * (4 + 2)
    estimates = {(width, 4 * width): plans.PRODUCT_ROWS * width * plans.PRODUCT_BYTES, (4 * width, width): converted}
    for (inner, outer), estimate in estimates.items():
        with torch.device("meta"):
            layer = QuantisedLinear(nn.Linear(inner, outer, dtype=torch.bfloat16), kind)
            tokens = torch.empty(4680, inner, dtype=torch.bfloat16)
            with LiveMemory([*layer.parameters(), tokens]) as live:
                out = layer(tokens)
        assert 0.2 * estimate < live.peak - out.nbytes <= estimate


@pytest.mark.slow
@pytest.mark.parametrize("frames", [89, 161])
@torch.inference_mode()
def test_the_estimate_for_decoding_is_an_upper_bound(vae: Any, frames: int) -> None:
    latents = torch.empty(1, 128, (frames - 1) // 8 + 1, HEIGHT // 32, WIDTH // 32, dtype=torch.bfloat16, device="meta")
    with LiveMemory([*vae.parameters(), *vae.buffers(), latents]) as live:
        assert sum(1 for _ in decode(vae, latents, 0.05)) == frames
    estimate = WIDTH * HEIGHT * DETAIL * plans.DECODER_FRAMES * 2 + BATCHES
    assert 0.75 * estimate < live.peak <= estimate


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 89])
@torch.inference_mode()
def test_the_estimate_for_encoding_is_an_upper_bound(vae: Any, frames: int) -> None:
    clip = torch.empty(1, 3, frames, HEIGHT, WIDTH, dtype=torch.bfloat16, device="meta")
    with LiveMemory([*vae.parameters(), *vae.buffers(), clip]) as live:
        encode(vae, clip)
    estimate = WIDTH * HEIGHT * DETAIL * plans.ENCODER_FRAMES * 2 + BATCHES
    assert 0.5 * estimate < live.peak <= estimate
