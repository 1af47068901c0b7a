import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyreel.video.canvas import (
    SIZES,
    Grid,
    Size,
    drawn_frames,
    drawn_size,
    latent_shape,
    margins,
    nearest_aspect,
    output_size,
)

LTX, DEMO = Grid(32, 8), Grid(64, 8)


@pytest.mark.parametrize(
    ("resolution", "aspect", "size"),
    [
        ("720p", "16:9", Size(1280, 720)),
        ("720p", "9:16", Size(720, 1280)),
        ("480p", "16:9", Size(832, 480)),
        ("480p", "1:1", Size(480, 480)),
    ],
)
def test_output_sizes(resolution: str, aspect: str, size: Size) -> None:
    assert output_size(resolution, aspect, None) == size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "aspect"),
    [
        (Size(4000, 3000), "1:1"),
        (Size(1920, 1080), "16:9"),
        (Size(1080, 1920), "9:16"),
        (Size(3000, 2000), "16:9"),
        (Size(5, 4000), "9:16"),
    ],
)
def test_auto_takes_the_nearest_aspect_ratio(first: Size, aspect: str) -> None:
    assert nearest_aspect(first) == aspect
    assert output_size("480p", "auto", first) == SIZES["480p", aspect]


def test_auto_without_a_condition_is_16_by_9() -> None:
    assert output_size("480p", "auto", None) == Size(832, 480)


def test_drawn_sizes_are_multiples_of_the_grid() -> None:
    assert drawn_size(Size(1280, 720), LTX) == Size(1280, 736)
    assert drawn_size(Size(1280, 720), DEMO) == Size(1280, 768)
    assert margins(Size(1280, 736), Size(1280, 720)) == (0, 8)
    assert latent_shape(Size(1280, 736), 89, LTX) == (12, 23, 40)


@given(frames=st.integers(9, 161))
def test_drawn_frames_cover_the_video(frames: int) -> None:
    drawn = drawn_frames(frames, LTX)
    assert drawn % 8 == 1
    assert 0 <= drawn - frames < 8
