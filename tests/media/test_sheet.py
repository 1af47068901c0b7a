from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keyreel.media.mp4 import Mp4Writer
from keyreel.media.sheet import contact_sheet
from keyreel.video.canvas import Size
from tests.media.videos import ramp


def sheet(folder: Path, frames: int, **options: int) -> Image.Image:
    video, out = folder / "a.mp4", folder / "a.png"
    with Mp4Writer(video, Size(64, 48), 25, {}) as writer:
        writer.write(np.stack(ramp(frames)))
    contact_sheet(video, out, **options)
    assert sorted(folder.iterdir()) == [video, out]
    with Image.open(out) as image:
        return image.convert("RGB")


def tile_levels(image: Image.Image, columns: int, rows: int) -> list[int]:
    """Returns the brightness of each tile at its lower right, away from the number."""
    pixels = np.asarray(image)
    width, height = (image.width + 4) // columns, (image.height + 4) // rows
    return [
        int(pixels[(row + 1) * height - 12, (column + 1) * width - 12, 0])
        for row in range(rows)
        for column in range(columns)
    ]


def test_tiles_are_evenly_spaced_from_first_to_last_frame(tmp_path: Path) -> None:
    image = sheet(tmp_path, 25, columns=3, count=6, width=80)
    assert image.size == (3 * 84 - 4, 2 * 64 - 4)
    shown = np.linspace(8, 248, 25)[[0, 5, 10, 14, 19, 24]]
    np.testing.assert_allclose(tile_levels(image, 3, 2), shown, atol=4)


def test_tiles_are_numbered(tmp_path: Path) -> None:
    image = sheet(tmp_path, 2, columns=2, count=2, width=80)
    first, second = image.crop((0, 0, 20, 24)), image.crop((84, 0, 104, 24))
    assert first.getextrema()[0] == (0, 255)
    assert first.tobytes() != second.tobytes()


@pytest.mark.parametrize(("frames", "count", "tiles"), [(1, 12, 1), (3, 12, 3), (9, 1, 1)])
def test_sheet_is_no_wider_than_its_tiles(tmp_path: Path, frames: int, count: int, tiles: int) -> None:
    image = sheet(tmp_path, frames, columns=4, count=count, width=80)
    assert image.width == tiles * 84 - 4
