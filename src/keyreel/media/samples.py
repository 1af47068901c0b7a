"""A few frames that stand for all of a clip."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def spread(total: int, count: int) -> list[int]:
    """At most `count` of `total` frame numbers, evenly spread, the first and the last among them."""
    return sorted({round(number) for number in np.linspace(0, total - 1, min(count, total)).tolist()})


def sample_frames(path: Path, count: int) -> NDArray[np.uint8]:
    """Frames of a video of our own making: (at most `count`, height, width, 3), RGB."""
    with av.open(f"file:{path}", format="mov", options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        wanted = set(spread(stream.frames, count))
        frames = enumerate(container.decode(stream))
        return np.stack([frame.to_ndarray(format="rgb24") for index, frame in frames if index in wanted])
