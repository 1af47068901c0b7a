from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from keyreel.engine import noise
from keyreel.engine.conditions import PinnedLatents, TokenSequence, initial_noise, token_sequence
from keyreel.engine.denoise import Denoiser, Pins
from keyreel.engine.models import Model
from keyreel.engine.schedule import linear_quadratic
from keyreel.engine.transformer import rotary, text_key_values
from keyreel.video.canvas import Grid
from keyreel.video.recipes import Guidance
from tests.engine.test_transformer import small_transformer

SHAPE = (3, 2, 3)


@pytest.fixture
def sequence() -> TokenSequence:
    pins = [
        PinnedLatents(noise.draw(1, "pin", 0, (1, 16, 1, 2, 3)), start=0, strength=1.0),
        PinnedLatents(noise.draw(1, "pin", 1, (1, 16, 1, 2, 3)), start=16, strength=0.6),
    ]
    return token_sequence(pins, initial_noise(SHAPE, 16, seed=4), Grid(32, 8), seed=4)


@pytest.fixture
def denoiser(model: Model, sequence: TokenSequence) -> Denoiser:
    with torch.inference_mode():
        positive, negative = text_key_values(
            model.transformer, [model.prompts.encode(text).embedding for text in ("a star", "")]
        )
        table = rotary(model.transformer, sequence.coordinates, 25)
    pins, guidance = Pins.of(sequence, model.device), (Guidance(3.0),) * 6
    return Denoiser(
        model.transformer, pins, lambda _: table, positive, negative, linear_quadratic(6), guidance, 0.15, seed=4
    )


@torch.inference_mode()
def test_a_resumed_loop_computes_the_same_numbers(denoiser: Denoiser, sequence: TokenSequence) -> None:
    whole = list(denoiser.steps(sequence.tokens))
    done, halfway, _ = whole[2]
    assert [step for step, *_ in whole] == [1, 2, 3, 4, 5, 6]
    *_, (_, resumed, _) = denoiser.steps(halfway.clone(), start=done)
    assert torch.equal(resumed, whole[-1][1])


@torch.inference_mode()
def test_pinned_tokens_change_according_to_their_strength(denoiser: Denoiser, sequence: TokenSequence) -> None:
    extra = sequence.extra
    hard, soft = slice(extra, extra + 6), slice(0, extra)
    for done, tokens, _ in denoiser.steps(sequence.tokens):
        level = denoiser.sigmas[done - 1]
        noise_added = (tokens[:, hard] - sequence.tokens[:, hard]).abs().mean().item()
        assert noise_added == pytest.approx(0.15 * level**2 * 0.8, abs=0.05)
        moved = not torch.equal(tokens[:, soft], sequence.tokens[:, soft])
        assert moved == any(sigma < 0.4 for sigma in denoiser.sigmas[:done])


@torch.inference_mode()
def test_a_stochastic_step_adds_fresh_noise(denoiser: Denoiser, sequence: TokenSequence) -> None:
    """As in LTX-Video's `rf.py`: the estimate of the clean latents, mixed with fresh noise up to the next level."""
    sigma, following = 1.0, denoiser.sigmas[1]
    still = replace(denoiser, condition_noise_scale=0.0)
    plain, clean = still.step(sequence.tokens, 0)
    velocity = (plain - sequence.tokens) / (following - sigma)
    fresh = noise.draw(4, "step", 0, tuple(sequence.tokens.shape))
    restated = (1 - following) * (sequence.tokens - sigma * velocity) + following * fresh
    free = sequence.pinned == 0
    stochastic, same = replace(still, stochastic=True).step(sequence.tokens, 0)
    assert torch.equal(clean, same)
    torch.testing.assert_close(stochastic[:, free], restated[:, free], rtol=0, atol=1e-4)
    assert torch.equal(stochastic[:, ~free], sequence.tokens[:, ~free])


@torch.inference_mode()
def test_the_last_stochastic_step_adds_no_noise(denoiser: Denoiser, sequence: TokenSequence) -> None:
    last = len(denoiser.sigmas) - 2
    stochastic = replace(denoiser, stochastic=True).step(sequence.tokens, last)
    torch.testing.assert_close(stochastic, denoiser.step(sequence.tokens, last), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_last_estimate_equals_the_result(denoiser: Denoiser, sequence: TokenSequence) -> None:
    *_, (_, tokens, clean) = denoiser.steps(sequence.tokens)
    free = sequence.pinned == 0
    torch.testing.assert_close(clean[:, free], tokens[:, free], rtol=0, atol=1e-5)


class Crossings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts in `copies` the tensors that are copied from one device to another within the context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {leaf.device for leaf in tree_leaves((args, result)) if isinstance(leaf, torch.Tensor)}
        self.copies += len(devices) > 1
        return result


@pytest.mark.parametrize(("condition_noise", "stochastic"), [(0.0, False), (0.15, False), (0.15, True)])
@torch.inference_mode()
def test_a_step_waits_once_for_the_device(
    sequence: TokenSequence, monkeypatch: pytest.MonkeyPatch, condition_noise: float, stochastic: bool
) -> None:
    """The meta device has no numbers: whatever reads some of them, and so would wait for a GPU, fails there.

    That is `item`, `cpu`, `nonzero` and indexing with a mask. Only noise is sent, which `sent` does without waiting.
    """
    meta = torch.device("meta")
    waits: list[torch.device] = []
    monkeypatch.setattr("keyreel.engine.denoise.wait_for", waits.append)
    transformer = small_transformer(layers=2).to(meta)
    width = transformer.proj_in.out_features
    text = torch.empty(1, 5, width, device=meta)
    table = torch.empty(1, sequence.tokens.shape[1], width // 2, dtype=torch.complex64, device=meta)
    denoiser = Denoiser(
        transformer,
        Pins.of(sequence, meta),
        lambda _: table,
        [(text, text)] * 2,
        [(text, text)] * 2,
        linear_quadratic(2),
        (Guidance(3.0, stg=1.0, rescale=0.7, blocks=(1,)),) * 2,
        condition_noise,
        seed=4,
        cfg_star=True,
        stochastic=stochastic,
    )
    tokens = sequence.tokens.to(meta)
    with Crossings() as crossings:
        assert sum(1 for _ in denoiser.steps(tokens)) == 2
    assert waits == [meta] * 2
    assert crossings.copies == 2 * ((condition_noise > 0) + stochastic)
