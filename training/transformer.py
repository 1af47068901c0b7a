"""Trains the transformer by flow matching on an endless stream of new clips.

Its text encoder is frozen: see `training.text`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from training.autoencoder import LATENTS
from training.batches import PARTS, Batch, Scales, emphasis, make_batch
from training.content import Content, Layout, everything, one_subject
from training.layout import HEAD, HEADS, INNER, PLACES
from training.optimise import Average, CombinedOptimiser, Hold, Muon, warm_stable
from training.start import held, start
from training.state import Clock, load_state, save_state
from training.text import WIDTH, encode, tokenise

LAYERS = 6


@dataclass(frozen=True)
class Lesson:
    """A share of a phase's batches.

    layouts: (samples, rows, columns, kept latent frames), of which each batch uses one. pinned: the share of batches
    with pinned frames. content: what the clips show.
    """

    share: float
    layouts: tuple[tuple[int, int, int, int], ...]
    pinned: float = 0.0
    content: Content = one_subject


@dataclass(frozen=True)
class Phase:
    """The steps up to a limit, their lessons, and the weights of the place loss and the cover loss."""

    until: int
    lessons: tuple[Lesson, ...]
    places: float = 1.0
    cover: float = 0.0


# Many small pictures teach words. The default sizes are 8 x 13 tokens (832x512) and 12 x 20 (1280x768).
TINY = ((64, 4, 6, 1), (60, 5, 5, 1), (36, 4, 6, 2), (30, 6, 5, 2))
STILL = ((16, 8, 13, 1), (16, 13, 8, 1))
SMALL = ((24, 4, 6, 3), (18, 4, 6, 4), (16, 5, 5, 4), (14, 6, 5, 4), (8, 5, 7, 6))
MIDDLE = ((6, 8, 13, 3), (8, 8, 8, 4), (6, 13, 8, 3), (4, 8, 13, 5), (8, 6, 10, 4), (3, 12, 20, 3))
FULL = ((2, 8, 13, 12), (2, 13, 8, 12), (3, 8, 8, 12), (3, 8, 13, 6), (1, 12, 20, 8))
LARGE = (*SMALL, *MIDDLE, *MIDDLE, *FULL, *FULL)
MIXED = TINY + STILL + SMALL + MIDDLE
SHARP = (
    Lesson(0.4, TINY + STILL + SMALL),
    Lesson(0.25, MIDDLE + FULL),
    Lesson(0.35, LARGE, 0.6, everything),
)
PINNED = (
    Lesson(0.35, TINY + STILL + SMALL),
    Lesson(0.25, MIDDLE + FULL),
    Lesson(0.4, LARGE, 0.6, everything),
)
PHASES = (
    Phase(400, (Lesson(1.0, TINY + STILL),)),
    Phase(1100, (Lesson(1.0, MIXED),)),
    Phase(1500, (Lesson(1.0, MIXED, 0.25, everything),)),
    Phase(2300, (Lesson(0.35, TINY), Lesson(0.25, MIDDLE + FULL), Lesson(0.4, LARGE, 0.6, everything))),
    Phase(3150, (Lesson(0.15, TINY), Lesson(0.35, MIDDLE + FULL + FULL), Lesson(0.5, LARGE, 0.55, everything))),
    # By now tokens know where they are and have to learn what to draw. A large place loss would leave little of the
    # gradient to shapes.
    Phase(5400, SHARP, places=0.2),
    Phase(6200, SHARP, places=0.1),
    Phase(7300, SHARP, places=0.1, cover=1.0),
    Phase(9500, SHARP, places=0.1, cover=2.5),
    Phase(11_000, SHARP, places=0.1, cover=0.7),
    Phase(10**9, PINNED, places=0.2, cover=1.5),
)
COOL_DOWN = 0.42  # share of the steps
TAUGHT = (2, 3, 4)  # layers after which a token should know its place
FAR = 4.0  # radii; the scale of the coarse places
LOUDNESS = 4.0  # scale of a place in the residual stream
# Factors that bring motion to the scale of places: moved x, y; grown; turned; speed x, y; seconds.
GAINS = (1.0, 1.5, 4.0, 1.5, 1.0, 1.5, 0.4)
SAVE_EVERY = 50
CLIP_LENGTHS = (89, 89, 89, 89, 49, 41, 25, 121)
FRAME_RATES = (25.0,) * 9 + (15.0, 24.0, 30.0, 50.0)


class Video(nn.Module):
    """The transformer and the frozen text encoder that it is trained with. cover: used in training only."""

    def __init__(self, text_encoder: T5EncoderModel) -> None:
        super().__init__()
        self.transformer: LTXVideoTransformer3DModel = _new_transformer()
        self.cover: nn.Module = nn.Sequential(nn.RMSNorm(INNER, elementwise_affine=False), nn.Linear(INNER, PARTS**2))
        self.text_encoder: T5EncoderModel = text_encoder.requires_grad_(False)


def _new_transformer() -> LTXVideoTransformer3DModel:
    model = LTXVideoTransformer3DModel(
        in_channels=LATENTS,
        out_channels=LATENTS,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD,
        cross_attention_dim=INNER,
        num_layers=LAYERS,
        caption_channels=WIDTH,
    )
    start(model)
    return model


def predict(video: Video, batch: Batch, ids: Tensor, mask: Tensor) -> Tensor:
    """Returns the velocity of each token, (B, N, 78)."""
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
    """Returns the weighted mean square error of the velocity. importance: weight of each latent, (78,), with mean 1."""
    error = ((velocity - batch.target).square() * importance).mean(-1)
    return (error * batch.weight).sum() / batch.weight.sum().clamp(min=1.0)


def _place_weights(batch: Batch) -> Tensor:
    """Returns how much it matters that a token knows its place, (B, N). A clear picture shows the place by itself."""
    return batch.places.isfinite().all(-1) * (batch.timestep / 1000).square()


def place_loss(outputs: list[Tensor], batch: Batch) -> Tensor:
    """Returns the error of the places that some layers write, by deep supervision (Lee et al., 2015).

    Each layer's output, (B, N, 256), has to say finely and coarsely where the subject is, in which tokens near it count
    most; and how the subject has moved, how fast and since when, in which all tokens count.
    """
    known, lengths = _place_weights(batch), batch.places.nan_to_num()
    places, motion = lengths[..., :2], lengths[..., 2:]
    wanted = LOUDNESS * torch.cat([places.tanh(), (places / FAR).tanh(), motion * motion.new_tensor(GAINS)], -1)
    near = known / (1 + places.square().sum(-1) / FAR)
    weight = torch.stack([near] * 4 + [known] * motion.shape[-1], -1)
    weight = weight / weight.sum((0, 1)).clamp(min=1.0)
    errors = [((hidden[..., PLACES.start : PLACES.stop] - wanted) / LOUDNESS).square() * weight for hidden in outputs]
    total: Tensor = torch.stack(errors).sum() / len(outputs)
    return total


def cover_loss(video: Video, outputs: list[Tensor], batch: Batch) -> Tensor:
    """Returns the error of `video.cover`, which reads how much of each part of a token the subject covers.

    This is deep supervision too, of shapes without their colours. In the error of pictures, outlines are a small part
    and tied to every pair of colours.
    """
    weight = _place_weights(batch) * emphasis(batch.focus)
    weight = weight / weight.sum().clamp(min=1.0)
    errors = [((video.cover(hidden) - batch.cover).square().mean(-1) * weight).sum() for hidden in outputs]
    return torch.stack(errors).mean()


@contextmanager
def recorded_outputs(model: LTXVideoTransformer3DModel) -> Iterator[list[Tensor]]:
    """Records the outputs of the layers in `TAUGHT` during one forward pass."""
    outputs: list[Tensor] = []
    blocks = [block for number, block in enumerate(model.transformer_blocks) if number in TAUGHT]
    hooks = [block.register_forward_hook(lambda _block, _inputs, output: outputs.append(output)) for block in blocks]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def losses(
    video: Video, tokenizer: PreTrainedTokenizerFast, batch: Batch, importance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the losses of flow, places and cover. Cover requires the place, so the first taught layer is left out."""
    with recorded_outputs(video.transformer) as outputs:
        velocity = predict(video, batch, *tokenise(tokenizer, batch.captions))
    return flow_loss(velocity, batch, importance), place_loss(outputs, batch), cover_loss(video, outputs[1:], batch)


