"""Encodes frames to an MP4 that plays everywhere: H.264, 4:2:0, BT.709."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from numpy.typing import NDArray

from keyreel.media.atomic import replacing
from keyreel.media.frames import DETERMINISTIC, tag_colours, yuv_frame
from keyreel.video.canvas import Size

CONTAINER_OPTIONS = {
    # faststart puts the index before the frames, so that browsers play while they load. use_metadata_tags allows
    # metadata keys that iTunes does not define.
    "movflags": "+faststart+use_metadata_tags",
    # Leaves the library's version out of the file, so that equal frames give equal bytes.
    "fflags": "+bitexact",
}
CODEC_OPTIONS = {
    # Visually lossless, since many services encode the file again.
    "crf": "18",
    # Takes 7 s for 89 frames of 1280x720 on two shared cores. "veryfast" takes 3 s; its file is a quarter larger.
    "preset": "medium",
    **DETERMINISTIC,
}
BRAND_KEYS = {"major_brand", "minor_version", "compatible_brands"}


class Mp4Writer:
    """Writes frames to `path`. The file appears, complete, at the end of the `with` block; an exception discards it.

    rate: frames per second. Equal frames and metadata give equal bytes.
    """

    def __init__(self, path: Path, size: Size, rate: int, metadata: Mapping[str, str]) -> None:
        if size.width % 2 or size.height % 2:
            raise ValueError(f"A 4:2:0 video needs an even width and height, not {size}.")
        self.path = path
        self.size = size
        self.rate = rate
        self.metadata = metadata
        self.frames = 0
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            partial = stack.enter_context(replacing(self.path))
            self._container = stack.enter_context(av.open(str(partial), "w", format="mp4", options=CONTAINER_OPTIONS))
            self._container.metadata.update(self.metadata)
            self._stream = self._video_stream()
            self._container.start_encoding()
            stack.push(self._finish)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._resources.__exit__(kind, error, trace)
        finally:
            # x264's threads end with these objects. The traceback of an error may keep this writer for long.
            del self._container, self._stream

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Encodes the next frames: (n, height, width, 3), RGB."""
        if frames.shape[1:] != (self.size.height, self.size.width, 3):
            raise ValueError(f"Expected frames of {self.size}, not an array of shape {frames.shape}.")
        for pixels in frames:
            self._container.mux(self._stream.encode(self._frame(pixels)))
            self.frames += 1

    def _video_stream(self) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.rate, options=CODEC_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = self.size.width, self.size.height, "yuv420p"
        tag_colours(stream.codec_context)
        return stream

    def _frame(self, pixels: NDArray[np.uint8]) -> av.VideoFrame:
        return yuv_frame(pixels, self.frames, self.rate)

    def _finish(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        if not self.frames:
            raise ValueError("A video needs at least one frame.")
        self._container.mux(self._stream.encode())


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata that an Mp4Writer put into a file."""
    with av.open(f"file:{path}", format="mov", options={"protocol_whitelist": "file"}) as container:
        return {key: value for key, value in container.metadata.items() if key not in BRAND_KEYS}
