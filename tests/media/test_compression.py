from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from keyreel.media.compression import MAX_SIDE, compressed, round_trip
from keyreel.media.images import cover
from keyreel.video.canvas import Size
from tests.media.videos import BLUE, GREEN, RED, WHITE, corners, quarters

EXAMPLE = Path(__file__).parents[2] / "examples/balloon.png"


def as_lightricks_does(image: Image.Image, size: Size, rate_factor: int) -> NDArray[np.float32]:
    """Repeats the steps of Lightricks' scripts, whose results are floats: crop before, then blur, encode, resize."""
    pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)[None] / 255
    weights = torch.tensor([0.274069, 0.451863, 0.274069])
    kernel = (weights[:, None] * weights).expand(3, 1, 3, 3)
    blurred = functional.conv2d(functional.pad(pixels, (1, 1, 1, 1), "reflect"), kernel, groups=3)
    encoded = round_trip((blurred[0].movedim(0, -1) * 255).byte().numpy(), rate_factor)
    resized = functional.interpolate(
        torch.from_numpy(encoded).movedim(-1, 0)[None].float(), (size.height, size.width), mode="bilinear"
    )
    return np.asarray(resized[0].movedim(0, -1))


@pytest.mark.parametrize(("size", "box"), [(Size(832, 480), (16, 0, 1264, 720)), (Size(1280, 704), (0, 8, 1280, 712))])
def test_a_picture_is_compressed_as_by_lightricks(size: Size, box: tuple[int, int, int, int]) -> None:
    image = Image.open(EXAMPLE).convert("RGB")
    theirs = as_lightricks_does(image.crop(box), size, 29)
    ours = np.array(cover(image, size, rate_factor=29))
    mean_square = np.square(ours - theirs).mean()
    # 45 dB are measured. Compressing at the video's size gives 35 to 37.
    assert 10 * np.log10(255**2 / mean_square) > 42


def test_a_higher_rate_factor_loses_more() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    fine, rough = round_trip(noise, 1), round_trip(noise, 51)
    assert fine.shape == rough.shape == noise.shape
    assert np.abs(rough.astype(int) - noise).mean() > np.abs(fine.astype(int) - noise).mean()
    np.testing.assert_array_equal(round_trip(noise, 29), round_trip(noise, 29))


def test_compression_keeps_colours() -> None:
    assert corners(round_trip(quarters(96, 64), 1)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (2, 2)),
        ((7, 9), (8, 8)),
        ((30, 22), (30, 22)),
        ((2 * MAX_SIDE, 40), (MAX_SIDE, 20)),
    ],
)
def test_pictures_of_any_size_are_compressed(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (200, 100, 50))
    result = compressed(image, 29, (0, 0, *size))
    assert result.size == expected
    np.testing.assert_allclose(np.asarray(result).mean((0, 1)), (200, 100, 50), atol=3)
