from pathlib import Path
from random import Random

import pytest
import torch
from training.autoencoder import LATENTS
from training.batches import Batch, Layout, Scales, make_batch
from training.state import save_state
from training.text import new_text_encoder, new_tokenizer, tokenise
from training.transformer import Phase, Video, predict, train_transformer

from training import transformer

SCALES = Scales(torch.zeros(LATENTS), torch.ones(LATENTS))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "LAYERS", 1)
    monkeypatch.setattr(transformer, "PHASES", (Phase(10**9, ((1, 2, 2, 2),), pinned=0.5),))


class InterruptedTrainingError(Exception):
    """Raised in place of a power cut."""


@pytest.mark.usefixtures("tiny")
def test_resumed_training_equals_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_pinned_tokens_are_clean_and_outside_the_loss() -> None:
    rng = Random(1)  # noqa: S311
    batch = make_batch(rng, Layout(2, 2, 3, 89, 3), SCALES, pinned=True)
    hard = batch.timestep == 0
    assert hard.any()
    assert not batch.weight[hard[:, -batch.weight.shape[1] :]].any()
    assert batch.tokens.shape[:2] == batch.timestep.shape
    assert batch.coordinates.shape[2] == batch.tokens.shape[1]


def test_start_copies_what_is_pinned_at_the_same_place() -> None:
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    video = Video(new_text_encoder(tokenizer))
    batch = _pinned_picture()
    ids, mask = tokenise(tokenizer, batch.captions)
    with torch.no_grad():
        velocity = predict(video, batch, ids, mask)
    estimate = (batch.tokens - velocity)[:, 6:]
    # The estimate of the unpinned frame follows the pinned one, token by token.
    match = torch.corrcoef(torch.stack([estimate.flatten(), batch.tokens[:, :6].flatten()]))[0, 1]
    assert match > 0.5


def _pinned_picture() -> Batch:
    """Six clean tokens at timestep 0, the same six places as pure noise eight frames later."""
    picture = torch.randn(1, 6, LATENTS) * 0.3
    places = torch.tensor([[0.0, 0, 0, 64, 64, 64], [0.0, 64, 128, 0, 64, 128]])
    times = torch.tensor([0.0, 0.32]).repeat_interleave(6)
    coordinates = torch.cat([times[None], places.repeat(1, 2)])[None]
    tokens = torch.cat([picture, torch.randn(1, 6, LATENTS)], 1)
    timestep = torch.tensor([[0.0, 1000.0]]).repeat_interleave(6, 1)
    return Batch(tokens, tokens, coordinates, timestep, torch.ones(1, 12), [""])
