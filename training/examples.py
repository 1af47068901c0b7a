"""Draws the example pictures: bold shapes that survive the demo model's coarse latents."""

import argparse
import math
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFilter

SIZE = (1280, 720)
SCALE = 2  # pictures are drawn larger and then reduced, for smooth edges
RGB = tuple[int, int, int]


def _sky(top: RGB, bottom: RGB, horizon: float) -> Image.Image:
    """Returns a vertical gradient that reaches its lower colour at the horizon (a share of the height)."""
    width, height = SIZE[0] * SCALE, SIZE[1] * SCALE
    column = Image.new("RGB", (1, height))
    for y in range(height):
        share = min(1.0, y / (height * horizon))
        low, high = bottom, top
        column.putpixel((0, y), tuple(round(h + (b - h) * share) for h, b in zip(high, low, strict=True)))
    return column.resize((width, height))


def _disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: RGB) -> None:
    x, y, r = centre[0] * SCALE, centre[1] * SCALE, radius * SCALE
    draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _polygon(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: RGB) -> None:
    draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill=colour)


def _hills(draw: ImageDraw.ImageDraw, base: float, height: float, waves: tuple[float, float], colour: RGB) -> None:
    """Draws rolling hills from `base` (pixels from the top) to the bottom. waves: frequency and phase."""
    line = [
        (
            x,
            base - height * (0.6 * math.sin(waves[0] * x / 200 + waves[1]) + 0.4 * math.sin(waves[0] * x / 83)),
        )
        for x in range(0, SIZE[0] + 9, 8)
    ]
    _polygon(draw, [*line, (SIZE[0], SIZE[1]), (0, SIZE[1])], colour)


def _finish(image: Image.Image) -> Image.Image:
    return image.resize(SIZE, Image.Resampling.LANCZOS)


def _glow(image: Image.Image, centre: tuple[float, float], radius: float, colour: RGB) -> Image.Image:
    """Returns the image with a soft light around a point."""
    mask = Image.new("L", image.size)
    x, y, r = (value * SCALE for value in (*centre, radius * 0.6))
    ImageDraw.Draw(mask).ellipse((x - r, y - r, x + r, y + r), fill=190)
    mask = mask.filter(ImageFilter.GaussianBlur(radius * SCALE / 2.5))
    return Image.composite(Image.new("RGB", image.size, colour), image, mask)


def sunrise() -> Image.Image:
    """Returns the sun over the sea, with its path of light on the water."""
    image = _sky((66, 103, 178), (255, 190, 120), 0.62)
    sun, horizon = (640.0, 340.0), 450.0
    image = _glow(image, sun, 300, (255, 226, 150))
    draw = ImageDraw.Draw(image)
    _disc(draw, sun, 120, (255, 246, 196))
    _polygon(draw, [(0, 380), (180, 300), (340, 390), (470, 450), (0, 450)], (112, 88, 140))
    _polygon(draw, [(1280, 350), (1130, 280), (960, 400), (850, 450), (1280, 450)], (98, 76, 132))
    _polygon(draw, [(0, horizon), (1280, horizon), (1280, 720), (0, 720)], (28, 74, 128))
    for row in range(6):
        y, half = horizon + 14 + row * 46, 130 - row * 8
        _polygon(
            draw,
            [(640 - half, y), (640 + half, y), (640 + half - 26, y + 22), (640 - half + 26, y + 22)],
            (255, 205, 130),
        )
    return _finish(image)


def night() -> Image.Image:
    """Returns a full moon over snowy mountains and a dark valley."""
    image = _sky((8, 12, 44), (52, 62, 128), 0.75)
    moon = (930.0, 190.0)
    image = _glow(image, moon, 260, (120, 130, 205))
    draw = ImageDraw.Draw(image)
    rng = Random(4)
    for _ in range(46):
        _disc(draw, (rng.uniform(0, 1280), rng.uniform(0, 330)), rng.uniform(2, 5), (235, 238, 255))
    _disc(draw, moon, 105, (250, 246, 222))
    for x, height, width in ((250, 330, 330), (640, 270, 300), (1060, 300, 330)):
        _polygon(draw, [(x - width, 640), (x, 640 - height), (x + width, 640)], (44, 52, 104))
        cap = [(x, 640 - height), (x - width * 0.32, 640 - height * 0.68), (x - 30, 640 - height * 0.76)]
        cap += [(x + 20, 640 - height * 0.62), (x + width * 0.3, 640 - height * 0.7)]
        _polygon(draw, cap, (214, 222, 248))
    _hills(draw, 600, 36, (1.0, 0.5), (18, 24, 54))
    _hills(draw, 660, 24, (1.4, 2.0), (8, 12, 30))
    return _finish(image)


def balloon() -> Image.Image:
    """Returns a hot-air balloon over green hills at noon."""
    image = _sky((62, 146, 232), (206, 234, 252), 0.8)
    draw = ImageDraw.Draw(image)
    for x, y in ((230, 170), (1040, 250)):
        for shift, radius in ((-70, 44), (0, 66), (72, 48)):
            _disc(draw, (x + shift, y), radius, (250, 252, 255))
    _hills(draw, 560, 50, (0.8, 1.0), (112, 172, 92))
    _hills(draw, 630, 40, (1.1, 3.0), (62, 138, 70))
    centre, size = (640.0, 250.0), 185.0
    bands = ((1.0, (224, 52, 48)), (0.66, (250, 204, 62)), (0.30, (224, 52, 48)))
    for width, colour in bands:
        box = (centre[0] - size * width, centre[1] - size, centre[0] + size * width, centre[1] + size)
        draw.ellipse(tuple(value * SCALE for value in box), fill=colour)
    _polygon(draw, [(600, 425), (680, 425), (668, 490), (612, 490)], (250, 204, 62))
    _polygon(draw, [(602, 488), (678, 488), (668, 548), (612, 548)], (110, 66, 34))
    return _finish(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (sunrise, night, balloon):
        picture().save(folder / f"{picture.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
