"""The words of the captions, their tokenizer, and a small T5 encoder that is trained first and alone.

The encoder learns to predict at each token what the whole caption says: which colour belongs to which shape, where the
scene is. The transformer then finds this at any token. When both are trained together from the start, the transformer
treats a caption as a bag of words for thousands of steps.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from random import Random

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from training import pictures, scenes
from training.optimise import warm_cosine
from training.random_scenes import random_scene
from training.scenes import Grid
from training.state import Clock, load_state, save_state

NEGATIVE_PROMPT = "blurry, low quality, low resolution, inconsistent motion, jittery, distorted"
FADE_WORDS = ("a cross-fade", "a smooth transition", "one picture turns into another", "morphing")
LOOK_WORDS = ("a video of", "a scene with", "an animation of", "there is")
SPECIAL = ("<pad>", "</s>", "<unk>")
WIDTH = 128
NEIGHBOUR_BIAS = 8.0
TEXT_STEPS, TEXT_BATCH = 2000, 96
SLOTS: dict[str, tuple[str, ...]] = scenes.SLOTS | {"camera": ("", *pictures.CAMERA_WORDS, "fade")}
# The tokenizer reads the words on the right as the word on the left.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet"),
    "yellow": ("golden", "gold"),
    "cyan": ("turquoise", "teal", "aqua"),
    "blue": ("navy", "azure"),
    "purple": ("violet", "lilac"),
    "pink": ("magenta", "rose"),
    "grey": ("gray", "silver"),
    "circle": ("sphere", "dot"),
    "disc": ("disk",),
    "square": ("box", "cube", "rectangle"),
    "triangle": ("pyramid",),
    "ring": ("donut", "doughnut", "torus"),
    "diamond": ("rhombus",),
    "cross": ("plus",),
    "moon": ("crescent",),
    "small": ("little", "tiny"),
    "big": ("large", "huge", "giant", "enormous"),
    "background": ("backdrop",),
    "moving": ("moves", "travelling", "traveling", "drifting", "sliding", "goes"),
    "flying": ("flies", "floating", "floats"),
    "rising": ("rises", "ascending", "ascends"),
    "falling": ("falls", "dropping", "drops", "descending"),
    "sinking": ("sinks",),
    "standing still": ("motionless", "static", "resting"),
    "growing": ("grows", "expanding", "expands"),
    "shrinking": ("shrinks", "contracting"),
    "spinning": ("spins", "whirling"),
    "rotating": ("rotates", "revolving"),
    "turning": ("turns",),
    "bouncing": ("bounces", "hopping", "hops", "jumps"),
    "ocean": ("seaside", "waves"),
    "meadow": ("lawn", "prairie"),
    "dunes": ("dune",),
    "sunset": ("dusk", "dawn"),
    "snow": ("snowfall",),
    "city": ("town", "skyline"),
}


def vocabulary() -> list[str]:
    """Returns all words with a meaning, sorted; any other word is <unk>."""
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
    replacements = [normalizers.Replace(Regex(rf"\b({'|'.join(others)})\b"), word) for word, others in SYNONYMS.items()]
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *replacements])
    # Punctuation and digits separate words.
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
    """Writes the tokenizer in a form that transformers 4 reads too."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    # transformers 5 writes a class name that version 4 does not know.
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
    """Lets three of four heads start by reading the word before, the word after, and the second word before.

    Only the order of the words tells which colour belongs to the circle and which to the background. From random
    weights, the encoder does not find this for thousands of steps.
    """
    attention = encoder.encoder.block[0].layer[0].SelfAttention
    for head, distance in enumerate((-1, 1, -2)):
        bucket = abs(distance) + (16 if distance > 0 else 0)
        attention.relative_attention_bias.weight[bucket, head] += NEIGHBOUR_BIAS


def tokenise(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Returns ids and mask, (B, L), padded to the longest."""
    batch = tokenizer(captions, padding=True, truncation=True, max_length=128, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


def vary(caption: str, rng: Random, dropped: float = 0.1) -> str:
    """Returns the caption, sometimes with words added that have no meaning.

    A share of `dropped` captions becomes empty or a negative prompt, which guidance needs.
    """
    if rng.random() < dropped or not caption:
        words = NEGATIVE_PROMPT.split(", ")
        return ", ".join(rng.sample(words, rng.randint(3, len(words)))) if rng.random() < 0.5 else ""
    chance = rng.random()
    if chance < 0.15:
        words = caption.split()
        for _ in range(rng.randint(1, 5)):
            words.insert(rng.choice((0, len(words))), "<unk>")
        return " ".join(words)
    return f"{rng.choice(LOOK_WORDS)} {caption}" if chance < 0.25 else caption


def encode(encoder: T5EncoderModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Returns the encoder's output, (B, L, 128)."""
    return torch.as_tensor(encoder(input_ids=ids, attention_mask=mask).last_hidden_state)


# --- training ----------------------------------------------------------------------------------------------

Caption = tuple[str, Mapping[str, str]]  # the text, and what it says, by slot


def random_caption(rng: Random) -> Caption:
    kind = rng.random()
    if kind < 0.10:
        move = rng.choice(list(pictures.CAMERA_WORDS))
        return rng.choice(pictures.CAMERA_WORDS[move]), {"camera": move}
    if kind < 0.14:
        return rng.choice(FADE_WORDS), {"camera": "fade"}
    if kind < 0.18:
        return vary("", rng, 0.0), {}
    scene = random_scene(rng, Grid(512, 832, 8), 3.5)
    return scene.caption, scene.meaning


class Reader(nn.Module):
    """The encoder with a linear layer for each slot, which predicts the slot's value from each token."""

    def __init__(self, encoder: T5EncoderModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict({slot: nn.Linear(WIDTH, len(values)) for slot, values in SLOTS.items()})

    def loss(self, ids: Tensor, mask: Tensor, meanings: list[Mapping[str, str]]) -> Tensor:
        states = encode(self.encoder, ids, mask)[mask.bool()]
        rows = torch.arange(len(ids)).repeat_interleave(mask.sum(1))
        total = torch.zeros(())
        for slot, values in SLOTS.items():
            wanted = torch.tensor([values.index(meaning.get(slot, "")) for meaning in meanings])
            total = total + functional.cross_entropy(self.heads[slot](states), wanted[rows])
        return total / len(SLOTS)


def train_text_encoder(folder: Path, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int) -> T5EncoderModel:
    """Returns the trained, frozen encoder. Resumes from folder/text.pt; takes a minute or two."""
    torch.manual_seed(seed)
    reader = Reader(new_text_encoder(tokenizer))
    optimiser = torch.optim.AdamW(reader.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule, clock = warm_cosine(optimiser, steps, warm=50), Clock("text", steps, every=250)
    parts = {"reader": reader, "optimiser": optimiser}
    for step in range(load_state(folder / "text.pt", parts), steps):
        schedule(step)
        rng = Random(f"text {seed} {step}")
        captions = [random_caption(rng) for _ in range(TEXT_BATCH)]
        ids, mask = tokenise(tokenizer, [vary(caption, rng, 0.0) for caption, _ in captions])
        loss = reader.loss(ids, mask, [meaning for _, meaning in captions])
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        clock.tick(step, loss)
        if step == steps - 1:
            save_state(folder / "text.pt", parts, step + 1)
    return reader.encoder.requires_grad_(False)
