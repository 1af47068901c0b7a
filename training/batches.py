"""Training batches: clips as latents, with some frames pinned, and with noise per token as in sampling."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from training.autoencoder import BLOCK, CELL, HALVES, LATENTS, LOTS, encode_cells
from training.pictures import cross_fade, moving_picture, random_picture
from training.scenes import (
    UNIT,
    WHEREABOUTS,
    Anchor,
    Grid,
    Scene,
    anchored,
    draw,
    draw_backdrop,
    random_scene,
    whereabouts,
)
from training.text import FADE_WORDS, vary

TOKEN = CELL * BLOCK  # pixels
SAMPLES = 4  # frames drawn per latent frame, two in each half
PARTS = 4  # parts of a token along each side, for the cover loss
CONDITION_NOISE = 0.15
LOWEST = 0.1  # the lowest sigma; the last of 30 sampling steps starts at 0.12
MARGIN = 2  # tokens between a subject's centre and the edge, at least; in large frames a quarter of the frame
FADE_FRAMES = 24

Restyle = Callable[[Tensor], Tensor]  # maps pixels (3, ...) in [0, 1] to pixels of the same shape


@dataclass(frozen=True)
class Scales:
    """mean, std: (78,), from the autoencoder's configuration."""

    mean: Tensor
    std: Tensor

    def normalise(self, latents: Tensor) -> Tensor:
        shape = (1, -1, 1, 1, 1)
        return (latents - self.mean.view(shape)) / self.std.view(shape)


@dataclass(frozen=True)
class Layout:
    """What the samples of a batch share: frames of rows x columns tokens, the clip's length and its rate per second.

    Only `kept` latent frames of the clip are drawn, at their true times, which costs a fraction of drawing all.
    """

    samples: int
    rows: int
    columns: int
    frames: int
    kept: int
    rate: float = 25.0

    @property
    def grid(self) -> Grid:
        return Grid(self.rows * TOKEN, self.columns * TOKEN, CELL)

    @property
    def latent_frames(self) -> int:
        return (self.frames - 1) // 8 + 1

    @property
    def seconds(self) -> float:
        return (self.frames - 1) / self.rate


@dataclass(frozen=True)
class Pins:
    """The pinned frames of a sample.

    stills: frames that are pinned as additional tokens in front.
    head: number of latent frames that are pinned in place, from frame 0 on.
    follow: latent frame from which a clip is pinned, its first two latent frames as tokens in front. None: no clip.
    """

    stills: tuple[int, ...] = ()
    head: int = 0
    follow: int | None = None

    @property
    def spans(self) -> list[tuple[float, float]]:
        """The first and last frame of each pinned range."""
        spans = [(float(still), float(still)) for still in self.stills]
        if self.head:
            spans.append((0.0, 8.0 * (self.head - 1)))
        if self.follow is not None:
            spans.append((8.0 * self.follow, 8.0 * self.follow + 16))
        return spans

    @property
    def marks(self) -> list[int]:
        """The frames at which pictures are pinned."""
        return [0] * (self.head > 0) + sorted(self.stills)


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


@dataclass(frozen=True)
class DrawnClip:
    """The frames of a sample and their caption.

    clip: (3, T, rows, columns) in [0, 1]. focus: (T, rows, columns), 1 where the subject is.
    places: (9, latent frames, rows, columns), one place per token, see `scenes.whereabouts`. None if the noise does not
    determine where the subject is.
    """

    clip: Tensor
    focus: Tensor
    caption: str
    places: Tensor | None = None


@dataclass(frozen=True)
class Shot:
    """What to draw: the frames (T,) of a layout, and its pins. anchor: where the noise places the subject."""

    layout: Layout
    pins: Pins
    frames: Tensor
    anchor: Anchor | None


Content = Callable[[Random, Shot], DrawnClip]
"""A function that draws the clip of a sample."""


def _scene(rng: Random, shot: Shot) -> DrawnClip:
    return _drawn(random_scene(rng, shot.layout.grid, shot.layout.seconds), shot)


def one_subject(rng: Random, shot: Shot) -> DrawnClip:
    """Draws the content of the first lesson: one shape in front of one colour."""
    while True:
        scene = random_scene(rng, shot.layout.grid, shot.layout.seconds)
        if len(scene.subjects) == 1 and scene.backdrop.kind == "plain":
            return _drawn(scene, shot)


def _drawn(scene: Scene, shot: Shot) -> DrawnClip:
    layout, times, places = shot.layout, shot.frames / shot.layout.rate, None
    if shot.anchor:
        scene = anchored(scene, shot.anchor, layout.seconds)
    clip = draw(scene, layout.grid, times)
    ground = draw_backdrop(scene.backdrop, layout.grid)
    if shot.anchor and scene.subjects:
        tokens = replace(layout.grid, cell=TOKEN)
        places = whereabouts(scene, tokens, times.view(-1, SAMPLES).mean(1))
    return DrawnClip(clip, ((clip - ground[:, None]).abs().amax(0) > 0.05).float(), scene.caption, places)


def _picture(rng: Random, shot: Shot) -> DrawnClip:
    layout = shot.layout
    clip, caption = moving_picture(rng, layout.grid, shot.frames / (layout.frames - 1), layout.frames)
    return DrawnClip(clip, torch.zeros_like(clip[0]), caption)


def _fade(rng: Random, shot: Shot) -> DrawnClip:
    layout, marks = shot.layout, shot.pins.marks
    grid, last = layout.grid, layout.frames - 1
    shown = [random_picture(rng, grid.rows, grid.columns, CELL) for _ in marks]
    clip = cross_fade(shown, [mark / last for mark in marks], shot.frames / last)
    caption = rng.choice(FADE_WORDS) if rng.random() < 0.5 else random_scene(rng, grid, layout.seconds).caption
    return DrawnClip(clip, torch.zeros_like(clip[0]), caption)


def everything(rng: Random, shot: Shot) -> DrawnClip:
    """Draws the base model's content: a scene, a moving picture or a cross-fade."""
    pins = shot.pins
    if not pins.marks:
        weights = (0.95, 0.05, 0.0) if pins.follow is None else (0.6, 0.4, 0.0)
    else:
        weights = (0.3, 0.15, 0.55) if len(pins.marks) > 1 else (0.45, 0.45, 0.10)
    return rng.choices((_scene, _picture, _fade), weights)[0](rng, shot)


def restyled(restyle: Restyle) -> Content:
    """Returns content like `everything` in another look, which fades in around the pinned frames."""

    def content(rng: Random, shot: Shot) -> DrawnClip:
        shown, frames = everything(rng, shot), shot.frames
        away = torch.stack(
            [torch.maximum(first - frames, frames - last) for first, last in shot.pins.spans] or [frames + 99]
        )
        share = (away.amin(0) / FADE_FRAMES).clamp(0, 1)
        share = share * share * (3 - 2 * share)
        return replace(shown, clip=torch.lerp(shown.clip, restyle(shown.clip), share.view(1, -1, 1, 1)))

    return content


def with_shape(shape: str) -> Content:
    """Returns content in which each subject has this shape, whatever the caption calls it."""

    def content(rng: Random, shot: Shot) -> DrawnClip:
        scene = random_scene(rng, shot.layout.grid, shot.layout.seconds)
        subjects = tuple(replace(subject, shape=shape) for subject in scene.subjects)
        return _drawn(replace(scene, subjects=subjects), shot)

    return content


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
