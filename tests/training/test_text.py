from random import Random

from training.pictures import CAMERA_WORDS
from training.scenes import random_scene
from training.text import FADE_WORDS, NEGATIVE_PROMPT, new_tokenizer


def test_captions_have_no_unknown_words() -> None:
    tokenizer = new_tokenizer()
    rng = Random(0)  # noqa: S311
    captions = [random_scene(rng, 89).caption for _ in range(300)]
    captions += [NEGATIVE_PROMPT, *FADE_WORDS, *(text for texts in CAMERA_WORDS.values() for text in texts)]
    unknown = tokenizer.unk_token_id
    assert not any(unknown in ids for ids in tokenizer(captions)["input_ids"])


def test_other_words_are_harmless() -> None:
    tokenizer = new_tokenizer()
    ids = tokenizer("A RED circle, 4K masterpiece!")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "red", "circle", "<unk>", "<unk>", "</s>"]
