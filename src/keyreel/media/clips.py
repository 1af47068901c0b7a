"""Decodes frames of untrusted video files to pixels of a given size."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray
from PIL import Image

from keyreel.errors import Loc, RequestError
from keyreel.media.frames import rgb_pixels
from keyreel.media.images import CENTRE, Point, cover
from keyreel.media.limits import Limits
from keyreel.video.canvas import Size

EXTENSIONS = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".gif")
SIGNATURES = {
    "mov": re.compile(rb"....(ftyp|moov|mdat|wide|free|skip)", re.DOTALL),
    "matroska": re.compile(rb"\x1aE\xdf\xa3"),
    "gif": re.compile(rb"GIF8"),
}
"""The first bytes of a file, by FFmpeg demuxer. Playlists are left out: they refer to other files."""

CODECS = {
    "h264": "H.264",
    "hevc": "H.265",
    "av1": "AV1",
    "vp8": "VP8",
    "vp9": "VP9",
    "mpeg4": "MPEG-4",
    "prores": "ProRes",
    "mjpeg": "Motion JPEG",
    "gif": "GIF",
}
"""The codecs of clips, by FFmpeg's name. It has some 300 decoders, each of them code that a file could run."""
DECODERS = (*CODECS, "libdav1d", "libvpx", "libvpx-vp9")

COUNTED_PACKETS = 1024
"""Clips with at most this many packets are decoded to count their frames. Longer clips outlast any generated video."""


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """A clip as displayed: `size` takes its rotation and pixel aspect ratio into account."""

    size: Size
    frames: int
    seconds: float


def clip_info(path: Path, limits: Limits, loc: Loc) -> ClipInfo:
    """Reads the whole file and returns its facts, since headers may be wrong. Raises RequestError.

    Frames are counted by decoding, because not every packet holds a picture. In a clip of more than COUNTED_PACKETS
    packets, whose end is never used, the packets are counted instead.
    """
    with _open(path, limits, loc) as (container, stream):
        packets, seconds = _survey(container, stream)
    _check_duration(seconds, limits, loc)
    with _open(path, limits, loc) as (container, stream):
        frames = _frames(container, stream)
        first = next(frames, None)
        if first is None:
            raise _damaged(loc)
        count = packets if packets > COUNTED_PACKETS else 1 + sum(1 for _ in frames)
        return ClipInfo(_display_size(first, _pixel_aspect(stream)), count, seconds)


def read_clip(
    path: Path,
    size: Size,
    frames: Sequence[int],
    limits: Limits,
    loc: Loc,
    focus: Point = CENTRE,
    rate_factor: int = 0,
) -> NDArray[np.uint8]:
    """Returns the frames with the given numbers, which count from 0 in display order: (frames, height, width, 3), RGB.

    Each frame is cropped and scaled when it is decoded; focus, rate_factor: see `cover`. Raises RequestError if one is
    missing.
    """
    clip = np.empty((len(frames), size.height, size.width, 3), np.uint8)
    wanted, count = np.array(frames), max(frames) + 1
    found = 0
    with _open(path, limits, loc) as (container, stream):
        aspect = _pixel_aspect(stream)
        for number, frame in enumerate(islice(_frames(container, stream), count)):
            if (matches := wanted == number).any():
                clip[matches] = _pixels(frame, aspect, size, focus, rate_factor)
            found = number + 1
    if found < count:
        raise _damaged(loc, f"Only {found} of the clip's {count} frames can be read.")
    return clip