def importance_of(scales: Scales) -> Tensor:
    """Returns the weight of each latent, half-way between an error of pixels and one of normalised latents.

    Colour counts most.
    """
    return scales.std / scales.std.mean()


def phase_at(step: int) -> Phase:
    return next(phase for phase in PHASES if step < phase.until)


def batch_at(step: int, scales: Scales, seed: int) -> Batch:
    """Returns the batch of a step. It does not depend on how often training was interrupted."""
    rng, phase = Random(f"transformer {seed} {step}"), phase_at(step)
    lesson = rng.choices(phase.lessons, [lesson.share for lesson in phase.lessons])[0]
    samples, rows, columns, kept = rng.choice(lesson.layouts)
    frames = rng.choice(CLIP_LENGTHS) if kept < 8 else rng.choice((89, 89, 89, 49))
    kept = min(kept, (frames - 1) // 8 + 1)
    layout = Layout(samples, rows, columns, frames, kept, rng.choice(FRAME_RATES))
    return make_batch(rng, layout, scales, rng.random() < lesson.pinned, lesson.content)


@dataclass(frozen=True)
class Batches(Dataset[Batch]):
    """Batches by step, which another process draws ahead."""

    scales: Scales
    seed: int

    def __getitem__(self, step: int) -> Batch:
        return batch_at(step, self.scales, self.seed)

    def load(self, steps: range) -> DataLoader[Batch]:
        return DataLoader(self, batch_size=None, sampler=steps, num_workers=1)


def _optimiser(video: Video) -> CombinedOptimiser:
    def is_matrix(name: str, parameter: nn.Parameter) -> bool:
        return parameter.ndim == 2 and name.startswith("transformer.transformer_blocks.") and "table" not in name

    trained = [(n, p) for n, p in video.named_parameters() if p.requires_grad]
    matrices = [p for n, p in trained if is_matrix(n, p)]
    rest = [p for n, p in trained if not is_matrix(n, p)]
    return CombinedOptimiser(
        Muon(matrices, lr=0.008), torch.optim.AdamW(rest, lr=1.2e-3, betas=(0.9, 0.98), weight_decay=0.0)
    )


def train_transformer(
    folder: Path,
    parts: tuple[PreTrainedTokenizerFast, T5EncoderModel],
    scales: Scales,
    steps: int,
    seed: int,
) -> Video:
    """Trains the transformer and returns it with the averaged weights. Resumes from folder/transformer.pt."""
    torch.manual_seed(seed)
    tokenizer, text_encoder = parts
    video = Video(text_encoder)
    model = video.transformer
    optimiser, average = _optimiser(video), Average(model, 0.997)
    schedule = warm_stable(optimiser, steps, warm=100, cool=max(1, round(COOL_DOWN * steps)))
    stored = {"model": model, "cover": video.cover, "optimiser": optimiser, "average": average}
    importance, clock = importance_of(scales), Clock("transformer", steps)
    first = load_state(folder / "transformer.pt", stored)
    hold = Hold(model, held(model))  # after loading: the initial weights may have changed since
    for step, batch in enumerate(Batches(scales, seed).load(range(first, steps)), first):
        schedule(step)
        phase = phase_at(step)
        flow, place, cover = losses(video, tokenizer, batch, importance)
        optimiser.zero_grad()
        torch.autograd.backward(flow + phase.places * place + phase.cover * cover)
        hold.before()
        clip_gradients(model.parameters())
        optimiser.step()
        hold.after()
        average.update(model)
        clock.tick(step, flow, place, cover)
        if step % SAVE_EVERY == SAVE_EVERY - 1 or step == steps - 1:
            save_state(folder / "transformer.pt", stored, step + 1)
    average.copy_to(model)
    return video


def clip_gradients(parameters: Iterable[nn.Parameter]) -> None:
    nn.utils.clip_grad_norm_(list(parameters), 1.0)
