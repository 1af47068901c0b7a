"""Converts between RGB pixels and the frames of FFmpeg."""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from numpy.typing import NDArray

DETERMINISTIC = {
    # x264's output depends on the number of threads, whose default depends on the machine.
    "threads": "8",
    # With AVX2, x264's macroblock tree reads uninitialised memory if the width is not a multiple of 128. The output
    # then differs between runs, for example at 832x480. Up to SSE4.2 it equals that of the C code.
    "x264-params": "asm=SSE4.2",
}
"""Options of x264 with which equal frames give equal bytes."""
UNSPECIFIED_COLORSPACE = 2
EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
"""Converts between RGB and YUV at full chroma resolution, with the same result on every processor."""


def rgb_pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """Converts a whole frame, as stored, to RGB by its own matrix and range: (height, width, 3)."""
    matrix = None
    if frame.colorspace == UNSPECIFIED_COLORSPACE and not frame.format.is_rgb:
        # Players choose the matrix of an untagged file by its size.
        high_definition = frame.width >= 1280 or frame.height > 576
        matrix = Colorspace.ITU709 if high_definition else Colorspace.ITU601
    rgb = frame.reformat(format="rgb24", src_colorspace=matrix, interpolation=EXACT, threads=1)
    return np.asarray(rgb.to_ndarray(), np.uint8)


def yuv_frame(pixels: NDArray[np.uint8], index: int, rate: int) -> av.VideoFrame:
    """Converts pixels (height, width, 3), RGB, to 4:2:0 by BT.709. rate: frames per second."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24").reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
        threads=1,
    )
    frame.pts, frame.time_base = index, Fraction(1, rate)
    return frame


def tag_colours(context: av.VideoCodecContext) -> None:
    """Says in a stream how `yuv_frame` converts."""
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    context.color_range = ColorRange.MPEG
