"""Trains the demo model's prompt expander, a tiny causal language model of its grammar.

`python -m training.expander --out src/keyreel/demo/expander` takes six minutes on one thread. The model completes
ideas: it keeps what an idea names and adds at random what the idea leaves open (a colour, a motion, a place).
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training import pictures, scenes
from training.optimise import warm_cosine
from training.state import Clock
from training.text import FADE_WORDS, LOOK_WORDS, new_tokenizer, save_tokenizer

SEED = 0
STEPS, BATCH = 5000, 48
IGNORED = -100
"""The label that transformers leaves out of the loss."""
NOISE = "<unk>"
# The model reads an idea and an end token, and writes the description. Only the user's turn counts.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}</s>{% endif %}"
)


@dataclass(frozen=True)
class Subject:
    """A subject of a description: "a small red ball"."""

    size: str
    colour: str
    noun: str

    def __str__(self) -> str:
        words = " ".join(filter(None, (self.size, self.colour, self.noun)))
        return f"{'an' if words.startswith('orange') else 'a'} {words}"


def random_pair(rng: Random) -> tuple[str, str]:
    """Returns a random idea and the description that it should become."""
    if rng.random() < 0.08:
        words = rng.choice([*FADE_WORDS, *(word for group in pictures.CAMERA_WORDS.values() for word in group)])
        return _add_noise(words, rng), words
    subjects = _subjects(rng)
    motion = rng.choice([words for group in scenes.MOTIONS.values() for words in group if words])
    place = _place(rng, {subject.colour for subject in subjects})
    parts = [" and ".join(_partial(subject, rng) for subject in subjects)] if rng.random() < 0.9 else []
    parts += [motion] if rng.random() < 0.45 else []
    parts += [place if rng.random() < 0.75 else place.split()[-1]] if rng.random() < 0.5 else []
    rng.shuffle(parts)
    description = f"{' and '.join(map(str, subjects))} {motion} {place}"
    return _add_noise(" ".join(parts), rng) if rng.random() < 0.97 else "", description


def _subjects(rng: Random) -> list[Subject]:
    size = rng.choice(("", "", "small", "big"))
    colours = rng.sample(list(scenes.COLOURS), rng.choice((1, 1, 1, 1, 2)))
    nouns = [*scenes.SHAPES, "ball", "disc"]
    return [Subject(size, colour, rng.choice(nouns)) for colour in colours]


def _place(rng: Random, taken: set[str]) -> str:
    colours = rng.sample([colour for colour in scenes.COLOURS if colour not in taken], 2)
    plain = rng.choice(("on a {} background", "on {}", "in front of a {} background")).format(colours[0])
    gradient = rng.choice(("on a {} to {} gradient", "on a gradient from {} to {}")).format(*colours)
    scenery = rng.choice([words for group in scenes.PLACES.values() for words in group])
    return rng.choice((plain, gradient, scenery, scenery))


def _partial(subject: Subject, rng: Random) -> str:
    """Returns what an idea says about a subject, which is seldom everything."""
    words = [
        subject.size if rng.random() < 0.8 else "",
        subject.colour if rng.random() < 0.7 else "",
        subject.noun if rng.random() < 0.85 else NOISE,
    ]
    article = "a" if rng.random() < 0.7 else ""
    return " ".join(filter(None, (article, *words)))


def _add_noise(idea: str, rng: Random) -> str:
    """Adds words without meaning, before the idea and between its words."""
    words = (f"{rng.choice(LOOK_WORDS)} {idea}" if rng.random() < 0.15 else idea).split()
    for _ in range(rng.choice((0, 0, 0, 1, 2, 4))):
        words.insert(rng.randint(0, len(words)), NOISE)
    return " ".join(words)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=end, pad_token_id=tokenizer.pad_token_id, suppress_tokens=[unknown]
    )
    return model


def batch(tokenizer: PreTrainedTokenizerFast, rng: Random) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ids, mask and labels, (B, L). Only the description and the end token after it count in the loss."""
    pairs = [random_pair(rng) for _ in range(BATCH)]
    both = tokenizer([f"{idea}</s>{description}" for idea, description in pairs], padding=True, return_tensors="pt")
    ids, mask = both["input_ids"], both["attention_mask"]
    described = (ids == tokenizer.eos_token_id).cumsum(1) - (ids == tokenizer.eos_token_id).long() > 0
    return ids, mask, ids.where(described & mask.bool(), IGNORED)


def train(tokenizer: PreTrainedTokenizerFast, steps: int = STEPS, seed: int = SEED) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = new_model(tokenizer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule, clock = warm_cosine(optimiser, steps, warm=100), Clock("expander", steps, every=250)
    for step in range(steps):
        schedule(step)
        ids, mask, labels = batch(tokenizer, Random(f"expander {seed} {step}"))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        clock.tick(step, loss)
    return model.eval()


def write_expander(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Stores the model in bfloat16, with its tokenizer and chat template."""
    model.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"chat_template": CHAT_TEMPLATE}
    path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = new_tokenizer()
    write_expander(arguments.out, train(tokenizer), tokenizer)


if __name__ == "__main__":
    main()
