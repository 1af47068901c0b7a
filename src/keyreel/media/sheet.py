"""Contact sheets: frames of a video on one picture."""

import math
from pathlib import Path

import av
from PIL import Image, ImageDraw, ImageFont

from keyreel.media.atomic import replacing
from keyreel.media.frames import rgb_pixels
from keyreel.media.samples import evenly_spaced

GAP = 4


def contact_sheet(video: Path, out: Path, columns: int = 4, count: int = 12, width: int = 320) -> None:
    """Writes a PNG of `count` evenly spaced, numbered frames, each `width` pixels wide.

    The first and the last frame are included. A short video contributes each frame once. No limits apply: the video
    must be a trusted one that Keyreel generated.
    """
    wanted = set(evenly_spaced(_count_frames(video), count))
    with av.open(str(video)) as container:
        frames = enumerate(container.decode(video=0))
        tiles = [_tile(frame, index, width) for index, frame in frames if index in wanted]
    with replacing(out) as partial:
        _grid(tiles, min(columns, len(tiles))).save(partial, "PNG")


def _count_frames(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def _tile(frame: av.VideoFrame, index: int, width: int) -> Image.Image:
    height = round(width * frame.height / frame.width)
    tile = Image.fromarray(rgb_pixels(frame)).resize((width, height), Image.Resampling.LANCZOS)
    draw, font, text = ImageDraw.Draw(tile), ImageFont.load_default(14), str(index)
    left, top, right, bottom = draw.textbbox((GAP, GAP), text, font=font)
    draw.rectangle((left - 3, top - 3, right + 3, bottom + 3), fill="black")
    draw.text((GAP, GAP), text, font=font, fill="white")
    return tile


def _grid(tiles: list[Image.Image], columns: int) -> Image.Image:
    width, height = tiles[0].size
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for position, tile in enumerate(tiles):
        row, column = divmod(position, columns)
        sheet.paste(tile, (column * (width + GAP), row * (height + GAP)))
    return sheet
