"""Pixel sizes: of the finished video, and of the canvas that the model draws.

A model draws sizes that are multiples of its spatial compression (32 for LTX-Video, 64 for the demo model). The
canvas is the video's size rounded up to such a multiple. The margins are cropped when the video is written.
"""

import math
from dataclasses import dataclass
from typing import Literal

from keyreel.video.recipes import TWO_PASSES, RecipeName

Resolution = Literal["480p", "720p"]
AspectRatio = Literal["16:9", "1:1", "9:16", "auto"]


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Grid:
    """A model's compression: the pixels (per side) and the frames that one latent cell covers."""

    spatial: int
    temporal: int


SIZES: dict[tuple[Resolution, AspectRatio], Size] = {
    ("480p", "16:9"): Size(832, 480),
    ("480p", "1:1"): Size(480, 480),
    ("480p", "9:16"): Size(480, 832),
    ("720p", "16:9"): Size(1280, 720),
    ("720p", "1:1"): Size(720, 720),
    ("720p", "9:16"): Size(720, 1280),
}
RATIOS: dict[AspectRatio, float] = {"16:9": 16 / 9, "1:1": 1.0, "9:16": 9 / 16}


def output_size(resolution: Resolution, aspect: AspectRatio, first: Size | None) -> Size:
    """Returns the video's size. `auto` takes the aspect ratio nearest to `first`, the size of the first condition."""
    if aspect == "auto":
        aspect = nearest_aspect(first) if first else "16:9"
    return SIZES[resolution, aspect]


def nearest_aspect(size: Size) -> AspectRatio:
    """Returns the aspect ratio nearest to that of `size` on a logarithmic scale."""
    ratio = math.log(size.width / size.height)
    return min(RATIOS, key=lambda aspect: abs(math.log(RATIOS[aspect]) - ratio))


def drawn_size(size: Size, grid: Grid) -> Size:
    """Returns the smallest size that the model can draw and that contains `size`."""
    return Size(_round_up(size.width, grid.spatial), _round_up(size.height, grid.spatial))


def pass_sizes(size: Size, grid: Grid, recipe: RecipeName) -> tuple[Size, ...]:
    """Returns the size that the model draws in each pass, for a video of `size`.

    A two-pass recipe first draws two thirds of the size, rounded down to whole cells, and then twice that.
    """
    drawn = drawn_size(size, grid)
    if recipe not in TWO_PASSES:
        return (drawn,)
    width, height = (max(side * 2 // 3 // grid.spatial, 1) * grid.spatial for side in (drawn.width, drawn.height))
    return Size(width, height), Size(2 * width, 2 * height)


def drawn_frames(frames: int, grid: Grid) -> int:
    """Returns the smallest 8k+1 that is at least `frames`, where 8 is the model's temporal compression."""
    return _round_up(frames - 1, grid.temporal) + 1


def latent_shape(size: Size, frames: int, grid: Grid) -> tuple[int, int, int]:
    """Returns (frames, height, width) in latent cells for a drawn size and number of frames."""
    return (frames - 1) // grid.temporal + 1, size.height // grid.spatial, size.width // grid.spatial


def margins(drawn: Size, size: Size) -> tuple[int, int]:
    """Returns the (left, top) pixels to crop to get `size` from the centre of `drawn`."""
    return (drawn.width - size.width) // 2, (drawn.height - size.height) // 2


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
