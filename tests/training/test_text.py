from pathlib import Path
from random import Random

import pytest
import torch
from training.pictures import CAMERA_WORDS
from training.random_scenes import random_scene
from training.scenes import Grid
from training.text import (
    FADE_WORDS,
    NEGATIVE_PROMPT,
    SLOTS,
    Reader,
    encode,
    new_tokenizer,
    random_caption,
    tokenise,
    train_text_encoder,
)


def test_captions_have_no_unknown_words() -> None:
    tokenizer = new_tokenizer()
    rng = Random(0)  # noqa: S311
    captions = [random_scene(rng, Grid(512, 832, 8), 3.5).caption for _ in range(300)]
    captions += [NEGATIVE_PROMPT, *FADE_WORDS, *(text for texts in CAMERA_WORDS.values() for text in texts)]
    unknown = tokenizer.unk_token_id
    assert not any(unknown in ids for ids in tokenizer(captions)["input_ids"])


def test_unknown_words_become_the_unknown_token() -> None:
    tokenizer = new_tokenizer()
    ids = tokenizer("A RED circle, 4K masterpiece!")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "red", "circle", "<unk>", "<unk>", "</s>"]


def test_synonyms_have_the_tokens_of_known_words() -> None:
    tokenizer = new_tokenizer()
    known = tokenizer("a purple circle moving right on a grey background")["input_ids"]
    assert tokenizer("A violet sphere moves right on a gray backdrop")["input_ids"] == known


def test_every_meaning_has_a_slot() -> None:
    rng = Random(0)  # noqa: S311
    for _ in range(300):
        _, meaning = random_caption(rng)
        assert all(value in SLOTS[slot] for slot, value in meaning.items())


@pytest.mark.slow
def test_the_text_encoder_learns_what_a_caption_says(tmp_path: Path) -> None:
    """A few steps beat chance. Binding colours to shapes takes the full training."""
    tokenizer = new_tokenizer()
    rng = Random(1)  # noqa: S311
    captions = [random_caption(rng) for _ in range(64)]
    ids, mask = tokenise(tokenizer, [caption for caption, _ in captions])
    encoder = train_text_encoder(tmp_path, tokenizer, 25, seed=0)
    reader = Reader(encoder)
    reader.load_state_dict(torch.load(tmp_path / "text.pt", weights_only=True)["reader"])
    assert encode(encoder, ids, mask).shape == (64, ids.shape[1], 128)
    untrained = Reader(encoder).loss(ids, mask, [meaning for _, meaning in captions])
    assert reader.loss(ids, mask, [meaning for _, meaning in captions]) < 0.8 * untrained
