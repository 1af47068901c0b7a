import io
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from keyreel.errors import RequestError
from keyreel.media.images import cover, image_size, read_image
from keyreel.media.limits import Limits
from keyreel.settings import Settings
from keyreel.video.canvas import Size
from tests.media.videos import BLUE, GREEN, LIMITS, RED, WHITE, Pixels, corners, pure, quarters, solid

LOC = ("images", 0, "image_url")
SIZE = Size(64, 48)


def save(path: Path, image: Image.Image | Pixels, format: str = "PNG", **options: object) -> Path:  # noqa: A002
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, format, **options)
    return path


def read(path: Path, size: Size = SIZE) -> Pixels:
    return read_image(path, size, LIMITS, LOC)


def problem_type(path: Path, limits: Limits = LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        read_image(path, SIZE, limits, LOC)
    (problem,) = caught.value.problems
    assert problem.loc == LOC
    return problem.type


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "GIF"])
def test_format_is_detected_by_content_not_by_name(tmp_path: Path, format: str) -> None:  # noqa: A002
    path = save(tmp_path / "picture.txt", quarters(), format)
    pixels = read(path)
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    assert corners(pixels) == [RED, GREEN, BLUE, WHITE]


def test_the_first_of_several_pictures_of_a_camera_is_read(tmp_path: Path) -> None:
    """Pillow takes a JPEG with more than one picture for a format of its own, MPO."""
    second = Image.new("RGB", (64, 48), BLUE)
    path = save(tmp_path / "a.jpg", solid(RED), "MPO", save_all=True, append_images=[second])
    assert corners(read(path)) == [RED] * 4


def test_lossless_picture_of_the_wanted_size_is_unchanged(tmp_path: Path) -> None:
    original = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    np.testing.assert_array_equal(read(save(tmp_path / "a.png", original)), original)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_orientation_is_applied(tmp_path: Path, format: str, orientation: int) -> None:  # noqa: A002
    inverse = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: p.swapaxes(0, 1)[::-1],
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: p.swapaxes(0, 1)[:, ::-1],
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = np.ascontiguousarray(inverse[orientation](quarters()))
    path = save(tmp_path / "a", stored, format, exif=exif)
    assert image_size(path, LIMITS, LOC) == SIZE
    assert corners(read(path)) == [RED, GREEN, BLUE, WHITE]
    narrow, low = Size(16, 48), Size(64, 12)
    parts = [(narrow, (0, 0.5)), (narrow, (1, 0.5)), (low, (0.5, 0)), (low, (0.5, 1))]
    assert [corners(read_image(path, size, LIMITS, LOC, focus)) for size, focus in parts] == [
        [RED, RED, BLUE, BLUE],
        [GREEN, GREEN, WHITE, WHITE],
        [RED, GREEN, RED, GREEN],
        [BLUE, WHITE, BLUE, WHITE],
    ]


def test_the_crop_has_its_centre_at_the_focus_as_far_as_the_picture_goes(tmp_path: Path) -> None:
    pixels = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    path = save(tmp_path / "a.png", pixels)
    shown = [read_image(path, Size(20, 20), LIMITS, LOC, (x, 0.5))[0, :, 0] for x in (0, 0.05, 0.3, 0.5, 0.98)]
    assert [(row[0], row[-1]) for row in shown] == [(0, 19), (0, 19), (20, 39), (40, 59), (80, 99)]


def test_broken_exif_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 1, 8, 2, b"\0\xff\0\0\0\xff\0", chunk(b"eXIf", b"nonsense")))
    assert image_size(path, LIMITS, LOC) == Size(2, 1)
    assert read(path, Size(2, 1)).tolist() == [[[255, 0, 0], [0, 255, 0]]]


def test_size_needs_the_header_only(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(save(tmp_path / "whole.png", quarters()).read_bytes()[:60])
    assert image_size(path, LIMITS, LOC) == SIZE


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_become_white(tmp_path: Path, mode: str) -> None:
    rgba = Image.new("RGBA", (64, 48), (0, 0, 0, 0))
    rgba.paste((0, 0, 0, 255), (0, 0, 32, 48))
    pixels = read(save(tmp_path / "a.png", rgba.convert(mode) if mode != "P" else rgba.quantize(4)))
    assert pure(pixels[24, 8]) == (0, 0, 0)
    assert pure(pixels[24, 56]) == WHITE


def test_transparent_colour_of_an_opaque_mode_becomes_white(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", solid(GREEN), transparency=(0, 255, 0))
    assert (read(path) == 255).all()


def test_partly_transparent_pixels_are_blended_with_white(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGBA", (8, 8), (0, 0, 0, 51)))
    assert (read(path) == 204).all()


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    pixels = read(save(tmp_path / "a.png", Image.fromarray(values)), Size(4, 1))
    assert pixels.tolist() == [[[v] * 3 for v in (0, 1, 128, 255)]]


def test_sixteen_bit_colour_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 128 * 257, 0)))
    assert read(path, Size(1, 1)).tolist() == [[[255, 128, 0]]]


@pytest.mark.parametrize(("mode", "colour", "expected"), [("L", 100, (100,) * 3), ("1", 1, WHITE)])
def test_grey_and_bilevel_become_rgb(tmp_path: Path, mode: str, colour: int, expected: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.png", Image.new(mode, (8, 8), colour))
    assert tuple(read(path)[0, 0]) == expected


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (64, 48), (0, 255, 255, 0)), "JPEG")
    assert pure(read(path)[24, 32]) == RED