@contextmanager
def _open(path: Path, limits: Limits, loc: Loc) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Opens a file and its video stream. Converts decoding errors in the block to RequestError."""
    # FFmpeg must not guess the demuxer: it might take the file for a playlist and open other files.
    demuxer = _demuxer(path, loc)
    options = {
        "protocol_whitelist": "file",
        "codec_whitelist": ",".join(DECODERS),  # FFmpeg opens decoders when it examines the streams
        "max_pixels": str(limits.pixels),
    }
    try:
        with av.open(f"file:{path}", format=demuxer, options=options, metadata_errors="replace") as container:
            stream = _video_stream(container, loc)
            _check_pixels(stream, limits, loc)
            stream.codec_context.options = {"max_pixels": str(limits.pixels)}
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(loc) from error


def _demuxer(path: Path, loc: Loc) -> str:
    with path.open("rb") as file:
        head = file.read(16)
    for name, signature in SIGNATURES.items():
        if signature.match(head):
            return name
    raise _unsupported(loc, "The file is not a video in a supported format.")


def _video_stream(container: InputContainer, loc: Loc) -> av.VideoStream:
    for stream in container.streams.video:
        # The cover art of an audio file is a video stream with one picture.
        if stream.codec_context is not None and not stream.disposition & stream.disposition.attached_pic:
            _check_codec(stream.codec_context.codec.canonical_name, loc)
            return stream
    raise _unsupported(loc, "The file has no video stream that can be decoded.")


def _check_codec(name: str, loc: Loc) -> None:
    if name not in CODECS:
        raise RequestError.at(
            loc,
            f"The clip's codec {name} is not supported. Encode it with one of {', '.join(CODECS.values())}.",
            "unsupported_video_format",
            supported_formats=EXTENSIONS,
        )


def _survey(container: InputContainer, stream: av.VideoStream) -> tuple[int, float]:
    """Returns the number of displayed packets and the seconds from the start of the first to the end of the last."""
    shown = [
        (packet.pts, packet.pts + (packet.duration or 0))
        for packet in container.demux(stream)
        if packet.pts is not None and not packet.is_discard
    ]
    if not shown or stream.time_base is None:
        return 0, 0.0
    ticks = max(end for _, end in shown) - min(start for start, _ in shown)
    return len(shown), float(ticks * stream.time_base)


def _frames(container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Yields frames in display order, up to the first that cannot be decoded."""
    try:
        for packet in container.demux(stream):
            yield from packet.decode()
    except av.FFmpegError:
        # The decoder holds several frames at once. Those before the broken one can still be read.
        with suppress(av.FFmpegError):
            yield from stream.codec_context.decode(None)


def _pixels(frame: av.VideoFrame, pixel_aspect: float, size: Size, focus: Point, rate_factor: int) -> NDArray[np.uint8]:
    """Returns a frame upright, cropped and scaled: (height, width, 3)."""
    a, b, c, d = _orientation(frame)
    turned = abs(b) > abs(a)
    rgb = Image.fromarray(rgb_pixels(frame))
    x, y = (c, b) if turned else (a, d)
    stored = (1 - focus[0] if x < 0 else focus[0], 1 - focus[1] if y < 0 else focus[1])
    stored = stored[::-1] if turned else stored
    stored_size = Size(size.height, size.width) if turned else size
    fitted = np.asarray(cover(rgb, stored_size, pixel_aspect, stored, rate_factor))
    if turned:
        fitted = fitted.swapaxes(0, 1)
    return fitted[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1]


def _orientation(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Returns (a, b, c, d) of the display matrix: pixel (x, y) is displayed at (ax + cy, bx + dy)."""
    try:
        side_data = cast("Mapping[str, SideData]", frame.side_data)
        matrix = side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV does not know the type of some other side data. The frame still has the angle, but not the mirroring.
        angle = math.radians(-frame.rotation)
        a, b = round(math.cos(angle)), round(math.sin(angle))
        return a, b, -b, a
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    return a, b, c, d


def _display_size(frame: av.VideoFrame, pixel_aspect: float) -> Size:
    width, height = max(1, round(frame.width * pixel_aspect)), frame.height
    a, b, *_ = _orientation(frame)
    return Size(height, width) if abs(b) > abs(a) else Size(width, height)


def _pixel_aspect(stream: av.VideoStream) -> float:
    return float(stream.sample_aspect_ratio or 1)


def _check_pixels(stream: av.VideoStream, limits: Limits, loc: Loc) -> None:
    if stream.width * stream.height > limits.pixels:
        raise RequestError.at(
            loc,
            f"The clip's frames have {stream.width}x{stream.height} pixels, more than the "
            f"{limits.pixels} allowed here. Scale it down.",
            "image_too_large",
            max_pixels=limits.pixels,
        )


def _check_duration(seconds: float, limits: Limits, loc: Loc) -> None:
    if seconds > limits.video_seconds:
        raise RequestError.at(
            loc,
            f"The clip lasts {seconds:.1f} seconds; at most {limits.video_seconds:g} are allowed. Shorten it.",
            "video_duration_too_long",
            max_duration=limits.video_seconds,
            provided_duration=seconds,
        )


def _unsupported(loc: Loc, message: str) -> RequestError:
    return RequestError.at(
        loc,
        f"{message} Send MP4, MOV, WebM, MKV or GIF.",
        "unsupported_video_format",
        supported_formats=EXTENSIONS,
    )


def _damaged(loc: Loc, message: str = "The clip cannot be decoded.") -> RequestError:
    return RequestError.at(
        loc,
        f"{message} The file is damaged or incomplete: send it again, or re-encode it.",
        "video_load_error",
    )
