import pytest
import torch

from keyreel.canvas import Grid
from keyreel.engine import latents, noise
from keyreel.engine.conditions import PinnedLatents, TokenSequence, token_sequence
from keyreel.engine.denoise import Denoiser
from keyreel.engine.models import Model
from keyreel.engine.schedule import linear_quadratic
from keyreel.engine.transformer import Levels, rotary, text_key_values

SHAPE = (3, 2, 3)


@pytest.fixture
def sequence() -> TokenSequence:
    pins = [
        PinnedLatents(noise.draw(1, "pin", 0, (1, 16, 1, 2, 3)), start=0, strength=1.0),
        PinnedLatents(noise.draw(1, "pin", 1, (1, 16, 1, 2, 3)), start=16, strength=0.6),
    ]
    return token_sequence(pins, SHAPE, 16, Grid(32, 8), seed=4)


@pytest.fixture
def denoiser(model: Model, sequence: TokenSequence) -> Denoiser:
    with torch.inference_mode():
        texts = [text_key_values(model.transformer, model.prompts.encode(text).embedding) for text in ("a star", "")]
        table = rotary(model.transformer, sequence.coordinates, 25)
    return Denoiser(model.transformer, sequence, table, texts[0], texts[1], linear_quadratic(6), 3.0, 0.15, seed=4)


@torch.inference_mode()
def test_a_stopped_loop_goes_on_with_the_same_numbers(denoiser: Denoiser, sequence: TokenSequence) -> None:
    whole = list(denoiser.steps(sequence.tokens))
    done, halfway = whole[2]
    assert [step for step, _ in whole] == [1, 2, 3, 4, 5, 6]
    *_, (_, resumed) = denoiser.steps(halfway.clone(), start=done)
    assert torch.equal(resumed, whole[-1][1])


@torch.inference_mode()
def test_pinned_tokens_keep_to_their_strength(denoiser: Denoiser, sequence: TokenSequence) -> None:
    extra = sequence.extra
    hard, soft = slice(extra, extra + 6), slice(0, extra)
    for done, tokens in denoiser.steps(sequence.tokens):
        level = denoiser.sigmas[done - 1]
        shaken = (tokens[:, hard] - sequence.tokens[:, hard]).abs().mean().item()
        assert shaken == pytest.approx(0.15 * level**2 * 0.8, abs=0.05)
        moved = not torch.equal(tokens[:, soft], sequence.tokens[:, soft])
        assert moved == any(sigma < 0.4 for sigma in denoiser.sigmas[:done])


def test_levels_name_each_noise_once() -> None:
    levels = Levels.of(torch.tensor([0.0, 0.5, 0.5, 0.0, 0.2]))
    assert levels.values.tolist() == pytest.approx([0.0, 0.2, 0.5])
    per_level = torch.tensor([[1.0], [2.0], [3.0]])
    assert levels.spread(per_level).flatten().tolist() == [1, 3, 3, 1, 2]


def test_coordinates_of_the_first_latent_frame_stand_for_one_frame() -> None:
    frames = latents.coordinates((3, 1, 2), Grid(32, 8), start=5)
    assert frames.tolist() == [[5, 5, 6, 6, 14, 14], [0] * 6, [0, 32] * 3]
