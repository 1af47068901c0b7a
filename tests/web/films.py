"""A small video, as a worker would make it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from keyreel.media.mp4 import Mp4Writer
from keyreel.store.records import NewFile
from keyreel.video.canvas import Size
from tests.server.live import LiveServer

FRAMES = 25


def film(path: Path, metadata: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Writes a video of a bar that moves from left to right."""
    pixels = np.full((FRAMES, 144, 256, 3), (24, 32, 72), np.uint8)
    for number, frame in enumerate(pixels):
        frame[:, 9 * number : 9 * number + 32] = (255, 122, 69)
    with Mp4Writer(path, Size(256, 144), 25, metadata) as writer:
        writer.write(pixels)
    return path


def stored(server: LiveServer, path: Path) -> dict[str, object]:
    """Stores a video on the server. Returns the `video` of an output."""
    content = path.read_bytes()
    new = NewFile(
        key_id="nobody",
        object="films/content",
        name=path.name,
        content_type="video/mp4",
        size=len(content),
    )
    file = server.call(server.services.store.files.add(new))
    server.call(server.services.objects.put(file.object, content, file.content_type))
    url = server.services.links.file_url(file)
    return {"url": url, "content_type": file.content_type, "file_name": file.name, "file_size": len(content)}
