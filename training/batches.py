"""Training batches: clips as latents, with some frames pinned, and with noise per token as in sampling."""

import math
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from training.autoencoder import BLOCK, HALVES, LATENTS, LOTS, encode_cells
from training.content import SAMPLES, TOKEN, Content, Layout, Pins, Shot, everything
from training.scenes import (
    UNIT,
    WHEREABOUTS,
    Anchor,
)
from training.text import vary

PARTS = 4  # parts of a token along each side, for the cover loss
CONDITION_NOISE = 0.15
LOWEST = 0.1  # the lowest sigma; the last of 30 sampling steps starts at 0.12
MARGIN = 2  # tokens between a subject's centre and the edge, at least; in large frames a quarter of the frame


@dataclass(frozen=True)
class Scales:
    """mean, std: (78,), from the autoencoder's configuration."""

    mean: Tensor
    std: Tensor

    def normalise(self, latents: Tensor) -> Tensor:
        shape = (1, -1, 1, 1, 1)
        return (latents - self.mean.view(shape)) / self.std.view(shape)


@dataclass(frozen=True)
class Batch:
    """A training batch.

    tokens, target: (B, N, 78); coordinates: (B, 3, N); timestep: (B, 1 or N); weight: (B, N).
    places: (B, N, 9), see `DrawnClip`; focus: (B, N) and cover: (B, N, 16), see `Sample`.
    """

    tokens: Tensor
    target: Tensor
    coordinates: Tensor
    timestep: Tensor
    weight: Tensor
    places: Tensor
    focus: Tensor
    cover: Tensor
    captions: list[str]


# --- choosing ----------------------------------------------------------------------------------------------


def _kept(rng: Random, layout: Layout, must: set[int]) -> list[int]:
    """Returns the latent frames to draw, `must` among them: consecutive, evenly spread, or at random."""
    total, count = layout.latent_frames, layout.kept
    if count >= total:
        return list(range(total))
    style = rng.random()
    if style < 0.35:
        first = rng.randint(0, total - count)
        chosen = set(range(first, first + count))
    elif style < 0.6 and count > 1:
        chosen = {round(i * (total - 1) / (count - 1)) for i in range(count)}
    else:
        chosen = set(rng.sample(range(total), count))
    spare = sorted(chosen - must, key=lambda _: rng.random())
    rest = [i for i in range(total) if i not in chosen | must]
    rng.shuffle(rest)
    return sorted(must | set((spare + rest)[: count - len(must)]))


