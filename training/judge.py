"""Tells what a video shows by simple measurements that do not know how training clips are drawn."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.measure import label
from skimage.morphology import isotropic_opening
from torch import Tensor
from torch.nn import functional

from training.scenes import COLOURS

SIDE = 96  # pixels, side of the templates
APART = 0.3  # distance from the background's colour from which on a pixel belongs to a subject, in RGB of [0, 1]
SMALLEST = 0.004  # share of the frame from which on something counts as a subject
MOVED = 20.0  # pixels
HAIR = 4.0  # pixels, half the width of lines and specks that do not count as part of a shape
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Seen:
    """What a video shows. The subject's fields are None if no subject stands out."""

    background: str
    colour: str | None
    shape: str | None
    direction: str | None


def _turned(count: int, radii: tuple[float, ...] = (1.0,)) -> Points:
    """Returns corners at equal angles from the top, with the radii in turn."""
    angles = (2 * math.pi * i / count for i in range(count))
    return [(math.sin(a) * radii[i % len(radii)], -math.cos(a) * radii[i % len(radii)]) for i, a in enumerate(angles)]


BAR = 1 / 3
POLYGONS: dict[str, Points] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": _turned(3),
    "star": _turned(10, (1.0, 0.45)),
    "diamond": [(0, -1), (0.88, 0), (0, 1), (-0.88, 0)],
    "cross": [
        *((-BAR, -1), (BAR, -1), (BAR, -BAR), (1, -BAR), (1, BAR), (BAR, BAR)),
        *((BAR, 1), (-BAR, 1), (-BAR, BAR), (-1, BAR), (-1, -BAR), (-BAR, -BAR)),
    ],
}
# Discs, (x, y, radius): the first is filled, the second is cut out of it.
DISCS: dict[str, list[tuple[float, float, float]]] = {
    "circle": [(0, 0, 1)],
    "ring": [(0, 0, 1), (0, 0, 0.49)],
    "moon": [(0, 0, 1), (0.51, -0.1, 0.81)],
}


@cache
def template(shape: str) -> Tensor:
    """Returns the shape's mask, stretched over a square (SIDE, SIDE)."""
    image = Image.new("1", (2 * SIDE, 2 * SIDE))
    draw = ImageDraw.Draw(image)
    for fill, (x, y, radius) in enumerate(DISCS.get(shape, [])):
        corners = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse([(0.9 * value + 1) * SIDE for value in corners], fill=1 - fill)
    if shape in POLYGONS:
        draw.polygon([((0.9 * x + 1) * SIDE, (0.9 * y + 1) * SIDE) for x, y in POLYGONS[shape]], fill=1)
    return _boxed(torch.from_numpy(np.array(image)))


def _boxed(mask: Tensor) -> Tensor:
    """Returns the covered part of a mask (H, W), stretched over a square."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
    return functional.interpolate(box[None, None], (SIDE, SIDE), mode="bilinear", antialias=True)[0, 0] > 0.5


def nearest_colour(pixels: Tensor) -> str:
    """Returns the name of the palette colour nearest to the median. pixels: (3, N)."""
    median = pixels.median(1).values
    return min(COLOURS, key=lambda name: float((median - torch.tensor(COLOURS[name])).square().sum()))


def nearest_shape(mask: Tensor) -> str:
    """Returns the name of the shape that overlaps a mask (H, W) best, both stretched over a square."""
    boxed = _boxed(mask)

    def overlap(shape: str) -> float:
        other = template(shape)
        return float((boxed & other).sum() / (boxed | other).sum())

    return max((*POLYGONS, *DISCS), key=overlap)


def look(video: Tensor) -> Seen:
    """Returns what a video shows.

    video: (F, 3, H, W) in [0, 1], with at most one subject in front of a plain background.
    """
    border = torch.cat([video[..., :12, :].flatten(2), video[..., -12:, :].flatten(2)], 2)
    ground = border.transpose(0, 1).flatten(1)
    apart = (video - ground.median(1).values.view(1, 3, 1, 1)).square().sum(1).sqrt() > APART
    frame, subject = _most_visible(apart)
    if subject.float().mean() < SMALLEST:
        return Seen(nearest_colour(ground), None, None, None)
    colour = nearest_colour(video[frame][:, subject])
    return Seen(nearest_colour(ground), colour, nearest_shape(subject), _direction(apart))


def _most_visible(apart: Tensor) -> tuple[int, Tensor]:
    """Returns a frame in which the whole subject is visible, and the subject's mask.

    It is the frame nearest to the middle in which the edge does not cut the subject, or else the middle. A star that
    the edge cuts can look like a triangle, to a person as well. apart: (F, H, W).
    """
    middle = len(apart) // 2
    for frame in sorted(range(len(apart)), key=lambda frame: abs(frame - middle)):
        subject = _largest(apart[frame])
        inner = subject[1:-1, 1:-1].sum()
        if subject.float().mean() >= SMALLEST and inner == subject.sum():
            return frame, subject
    return middle, _largest(apart[middle])


def _largest(mask: Tensor) -> Tensor:
    """Returns the largest connected part of a mask (H, W), without thin lines, which would stretch its box."""
    parts = torch.from_numpy(label(isotropic_opening(mask.numpy(), HAIR)))
    sizes = parts.flatten().bincount()
    sizes[0] = 0
    return (parts > 0) & (parts == sizes.argmax())


def _direction(apart: Tensor) -> str | None:
    """Returns where the subject moves in the middle half; at the ends it may have left the frame. apart: (F, H, W)."""
    first, last = apart[len(apart) // 4], apart[3 * len(apart) // 4]
    if not (first.any() and last.any()):
        return None
    shift = last.nonzero().float().mean(0) - first.nonzero().float().mean(0)
    if shift.abs().max() < MOVED / 2:
        return "still"
    across = bool(shift[1].abs() > shift[0].abs())
    return (("left", "right") if across else ("up", "down"))[int(shift[int(across)] > 0)]


def signal_to_noise(made: Tensor, real: Tensor) -> float:
    """Returns the peak signal-to-noise ratio of pictures in [0, 1], in dB."""
    return float(-10 * torch.log10((made - real).square().mean()))


def edge_steps(frames: Tensor, token: int, corner: tuple[int, int] = (0, 0)) -> tuple[float, float]:
    """Returns the mean step between two pixels along the edges of tokens and elsewhere, in grey levels of 255.

    frames: (F, 3, H, W) in [0, 1]. token: pixels of a token's side. corner: how many pixels above and to the left of
    the frame the first token begins.
    """
    at, elsewhere = [], []
    for axis, before in zip((2, 3), corner, strict=True):
        steps = frames.diff(dim=axis).abs().movedim(axis, 0).flatten(1).mean(1) * 255
        is_edge = (torch.arange(1, len(steps) + 1) + before) % token == 0
        at.append(steps[is_edge].mean())
        elsewhere.append(steps[~is_edge].mean())
    return float(sum(at) / 2), float(sum(elsewhere) / 2)
