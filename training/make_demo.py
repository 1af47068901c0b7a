"""Makes the demo model from nothing: `python -m training.make_demo --out DIR --state DIR`.

Each stage resumes from its checkpoint in the state folder; a finished stage is only loaded.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from training.autoencoder import make_autoencoder
from training.batches import Scales
from training.deblock import deblock
from training.lora import STYLES, train_lora, write_lora
from training.release import write_model
from training.text import TEXT_STEPS, new_tokenizer, train_text_encoder
from training.transformer import train_transformer

SEED = 0
TRANSFORMER_STEPS = 15_600
LORA_STEPS = 300


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Prints the seconds that a stage takes."""
    start = time.monotonic()
    yield
    print(f"{stage}: {time.monotonic() - start:.0f} s", flush=True)


def make_demo(out: Path, state: Path) -> None:
    """Runs all stages and writes the model to `out`."""
    state.mkdir(parents=True, exist_ok=True)
    with timed("autoencoder"):
        vae = make_autoencoder(SEED)
        deblock(vae, SEED)
    scales = Scales(vae.latents_mean.clone(), vae.latents_std.clone())
    tokenizer = new_tokenizer()
    with timed("text encoder"):
        text_encoder = train_text_encoder(state, tokenizer, TEXT_STEPS, SEED)
    for name, content in STYLES.items():
        with timed(f"transformer and {name}"):
            # Training a LoRA changes the transformer, so each LoRA loads the shipped transformer again.
            video = train_transformer(state, (tokenizer, text_encoder), scales, TRANSFORMER_STEPS, SEED)
            branches = train_lora(state, name, content, (video, tokenizer), scales, LORA_STEPS, SEED)
            write_lora(out / "loras" / f"{name}.safetensors", branches)
    video = train_transformer(state, (tokenizer, text_encoder), scales, TRANSFORMER_STEPS, SEED)
    write_model(out, vae, video, tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--state", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    make_demo(arguments.out, arguments.state)


if __name__ == "__main__":
    main()
