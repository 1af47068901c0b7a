import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from keyreel.media.clips import clip_info, read_clip
from keyreel.media.mp4 import Mp4Writer, read_metadata
from keyreel.video.canvas import Size
from tests.media.videos import BLUE, GREEN, LIMITS, LOC, RED, WHITE, Pixels, corners, quarters, ramp, solid
from tests.worker.processes import threads

SIZE = Size(64, 48)


def write(path: Path, frames: list[Pixels], rate: int = 25, metadata: dict[str, str] | None = None) -> Path:
    height, width, _ = frames[0].shape
    with Mp4Writer(path, Size(width, height), rate, metadata or {}) as writer:
        writer.write(np.stack(frames))
    return path


@pytest.mark.parametrize("rate", [1, 24, 25, 60])
@pytest.mark.parametrize("count", [1, 2, 41])
def test_frames_have_exact_times_at_a_constant_rate(tmp_path: Path, rate: int, count: int) -> None:
    path = write(tmp_path / "a.mp4", ramp(count), rate)
    info = clip_info(path, LIMITS, LOC)
    assert (info.size, info.frames) == (SIZE, count)
    assert info.seconds == pytest.approx(count / rate)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == count
        assert stream.average_rate == Fraction(rate)
        assert stream.time_base
        times = [(frame.pts or 0) * stream.time_base for frame in container.decode(video=0)]
    assert times == [Fraction(i, rate) for i in range(count)]


def test_frames_are_read_back_in_order(tmp_path: Path) -> None:
    frames = read_clip(write(tmp_path / "a.mp4", ramp(20)), SIZE, range(20), LIMITS, LOC)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), np.linspace(8, 248, 20), atol=3)


def test_batches_of_any_length_give_the_same_file(tmp_path: Path) -> None:
    frames = np.stack(ramp(9))
    with Mp4Writer(tmp_path / "a.mp4", SIZE, 25, {}) as writer:
        for batch in (frames[:1], frames[1:1], frames[1:8], frames[8:]):
            writer.write(batch)
    assert (tmp_path / "a.mp4").read_bytes() == write(tmp_path / "b.mp4", list(frames)).read_bytes()


def test_file_is_h264_in_bt709_with_the_index_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", ramp(3))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == 1
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE, (0, 0, 0), (200, 60, 30)])
def test_colours_are_kept(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    path = write(tmp_path / "a.mp4", [solid(colour)])
    np.testing.assert_allclose(read_clip(path, SIZE, range(1), LIMITS, LOC)[0, 24, 32], colour, atol=3)


def test_colours_are_stored_as_bt709(tmp_path: Path) -> None:
    """Reads the planes without Keyreel's reader. Red has luma 63 in limited-range BT.709 and 81 in BT.601."""
    with av.open(str(write(tmp_path / "a.mp4", [solid(RED)]))) as container:
        (frame,) = container.decode(video=0)
        y, u, v = (bytes(plane)[0] for plane in frame.planes)
    assert (y, u, v) == pytest.approx((63, 102, 240), abs=1)


def test_metadata_is_read_back(tmp_path: Path) -> None:
    metadata = {"title": "Fuchs 🦊", "comment": "two\nlines", "keyreel": '{"seed": 7, "prompt": "' + "x" * 9000 + '"}'}
    assert read_metadata(write(tmp_path / "a.mp4", ramp(1), metadata=metadata)) == metadata


@pytest.mark.slow
@pytest.mark.parametrize("size", [Size(64, 48), Size(160, 96), Size(832, 480)])
def test_equal_input_gives_equal_bytes(tmp_path: Path, size: Size) -> None:
    """Includes a size at which x264's default options vary (see CODEC_OPTIONS)."""
    frames = [np.roll(quarters(size.width, size.height), 3 * i, axis=1) for i in range(30)]
    files = {write(tmp_path / "a.mp4", frames, metadata={"title": "x"}).read_bytes() for _ in range(4)}
    assert len(files) == 1


def test_file_has_neither_time_nor_library_version(tmp_path: Path) -> None:
    content = write(tmp_path / "a.mp4", ramp(3)).read_bytes()
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        start = content.index(box) + 8
        assert content[start : start + 8] == bytes(8)  # creation and modification time
    assert b"Lavf" not in content


@pytest.mark.parametrize("size", [Size(63, 48), Size(64, 47)])
def test_odd_sizes_are_refused(tmp_path: Path, size: Size) -> None:
    with pytest.raises(ValueError, match="even width and height"):
        Mp4Writer(tmp_path / "a.mp4", size, 25, {})


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "a.mp4", SIZE, 25, {}) as writer:
        writer.write(np.stack(ramp(1)))
        with pytest.raises(ValueError, match="64x48"):
            writer.write(np.zeros((1, 64, 48, 3), np.uint8))


def test_video_without_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"), Mp4Writer(tmp_path / "a.mp4", SIZE, 25, {}):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("count", [0, 1, 60])
def test_exception_leaves_no_file(tmp_path: Path, error: type[BaseException], count: int) -> None:
    writer = Mp4Writer(tmp_path / "a.mp4", SIZE, 25, {})
    with pytest.raises(error):
        write_and_raise(writer, count, error)
    assert list(tmp_path.iterdir()) == []


def write_and_raise(writer: Mp4Writer, count: int, error: type[BaseException]) -> None:
    with writer:
        if count:
            writer.write(np.stack(ramp(count)))
        raise error


def test_an_error_leaves_no_threads(tmp_path: Path) -> None:
    """The error refers to the writer, by its traceback."""
    before = threads(os.getpid())
    large = Size(512, 512)  # x264 takes one thread for small frames
    with pytest.raises(KeyError) as caught, Mp4Writer(tmp_path / "a.mp4", large, 25, {}) as writer:
        writer.write(np.zeros((3, 512, 512, 3), np.uint8))
        assert threads(os.getpid()) > before
        raise KeyError
    assert threads(os.getpid()) == before
    assert caught.traceback


def test_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with Mp4Writer(path, SIZE, 25, {}) as writer:
        writer.write(np.stack([quarters()]))
        assert path.read_bytes() == b"old"
    assert corners(read_clip(path, SIZE, range(1), LIMITS, LOC)[0]) == [RED, GREEN, BLUE, WHITE]
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Mp4Writer(tmp_path / "no" / "a.mp4", SIZE, 25, {}):
        pass
