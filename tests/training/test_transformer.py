import math
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor
from training.autoencoder import LATENTS
from training.batches import Batch, Scales, make_batch
from training.content import Layout, everything
from training.layout import CONSTANT, INNER, PLACES
from training.state import save_state
from training.text import new_text_encoder, new_tokenizer
from training.transformer import (
    FAR,
    GAINS,
    LOUDNESS,
    Lesson,
    Phase,
    Video,
    cover_loss,
    place_loss,
    train_transformer,
)

from training import transformer

SCALES = Scales(torch.zeros(LATENTS), torch.ones(LATENTS))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the training small: two layers and one lesson."""
    monkeypatch.setattr(transformer, "LAYERS", 2)
    monkeypatch.setattr(transformer, "TAUGHT", (0, 1))
    lessons = (Lesson(1.0, ((1, 2, 2, 2),), 0.5, everything),)
    monkeypatch.setattr(transformer, "PHASES", (Phase(10**9, lessons, cover=1.0),))


class InterruptedTrainingError(Exception):
    """Simulates a crash during training."""


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_resumed_training_equals_uninterrupted_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = new_tokenizer()
    text = (tokenizer, new_text_encoder(tokenizer))
    whole = train_transformer(tmp_path / "whole", text, SCALES, 2, seed=1)

    def save_and_stop(path: Path, parts: dict[str, object], step: int) -> None:
        save_state(path, parts, step)
        raise InterruptedTrainingError

    with monkeypatch.context() as patch:
        patch.setattr(transformer, "SAVE_EVERY", 1)
        patch.setattr(transformer, "save_state", save_and_stop)
        with pytest.raises(InterruptedTrainingError):
            train_transformer(tmp_path / "parts", text, SCALES, 2, seed=1)
    resumed = train_transformer(tmp_path / "parts", text, SCALES, 2, seed=1)
    for mine, other in zip(resumed.transformer.parameters(), whole.transformer.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_held_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    tokenizer = new_tokenizer()
    text, checkpoint = (tokenizer, new_text_encoder(tokenizer)), tmp_path / "transformer.pt"
    train_transformer(tmp_path, text, SCALES, 1, seed=1)
    state = torch.load(checkpoint, weights_only=True)
    state["model"]["proj_in.bias"][CONSTANT] = 7.0
    torch.save(state, checkpoint)
    train_transformer(tmp_path, text, SCALES, 2, seed=1)
    assert torch.load(checkpoint, weights_only=True)["model"]["proj_in.bias"][CONSTANT] == 7.0


def test_pinned_tokens_are_clean_and_have_no_weight_in_the_loss() -> None:
    rng = Random(1)  # noqa: S311
    batch = make_batch(rng, Layout(2, 2, 3, 89, 3), SCALES, pinned=True)
    hard = batch.timestep == 0
    assert hard.any()
    assert not batch.weight[hard[:, -batch.weight.shape[1] :]].any()
    assert batch.tokens.shape[:2] == batch.timestep.shape
    assert batch.coordinates.shape[2] == batch.tokens.shape[1]


def test_the_place_loss_counts_known_places_and_more_near_the_subject() -> None:
    motion = [0.0, 2.0, 0.1, 0.0, -0.5, 0.8, 1.5]
    places = torch.tensor([[[0.5, -1.0, *motion], [20.0, 3.0, *motion], [math.nan] * 9]])
    hidden = torch.randn(1, 3, INNER)
    fine, coarse, moved = places[..., :2].tanh(), (places[..., :2] / FAR).tanh(), places[..., 2:] * torch.tensor(GAINS)
    hidden[:, :2, PLACES.start : PLACES.stop] = LOUDNESS * torch.cat([fine, coarse, moved], -1)[:, :2]

    def loss(of: Tensor, *more: Tensor, sigma: float = 1.0) -> float:
        empty = torch.zeros(0)
        batch = Batch(empty, empty, empty, torch.full((1, 1), 1000 * sigma), empty, places, empty, empty, [])
        return place_loss([of, *more], batch).item()

    def off(token: int, channel: int) -> Tensor:
        wrong = hidden.clone()
        wrong[0, token, PLACES.start + channel] += 1
        return wrong

    assert loss(hidden) == 0
    assert loss(off(0, 0)) > 10 * loss(off(1, 0)) > 0  # near the subject, then far from it
    assert loss(off(0, 4)) == loss(off(1, 4)) > 0
    assert loss(hidden, off(0, 0)) == pytest.approx(loss(off(0, 0)) / 2)
    assert loss(off(2, 0)) == loss(off(2, 4)) == 0
    places = places * math.nan
    assert loss(off(0, 0)) == 0


def test_the_cover_loss_counts_known_places_and_more_on_outlines() -> None:
    tokenizer = new_tokenizer()
    video = Video(new_text_encoder(tokenizer))
    hidden, empty = torch.randn(1, 3, INNER), torch.zeros(0)
    places = torch.tensor([[[0.0] * 9, [0.0] * 9, [math.nan] * 9]])
    focus = torch.tensor([[0.0, 2.0, 2.0]])
    cover = video.cover(hidden).detach()

    def loss(token: int, sigma: float = 1.0) -> Tensor:
        wrong = cover.clone()
        wrong[0, token] += 1
        batch = Batch(empty, empty, empty, torch.full((1, 1), 1000 * sigma), empty, places, focus, wrong, [])
        return cover_loss(video, [hidden, hidden], batch)

    assert loss(1).item() == pytest.approx(7 * loss(0).item())
    assert loss(1).item() == pytest.approx(7 / 8, abs=1e-3)
    assert loss(2).item() == pytest.approx(0, abs=1e-6)
    loss(1).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in video.cover.parameters())
