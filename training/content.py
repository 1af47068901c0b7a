"""What a training clip shows: scenes, moving pictures and cross-fades, some of them in another look."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from training.autoencoder import BLOCK, CELL
from training.pictures import cross_fade, moving_picture, random_picture
from training.random_scenes import random_scene
from training.scenes import Anchor, Grid, Scene, anchored, draw, draw_backdrop, whereabouts
from training.text import FADE_WORDS

TOKEN = CELL * BLOCK  # pixels
SAMPLES = 4  # frames drawn per latent frame, two in each half
FADE_FRAMES = 24

Restyle = Callable[[Tensor], Tensor]  # maps pixels (3, ...) in [0, 1] to pixels of the same shape


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
