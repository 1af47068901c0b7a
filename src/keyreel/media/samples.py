"""Evenly spaced sample frames of a clip."""

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def evenly_spaced(total: int, count: int) -> list[int]:
    """Returns at most `count` of `total` frame numbers, evenly spaced, including the first and the last."""
    return sorted({round(number) for number in np.linspace(0, total - 1, min(count, total)).tolist()})


def sample_frames(path: Path, count: int) -> NDArray[np.uint8]:
    """Returns at most `count` frames of a generated, trusted video: (frames, height, width, 3), RGB."""
    with av.open(f"file:{path}", format="mov", options={"protocol_whitelist": "file"}) as container:
        stream = container.streams.video[0]
        wanted = set(evenly_spaced(stream.frames, count))
        frames = enumerate(container.decode(stream))
        return np.stack([frame.to_ndarray(format="rgb24") for index, frame in frames if index in wanted])
