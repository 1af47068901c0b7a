"""Makes a picture look like a frame of a compressed clip, as the clips were that the models were trained on.

The steps are those of Lightricks' `crf_compressor.py` and `load_image_to_tensor_with_resize_and_crop`: the picture is
blurred a little, then encoded with H.264 as a video of one frame, all at its own size.
"""

from fractions import Fraction
from itertools import chain

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from keyreel.media.frames import DETERMINISTIC, rgb_pixels, tag_colours, yuv_frame

MAX_SIDE = 4096
"""Pixels. Larger pictures are scaled down first: x264 takes some 25 bytes for a pixel, and no side over 16,384."""
_GAUSSIAN = (0.274069, 0.451863, 0.274069)
BLUR = ImageFilter.Kernel((3, 3), np.outer(_GAUSSIAN, _GAUSSIAN).ravel().tolist())
"""A Gaussian with a standard deviation of 1 pixel."""
_RATE = 25
"""Frames per second. Any value will do: a rate factor applies to each frame alike, unlike a target size in bytes."""


def compressed(image: Image.Image, rate_factor: int, box: tuple[float, float, float, float]) -> Image.Image:
    """Returns the part of the picture in `box`, blurred and compressed. rate_factor: x264's, from 1 to 51.

    Its size is that of the box, made even.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, MAX_SIDE / max(width, height))
    size = _even(width * scale), _even(height * scale)
    part = image.resize(size, Image.Resampling.LANCZOS, box).filter(BLUR)
    return Image.fromarray(round_trip(np.asarray(part), rate_factor))


def round_trip(pixels: NDArray[np.uint8], rate_factor: int) -> NDArray[np.uint8]:
    """Encodes a picture with H.264, decodes it and returns the result: (height, width, 3), RGB, even sizes."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)  # noqa: S101
    frame = yuv_frame(pixels, 0, _RATE)
    encoder.width, encoder.height = frame.width, frame.height
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, _RATE)
    encoder.options = DETERMINISTIC | {"crf": str(rate_factor), "preset": "veryfast"}
    tag_colours(encoder)
    decoder = av.CodecContext.create("h264", "r")
    packets = chain(encoder.encode(frame), encoder.encode(None), [None])
    (decoded,) = [each for packet in packets for each in decoder.decode(packet)]
    return rgb_pixels(decoded)


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)
