"""Still pictures of many kinds, and clips made of them: a slow camera move, or a cross-fade.

They teach the transformer to carry over any pinned picture, and the decoder to draw more than flat shapes.
"""

import math
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from training.random_scenes import random_place, random_scene
from training.scenes import COLOURS, Grid, draw, draw_backdrop

SKIMAGE_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "camera.png")
SKLEARN_PHOTOGRAPHS = ("china.jpg",)
HELD_OUT = ("coffee.png", "flower.jpg")
MARGIN = 1.25  # size of a source picture relative to the frame: the camera needs room to move


def _folders() -> list[Path]:
    """Returns the folders of photographs in the installed packages."""
    folders = []
    try:
        import skimage

        folders.append(Path(skimage.__file__).parent / "data")
    except ImportError:
        print("scikit-image is not installed: its photographs are skipped")
    try:
        import sklearn

        folders.append(Path(sklearn.__file__).parent / "datasets" / "images")
    except ImportError:
        print("scikit-learn is not installed: its photographs are skipped")
    return folders


def load_picture(path: Path) -> Tensor:
    """Returns the picture, (3, H, W) in [0, 1]."""
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array).movedim(-1, 0).contiguous()


@cache
def photographs(names: tuple[str, ...] = SKIMAGE_PHOTOGRAPHS + SKLEARN_PHOTOGRAPHS) -> tuple[Tensor, ...]:
    """Returns the free photographs that come with scikit-image and scikit-learn, as far as these are installed."""
    paths = [folder / name for folder in _folders() for name in names]
    return tuple(load_picture(path) for path in paths if path.exists())


def _resize(picture: Tensor, rows: int, columns: int) -> Tensor:
    return functional.interpolate(picture[None], (rows, columns), mode="bilinear", antialias=True)[0].clamp(0, 1)


def _photograph(rng: Random, rows: int, columns: int) -> Tensor:
    photo = rng.choice(photographs())
    limit = min(photo.shape[1] / rows, photo.shape[2] / columns)
    scale = limit * rng.uniform(0.5, 1.0)
    height, width = int(rows * scale), int(columns * scale)
    top, left = rng.randint(0, photo.shape[1] - height), rng.randint(0, photo.shape[2] - width)
    crop = _resize(photo[:, top : top + height, left : left + width], rows, columns)
    if rng.random() < 0.5:
        crop = crop.flip(-1)
    if rng.random() < 0.3:
        crop = crop[torch.tensor(rng.sample(range(3), 3))]
    return (crop * rng.uniform(0.7, 1.2)).clamp(0, 1)


