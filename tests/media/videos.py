"""Writes small real videos, and the pixels for them."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from keyreel.media.limits import Limits

LIMITS = Limits(
    image_bytes=1 << 20,
    video_bytes=1 << 20,
    lora_bytes=1,
    pixels=1_000_000,
    picture_memory=1 << 30,
    video_seconds=60,
    tokens=1,
)
LOC = ("videos", 0, "video_url")
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

Pixels = NDArray[np.uint8]


def solid(colour: tuple[int, int, int], width: int = 64, height: int = 48) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def quarters(width: int = 64, height: int = 48) -> Pixels:
    """Returns red and green above blue and white, so that every rotation and mirroring looks different."""
    pixels = solid(WHITE, width, height)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    return pixels


def ramp(frames: int) -> list[Pixels]:
    """Returns grey frames with levels rising evenly from 8 to 248."""
    return [solid((v, v, v)) for v in np.linspace(8, 248, frames).astype(int).tolist()]


def corners(pixels: Pixels) -> list[tuple[int, int, int]]:
    """Returns the nearest pure colour of each quarter, in reading order."""
    height, width, _ = pixels.shape
    points = [(y, x) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return [pure(pixels[point]) for point in points]


def pure(pixel: Pixels) -> tuple[int, int, int]:
    """Returns the colour with each channel rounded to 0 or 255."""
    r, g, b = (255 if value > 127 else 0 for value in pixel.tolist())
    return r, g, b


def write_video(
    path: Path,
    frames: Iterable[Pixels],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: Iterable[int] | None = None,
    rotation: dict[str, Any] | None = None,
    pixel_aspect: Fraction | None = None,
    colour: dict[str, int] | None = None,
    tagged: bool = True,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Writes a video. times: in 1/25 s. colour: the matrix and range to convert to, as arguments of reformat().

    tagged: whether the file names its matrix and range.
    """
    frames = list(frames)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = pixel_format
        if colour and tagged:
            stream.codec_context.colorspace = colour["dst_colorspace"]
            stream.codec_context.color_range = colour["dst_color_range"]
        if rotation:
            stream.set_display_rotation(**rotation)
        if pixel_aspect:
            stream.sample_aspect_ratio = pixel_aspect
        for time, pixels in zip(times or range(len(frames)), frames, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame = frame.reformat(format=pixel_format, threads=1, **(colour or {}))
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_gif(path: Path, frames: Iterable[Pixels]) -> Path:
    first, *others = map(Image.fromarray, frames)
    first.save(path, "GIF", save_all=True, append_images=others, duration=40)
    return path
