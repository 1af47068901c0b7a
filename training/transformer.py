"""The transformer and its text encoder, trained together by flow matching on endless fresh clips."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from training.autoencoder import LATENTS
from training.batches import Batch, Layout, Scales, make_batch
from training.optimise import Average, Both, Muon, warm_stable
from training.start import start
from training.state import Clock, load_state, save_state
from training.text import WIDTH, encode, new_text_encoder, new_tokenizer, tokenise

HEADS, HEAD_WIDTH, LAYERS = 4, 64, 5


@dataclass(frozen=True)
class Phase:
    """Steps up to a limit, the layouts drawn in them, (samples, rows, columns, kept latent frames), and the share
    of batches with pinned frames."""

    until: int
    layouts: tuple[tuple[int, int, int, int], ...]
    pinned: float = 0.4


# Many small pictures teach words. The default sizes are 8 x 13 tokens (832x512) and 12 x 20 (1280x768).
SMALL = ((28, 4, 6, 3), (28, 4, 5, 3), (22, 5, 6, 3), (24, 6, 4, 3), (14, 4, 7, 5))
MIDDLE = ((6, 8, 13, 3), (9, 8, 8, 3), (6, 13, 8, 3), (4, 8, 13, 5), (10, 6, 10, 3), (3, 12, 20, 3))
FULL = ((2, 8, 13, 12), (2, 8, 13, 12), (3, 8, 13, 6), (1, 12, 20, 8))
PHASES = (
    Phase(450, SMALL),
    Phase(1050, MIDDLE),
    Phase(2500, (*SMALL, *SMALL, *MIDDLE, *FULL)),
    Phase(10**9, (*SMALL, *SMALL, *SMALL, *MIDDLE), pinned=0.15),  # pictures are learned by then, words are not
)
COOL_DOWN = 350
SAVE_EVERY = 50
CLIP_LENGTHS = (89, 89, 89, 89, 49, 41, 25, 121)


class Video(nn.Module):
    """What is trained together, so that one set of parameters can be averaged and stored."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.transformer: LTXVideoTransformer3DModel = _new_transformer()
        self.text_encoder: T5EncoderModel = new_text_encoder(tokenizer)


def _new_transformer() -> LTXVideoTransformer3DModel:
    width = HEADS * HEAD_WIDTH
    model = LTXVideoTransformer3DModel(
        in_channels=LATENTS,
        out_channels=LATENTS,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        cross_attention_dim=width,
        num_layers=LAYERS,
        caption_channels=WIDTH,
    )
    start(model)
    return model


def predict(video: Video, batch: Batch, ids: Tensor, mask: Tensor) -> Tensor:
    """The velocity of each token, (B, N, 112)."""
    velocity: Tensor = video.transformer(
        hidden_states=batch.tokens,
        encoder_hidden_states=encode(video.text_encoder, ids, mask),
        encoder_attention_mask=mask,
        timestep=batch.timestep,
        video_coords=batch.coordinates,
        return_dict=False,
    )[0]
    return velocity


def flow_loss(velocity: Tensor, batch: Batch, importance: Tensor) -> Tensor:
    """importance: (112,), mean 1. Tokens of the grid only, those of a subject more."""
    error = ((velocity - batch.target).square() * importance).mean(-1)
    return (error * batch.weight).sum() / batch.weight.sum().clamp(min=1.0)


def importance_of(scales: Scales) -> Tensor:
    """Half-way between an error of pixels and one of normalised latents: colour counts most."""
    return scales.std / scales.std.mean()


def batch_at(step: int, scales: Scales, seed: int) -> Batch:
    """The same for a step however often training was interrupted."""
    rng = Random(f"transformer {seed} {step}")
    phase = next(phase for phase in PHASES if step < phase.until)
    samples, rows, columns, kept = rng.choice(phase.layouts)
    frames = rng.choice(CLIP_LENGTHS) if kept < 8 else rng.choice((89, 89, 89, 49))
    kept = min(kept, (frames - 1) // 8 + 1)
    return make_batch(rng, Layout(samples, rows, columns, frames, kept), scales, pinned=rng.random() < phase.pinned)


def _optimiser(video: Video) -> Both:
    def is_matrix(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and (".transformer_blocks." in name or ".block." in name) and "table" not in name

    named = list(video.named_parameters())
    matrices = [p for n, p in named if is_matrix(n, p) and "relative" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=1.2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    return Both(Muon(matrices, lr=0.008), adam)


def train_transformer(folder: Path, scales: Scales, steps: int, seed: int) -> tuple[Video, PreTrainedTokenizerFast]:
    """Resumes from folder/transformer.pt. Returns the averaged weights."""
    torch.manual_seed(seed)
    tokenizer = new_tokenizer()
    video = Video(tokenizer)
    optimiser, average = _optimiser(video), Average(video, 0.996)
    schedule = warm_stable(optimiser, steps, warm=100, cool=COOL_DOWN)
    parts = {"model": video, "optimiser": optimiser, "average": average}
    importance, clock = importance_of(scales), Clock("transformer", steps)
    for step in range(load_state(folder / "transformer.pt", parts), steps):
        schedule(step)
        batch = batch_at(step, scales, seed)
        ids, mask = tokenise(tokenizer, batch.captions)
        loss = flow_loss(predict(video, batch, ids, mask), batch, importance)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        clip_gradients(video.parameters())
        optimiser.step()
        average.update(video)
        clock.tick(step, loss)
        if step % SAVE_EVERY == SAVE_EVERY - 1 or step == steps - 1:
            save_state(folder / "transformer.pt", parts, step + 1)
    average.copy_to(video)
    return video, tokenizer


def clip_gradients(parameters: Iterable[nn.Parameter]) -> None:
    nn.utils.clip_grad_norm_(list(parameters), 1.0)