def _noise(rng: Random, rows: int, columns: int) -> Tensor:
    """Returns coloured clouds: a few octaves of smooth noise."""
    generator = torch.Generator().manual_seed(rng.randrange(2**30))
    total = torch.zeros(3, rows, columns)
    for octave in range(rng.randint(1, 5)):
        size = (2 + 2**octave, 2 + 2**octave * columns // rows + 1)
        field = torch.randn((1, 3, *size), generator=generator)
        smooth = functional.interpolate(field, (rows, columns), mode="bicubic", align_corners=True)[0]
        total = total + smooth * 0.6**octave
    centre = torch.tensor(rng.choice(list(COLOURS.values()))).view(3, 1, 1)
    return torch.sigmoid(total * rng.uniform(0.5, 2.0) + 2 * (centre - 0.5))


def _collage(rng: Random, rows: int, columns: int, cell: int) -> Tensor:
    """Returns a place, or a background with several shapes on it."""
    grid = Grid(rows * cell, columns * cell, cell)
    if rng.random() < 0.4:
        return draw_backdrop(random_place(rng, grid), grid)
    scene = random_scene(rng, grid, 0.0)
    picture = draw(scene, grid, torch.zeros(1))[:, 0]
    for _ in range(rng.randint(0, 4)):
        extra = random_scene(rng, grid, 0.0)
        layer = draw(extra, grid, torch.zeros(1))[:, 0]
        ground = draw_backdrop(extra.backdrop, grid)
        shift = (rng.randrange(rows), rng.randrange(columns))
        cover = ((layer - ground).abs().amax(0, keepdim=True) * 4).clamp(0, 1)
        picture = torch.lerp(picture, layer.roll(shift, (1, 2)), cover.roll(shift, (1, 2)))
    return picture


def random_picture(rng: Random, rows: int, columns: int, cell: int) -> Tensor:
    """Returns a random picture of any kind, (3, rows, columns) in [0, 1]. cell: pixels per sample."""
    kind = rng.choices(("photo", "noise", "collage"), (0.4 if photographs() else 0.0, 0.2, 0.4))[0]
    if kind == "photo":
        return _photograph(rng, rows, columns)
    return _noise(rng, rows, columns) if kind == "noise" else _collage(rng, rows, columns, cell)


def camera(picture: Tensor, rows: int, columns: int, path: Tensor) -> Tensor:
    """Returns views of a picture, (3, T, h, w). path: (T, 3), zoom, shift x and shift y; zoom 1 shows all of it."""
    theta = torch.zeros(len(path), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = path[:, 0]
    theta[:, :, 2] = path[:, 1:]
    where = functional.affine_grid(theta, [len(path), 3, rows, columns], align_corners=False)
    pictures = picture[None].expand(len(path), -1, -1, -1)
    views = functional.grid_sample(pictures, where, mode="bilinear", padding_mode="reflection", align_corners=False)
    return views.transpose(0, 1)


CAMERA_WORDS: dict[str, tuple[str, ...]] = {
    "still": ("a still picture", "a picture", "the camera does not move"),
    "in": ("slow zoom in", "the camera moves closer"),
    "out": ("slow zoom out", "the camera moves away"),
    "pan right": ("pan right", "the camera moves to the right"),
    "pan left": ("pan left", "the camera moves to the left"),
}


def camera_path(move: str, times: Tensor, amount: float) -> Tensor:
    """Returns the path of a camera move, (T, 3). times: (T,) in [0, 1]. amount: 1 for a clip of about 90 frames."""
    rest = 1 / MARGIN
    zoom, shift = torch.full_like(times, rest), torch.zeros_like(times)
    reach = (1 - rest) * amount
    if move in ("in", "out"):
        zoom = 1 - reach * (times if move == "in" else 1 - times)
    elif move != "still":
        shift = reach * (2 * times - 1) * (1.0 if move == "pan right" else -1.0)
    return torch.stack([zoom, shift, torch.zeros_like(times)], 1)


def moving_picture(rng: Random, grid: Grid, times: Tensor, frames: int) -> tuple[Tensor, str]:
    """Returns a picture under a slow camera, (3, T, rows, columns) in [0, 1], and its caption. times: (T,)."""
    rows, columns = math.ceil(grid.rows * MARGIN), math.ceil(grid.columns * MARGIN)
    picture = random_picture(rng, rows, columns, grid.cell)
    move = rng.choices(list(CAMERA_WORDS), (8, 1.5, 1, 0.8, 0.8))[0]
    views = camera(picture, grid.rows, grid.columns, camera_path(move, times, min(1.0, frames / 89)))
    return views, rng.choice(CAMERA_WORDS[move])


def cross_fade(pictures: list[Tensor], marks: list[float], times: Tensor) -> Tensor:
    """Returns a smooth change from each picture (3, h, w) at its mark to the next, (3, T, h, w)."""
    frames = []
    for time in times.tolist():
        after = next((i for i, mark in enumerate(marks) if mark > time), len(marks))
        if after in (0, len(marks)):
            frames.append(pictures[min(after, len(marks) - 1)])
            continue
        share = (time - marks[after - 1]) / (marks[after] - marks[after - 1])
        frames.append(torch.lerp(pictures[after - 1], pictures[after], share * share * (3 - 2 * share)))
    return torch.stack(frames, 1)
