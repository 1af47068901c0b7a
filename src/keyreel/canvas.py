"""Pixel sizes: what the user gets, and what the model draws to get it.

A model draws sizes that are multiples of its spatial compression (32 for LTX-Video, 64 for the demo model). The
canvas is the user's size rounded up to such a multiple; the margin around it is cut off when the video is written.
"""

import math
from dataclasses import dataclass

from keyreel.recipes import TWO_PASSES, RecipeName
from keyreel.schema import AspectRatio, Resolution


@dataclass(frozen=True, slots=True)
class Size:
    """Pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Grid:
    """How many pixels (in each direction) and frames one latent cell of a model covers."""

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
    """The size that the user gets. `auto` takes the shape nearest to `first`, the first condition's displayed size."""
    if aspect == "auto":
        aspect = nearest_aspect(first) if first else "16:9"
    return SIZES[resolution, aspect]


def nearest_aspect(size: Size) -> AspectRatio:
    """The shape whose ratio differs least, as a factor."""
    ratio = math.log(size.width / size.height)
    return min(RATIOS, key=lambda aspect: abs(math.log(RATIOS[aspect]) - ratio))


def drawn_size(size: Size, grid: Grid) -> Size:
    """The smallest size that the model can draw and that holds `size`."""
    return Size(_round_up(size.width, grid.spatial), _round_up(size.height, grid.spatial))


def pass_sizes(size: Size, grid: Grid, recipe: RecipeName) -> tuple[Size, ...]:
    """The sizes that the model draws, pass by pass, to get `size`.

    A recipe of two passes draws two thirds of the size, rounded down to whole cells, and then twice that.
    """
    drawn = drawn_size(size, grid)
    if recipe not in TWO_PASSES:
        return (drawn,)
    width, height = (max(side * 2 // 3 // grid.spatial, 1) * grid.spatial for side in (drawn.width, drawn.height))
    return Size(width, height), Size(2 * width, 2 * height)


def drawn_frames(frames: int, grid: Grid) -> int:
    """The smallest number 8k+1 that holds `frames` (8 being the model's temporal compression)."""
    return _round_up(frames - 1, grid.temporal) + 1


def latent_shape(size: Size, frames: int, grid: Grid) -> tuple[int, int, int]:
    """(frames, height, width) in latent cells of a drawn size and number of frames."""
    return (frames - 1) // grid.temporal + 1, size.height // grid.spatial, size.width // grid.spatial


def margins(drawn: Size, size: Size) -> tuple[int, int]:
    """(left, top) pixels that are cut off to get `size` out of the middle of `drawn`."""
    return (drawn.width - size.width) // 2, (drawn.height - size.height) // 2


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
