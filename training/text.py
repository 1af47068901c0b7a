"""The words of the captions, their tokenizer and a small T5 encoder trained along with the transformer."""

import json
import re
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from training import pictures, scenes

NEGATIVE_PROMPT = "blurry, low quality, low resolution, inconsistent motion, jittery, distorted"
FADE_WORDS = ("a cross-fade", "a smooth transition", "one picture turns into another", "morphing")
LOOK_WORDS = ("a video of", "a scene with", "an animation of", "there is")
SPECIAL = ("<pad>", "</s>", "<unk>")
WIDTH = 128
NEIGHBOUR_BIAS = 8.0


def vocabulary() -> list[str]:
    """All words that mean something, sorted; everything else is <unk>."""
    texts = [
        NEGATIVE_PROMPT,
        "a an and small big background gradient from to on in front of ball circle disc",
    ]
    texts += [*scenes.COLOURS, *scenes.SHAPES, *FADE_WORDS, *LOOK_WORDS]
    for group in (scenes.MOTIONS, scenes.PLACES, pictures.CAMERA_WORDS):
        texts += [text for choices in group.values() for text in choices]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})


def new_tokenizer() -> PreTrainedTokenizerFast:
    words = [*SPECIAL, *vocabulary()]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()
    # Only letters count; marks and digits separate words.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[^a-z]+"), "removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", words.index("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=128,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """transformers 5 writes a class name that version 4 does not know."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n")


def new_text_encoder(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=False,
    )
    encoder = T5EncoderModel(config)
    look_at_neighbours(encoder)
    return encoder


@torch.no_grad()
def look_at_neighbours(encoder: T5EncoderModel) -> None:
    """Three of four heads start by reading the word before, the word after, and the one before last.

    Left to itself the encoder treats a caption as a bag of words for a thousand steps: which colour belongs to
    the circle and which to the background is in the order alone.
    """
    attention = encoder.encoder.block[0].layer[0].SelfAttention
    for head, distance in enumerate((-1, 1, -2)):
        bucket = abs(distance) + (16 if distance > 0 else 0)
        attention.relative_attention_bias.weight[bucket, head] += NEIGHBOUR_BIAS


def tokenise(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Returns ids and mask, (B, L), padded to the longest."""
    batch = tokenizer(captions, padding=True, truncation=True, max_length=128, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def vary(caption: str, rng: Random) -> str:
    """Drops a tenth of the captions, for guidance; adds words without meaning to some of the others."""
    chance = rng.random()
    if chance < 0.05:
        return ""
    if chance < 0.11:
        words = NEGATIVE_PROMPT.split(", ")
        return ", ".join(rng.sample(words, rng.randint(3, len(words))))
    if chance < 0.25:
        words = caption.split()
        for _ in range(rng.randint(1, 5)):
            words.insert(rng.choice((0, len(words))), "<unk>")
        return " ".join(words)
    return f"{rng.choice(LOOK_WORDS)} {caption}" if chance < 0.33 else caption


def encode(encoder: T5EncoderModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Returns (B, L, 128)."""
    states: Tensor = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return torch.as_tensor(states)