def random_pins(rng: Random, layout: Layout) -> Pins:
    """Returns a random choice of pinned frames."""
    last, total = layout.frames - 1, layout.latent_frames
    middle = rng.randint(1, max(1, last - 1))
    choices: list[tuple[float, Pins]] = [
        (4.0, Pins(head=1)),
        (6.0, Pins(head=1, stills=(last,))),
        (2.0, Pins(head=1, stills=(middle,))),
        (1.0, Pins(stills=(last,))),
        (1.0, Pins(stills=(middle,))),
        (1.0, Pins(head=1, stills=(max(1, last // 2), last))),
        (1.5, Pins(head=min(rng.choice((2, 2, 3)), layout.kept))),
    ]
    if total > 3:
        choices.append((1.0, Pins(follow=rng.randint(1, total - 2))))
    return rng.choices([pins for _, pins in choices], [weight for weight, _ in choices])[0]


def _frames_of(latent_frame: int) -> list[float]:
    """Returns the frames to draw for a latent frame."""
    if latent_frame == 0:
        return [0.0] * SAMPLES
    return [8 * latent_frame - shift for shift in (6.5, 4.5, 2.5, 0.5)]


# --- one sample --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One sample before noise is added.

    latents: (N, 78), the tokens in front first. pinned: (N,), strengths. times: (N,), in frames.
    focus: (N,), how much each token matters, see `_focus_of_tokens`. places: (N, 9), see `DrawnClip`.
    cover: (N, 16), how much of each part of a token a subject covers, see `_cover_of_tokens`.
    """

    latents: Tensor
    pinned: Tensor
    times: Tensor
    focus: Tensor
    places: Tensor
    cover: Tensor
    caption: str


def _strength(rng: Random) -> float:
    return 1.0 if rng.random() < 0.75 else rng.uniform(0.3, 1.0)


def _front(pins: Pins) -> tuple[list[list[float]], list[float]]:
    """Returns the frames to draw for each latent frame in front, and the time that each stands for."""
    drawn = [[float(still)] * SAMPLES for still in pins.stills]
    times = [float(still) for still in pins.stills]
    if pins.follow is not None:
        start = 8 * pins.follow
        drawn += [[float(start)] * SAMPLES, _frames_of(pins.follow + 1)]
        times += [float(start), float(start + 1)]
    return drawn, times


def _anchor(layout: Layout, kept: list[int], noise: Tensor) -> Anchor:
    """Returns the token at which the noise is highest in one channel, or the nearest token that is not at the edge.

    The network knows positions only relative to each other, so nothing but the noise can tell it where a subject should
    be. Left to itself, it has to find an agreement among all tokens. So the place is defined by a channel in which
    pictures have almost nothing: there the noise can be read at every noise level. Noise and scenes keep their
    distributions. Only their pairing is chosen, as in flow matching with couplings (Pooladian et al., 2023).
    """
    area = layout.rows * layout.columns
    highest = int(noise[:, LOTS].argmax())
    frame, row, column = highest // area, highest % area // layout.columns, highest % layout.columns
    y = _inside(row, layout.rows) + 0.5 - layout.rows / 2
    x = _inside(column, layout.columns) + 0.5 - layout.columns / 2
    moment = max(0.0, 8 * kept[frame] - 3.5) / layout.rate
    return Anchor(x * TOKEN / UNIT, y * TOKEN / UNIT, moment)


def _inside(place: int, count: int) -> int:
    """Moves a place so far from the edges that a subject stays in the frame for most of a clip."""
    margin = min(max(MARGIN, count // 4), (count - 1) // 2)
    return min(max(place, margin), count - 1 - margin)


def _sample(rng: Random, layout: Layout, pins: Pins, scales: Scales, content: Content, noise: Tensor) -> Sample:
    kept = _kept(rng, layout, set(range(pins.head)))
    front, front_times = _front(pins)
    drawn = torch.tensor(front + [_frames_of(i) for i in kept])
    anchor = None if pins.spans else _anchor(layout, kept, noise)
    shown = content(rng, Shot(layout, pins, drawn.flatten(), anchor))
    cells = functional.avg_pool3d(shown.clip * 2 - 1, (SAMPLES // HALVES, 1, 1))
    latents = scales.normalise(encode_cells(cells[None]))[0].flatten(1).T
    places = torch.full((len(latents), WHEREABOUTS), math.nan) if shown.places is None else shown.places.flatten(1).T
    held = [_strength(rng) for _ in pins.stills]
    head = _strength(rng)
    held += [head] * (len(front) - len(held))
    held += [head if i < pins.head or (pins.follow is not None and i == pins.follow + 2) else 0.0 for i in kept]
    times = front_times + [float(max(0, 8 * i - 7)) for i in kept]
    area = layout.rows * layout.columns
    spread = [torch.tensor(values).repeat_interleave(area) for values in (held, times)]
    focus, cover = _focus_of_tokens(shown.focus), _cover_of_tokens(shown.focus)
    return Sample(latents, spread[0], spread[1], focus, places, cover, vary(shown.caption, rng))


def _focus_of_tokens(focus: Tensor) -> Tensor:
    """Returns (N,): 1 for tokens inside a subject, 2 for tokens on its outline. focus: (T, rows, columns) in cells."""
    block = (SAMPLES, BLOCK, BLOCK)
    most, least = functional.max_pool3d(focus[None], block), -functional.max_pool3d(-focus[None], block)
    return (2 * most - least).flatten()


def emphasis(focus: Tensor) -> Tensor:
    """Returns the weight of tokens in a loss: 4 inside a subject, 7 on its outline, 1 elsewhere."""
    return 1 + 3 * focus


def _cover_of_tokens(focus: Tensor) -> Tensor:
    """Returns (N, 16): the mean of `focus` in each part of each token. focus: (T, rows, columns) in cells."""
    part = BLOCK // PARTS
    means = functional.avg_pool3d(focus[None], (SAMPLES, part, part))[0]
    _, rows, columns = means.shape
    means = means.view(-1, rows // PARTS, PARTS, columns // PARTS, PARTS)
    return means.transpose(2, 3).flatten(3).flatten(0, 2)


def _sigma(rng: Random, tokens: int) -> float:
    """Returns a random noise level that favours the important ranges.

    Half of the sampler's steps are above 0.975, where the layout of the whole video is decided. Outlines are drawn
    between 0.7 and 0.2.
    """
    kind = rng.random()
    if kind < 0.20:
        return rng.uniform(0.94, 1.0)
    if kind < 0.55:
        return rng.uniform(LOWEST, 1.0)
    shift = min(0.3 + 0.9 * math.sqrt(tokens / 1024), 1.7)
    return max(LOWEST, 1 / (1 + math.exp(-rng.gauss(shift, 1.0))))


def _coordinates(layout: Layout, times: Tensor) -> Tensor:
    """Returns (3, N): seconds, and y and x in pixels. times: (N,) in frames."""
    count = len(times) // (layout.rows * layout.columns)
    y = torch.arange(layout.rows).repeat_interleave(layout.columns).repeat(count) * float(TOKEN)
    x = torch.arange(layout.columns).repeat(layout.rows * count) * float(TOKEN)
    return torch.stack([times / layout.rate, y, x])


def _noised(sample: Sample, sigma: float, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the noisy tokens, their sigmas, and which of them count in the loss."""
    own = (1 - sample.pinned).clamp(max=sigma)
    level = torch.where(sample.pinned >= 1, CONDITION_NOISE * sigma**2, own)[:, None]
    keep = torch.where(sample.pinned >= 1, 1.0, 1 - own)[:, None]
    return keep * sample.latents + level * noise, own, (own == sigma).float()


def make_batch(rng: Random, layout: Layout, scales: Scales, pinned: bool, content: Content = everything) -> Batch:
    """Returns a random batch of `content`, with pinned frames if `pinned`."""
    pins = random_pins(rng, layout) if pinned else Pins()
    generator = torch.Generator().manual_seed(rng.randrange(2**30))
    inside = layout.rows * layout.columns * min(layout.kept, layout.latent_frames)
    front = layout.rows * layout.columns * len(_front(pins)[1])
    noises = [torch.randn((front + inside, LATENTS), generator=generator) for _ in range(layout.samples)]
    samples = [_sample(rng, layout, pins, scales, content, noise) for noise in noises]
    tokens, target, timestep, weight = [], [], [], []
    for sample, noise in zip(samples, noises, strict=True):
        sigma = _sigma(rng, layout.rows * layout.columns * layout.latent_frames)
        mixed, own, active = _noised(sample, sigma, noise)
        in_grid = torch.arange(len(active)) >= len(active) - inside
        tokens.append(mixed)
        target.append(noise - sample.latents)
        timestep.append(own * 1000)
        # An error in the velocity changes the picture by sigma times that error.
        weight.append(active * in_grid * emphasis(sample.focus) * (sigma + 0.25))
    times = torch.stack(timestep)
    return Batch(
        torch.stack(tokens),
        torch.stack(target),
        torch.stack([_coordinates(layout, sample.times) for sample in samples]),
        times if pinned else times[:, :1],
        torch.stack(weight),
        torch.stack([sample.places for sample in samples]),
        torch.stack([sample.focus for sample in samples]),
        torch.stack([sample.cover for sample in samples]),
        [sample.caption for sample in samples],
    )