def test_colour_profile_is_applied(tmp_path: Path) -> None:
    """The profile is sRGB with the primaries of red and blue exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"swap").replace(b"bXYZ", b"rXYZ").replace(b"swap", b"bXYZ")
    path = save(tmp_path / "a.png", solid((200, 90, 40)), icc_profile=profile)
    np.testing.assert_allclose(read(path)[0, 0], (40, 90, 200), atol=2)


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 200])
def test_unusable_colour_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    path = save(tmp_path / "a.png", solid((200, 90, 40)), icc_profile=profile)
    assert tuple(read(path)[0, 0]) == (200, 90, 40)


def test_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    others = [Image.fromarray(solid(BLUE))]
    path = save(tmp_path / "a.gif", solid(RED), "GIF", save_all=True, append_images=others)
    assert pure(read(path)[24, 32]) == RED


@pytest.mark.parametrize("size", [Size(48, 48), Size(100, 30), Size(30, 100)])
def test_picture_is_cropped_centrally_and_not_stretched(tmp_path: Path, size: Size) -> None:
    """A centred square stays a centred square."""
    pixels = solid(WHITE, 200, 160)
    pixels[60:100, 80:120] = RED
    result = read(save(tmp_path / "a.png", pixels), size)
    assert result.shape == (size.height, size.width, 3)
    ys, xs = np.nonzero(result[:, :, 1] < 128)
    assert abs(np.ptp(ys) - np.ptp(xs)) <= 2
    assert abs(ys.mean() - (size.height - 1) / 2) <= 0.5
    assert abs(xs.mean() - (size.width - 1) / 2) <= 0.5


@given(st.tuples(*[st.integers(1, 300)] * 4), st.floats(0.01, 100))
def test_cover_accepts_every_shape(numbers: tuple[int, int, int, int], pixel_aspect: float) -> None:
    width, height, wanted_width, wanted_height = numbers
    image = Image.new("RGB", (width, height))
    assert cover(image, Size(wanted_width, wanted_height), pixel_aspect).size == (wanted_width, wanted_height)


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg/>", b"BM" + b"\0" * 60, b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_other_files_are_unsupported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert problem_type(path) == "unsupported_image_format"


def test_other_formats_of_pillow_are_unsupported(tmp_path: Path) -> None:
    assert problem_type(save(tmp_path / "a.png", quarters(), "TIFF")) == "unsupported_image_format"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "GIF"])
@pytest.mark.parametrize("part", [0.02, 0.5])
def test_truncated_file_is_refused(tmp_path: Path, format: str, part: float) -> None:  # noqa: A002
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    content = save(tmp_path / "whole", noise, format).read_bytes()
    path = tmp_path / "part"
    path.write_bytes(content[: max(12, int(len(content) * part))])
    assert problem_type(path) == "image_load_error"


def test_header_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(100_000, 100_000, 8, 2, b""))
    with pytest.raises(RequestError) as caught:
        image_size(path, LIMITS, LOC)
    (problem,) = caught.value.problems
    assert problem.type == "image_too_large"
    assert problem.context == {"max_pixels": LIMITS.pixels}
    assert problem_type(path) == "image_too_large"


def test_picture_with_the_maximum_number_of_pixels_is_accepted(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", solid(RED, 1000, 1000))
    assert read(path).shape == (48, 64, 3)


@pytest.mark.parametrize(("format", "pixels"), [("PNG", 900), ("WEBP", 450), ("AVIF", 450)])
def test_picture_that_would_take_too_much_memory_is_refused(tmp_path: Path, format: str, pixels: int) -> None:  # noqa: A002
    path = tmp_path / "a"
    Image.new("RGBA", (30, pixels // 30)).save(path, format)
    enough, little = (replace(LIMITS, picture_memory=memory) for memory in (9000, 8999))
    assert image_size(path, enough, LOC) == Size(30, pixels // 30)
    with pytest.raises(RequestError) as caught:
        image_size(path, little, LOC)
    (problem,) = caught.value.problems
    assert problem.loc == LOC
    assert problem.type == "image_too_large"
    assert problem.context == {"max_pixels": pixels - 1}
    assert f"in a {format}" in problem.message


MEASURE = """
import sys
from pathlib import Path
from keyreel.media.images import read_image
from keyreel.media.limits import Limits
from keyreel.settings import Settings
from keyreel.settings import Settings
from keyreel.video.canvas import Size

read_image(Path(sys.argv[1]), Size(1280, 720), Limits.from_settings(Settings()), ())
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(peak.split()[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_picture_with_16_bits_takes_less_memory_than_the_limit(tmp_path: Path) -> None:
    """It took 1.7 GiB."""
    path = tmp_path / "a.png"
    path.write_bytes(png(10_000, 10_000, 16, 0, bytes(10_000 * 20_001)))
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < Settings().max_picture_memory


def _samples() -> list[bytes]:
    samples = []
    for format in ("PNG", "JPEG", "WEBP", "AVIF", "GIF"):  # noqa: A001
        buffer = io.BytesIO()
        Image.fromarray(quarters(16, 16)).save(buffer, format)
        samples.append(buffer.getvalue())
    return samples


@pytest.mark.slow
@settings(max_examples=200)
@given(st.sampled_from(_samples()), st.data())
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, sample: bytes, data: st.DataObject
) -> None:
    content = bytearray(sample)
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(sample) - 1), st.integers(0, 255)), max_size=4)
    ):
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "broken"
    path.write_bytes(content[: data.draw(st.integers(0, len(sample)))])
    with suppress(RequestError):
        assert read(path).shape == (48, 64, 3)
