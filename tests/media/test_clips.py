from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from hypothesis import given, settings
from hypothesis import strategies as st

from keyreel.errors import RequestError
from keyreel.media.clips import clip_info, read_clip
from keyreel.media.limits import Limits
from keyreel.video.canvas import Size
from tests.media.videos import (
    BLUE,
    GREEN,
    LIMITS,
    LOC,
    RED,
    WHITE,
    Pixels,
    corners,
    quarters,
    ramp,
    solid,
    write_gif,
    write_video,
)

SIZE = Size(64, 48)
CODECS = {
    "a.mp4": ("libx264", "yuv420p"),
    "a.mov": ("libx265", "yuv420p"),
    "a.webm": ("libvpx-vp9", "yuv420p"),
    "a.mkv": ("libvpx", "yuv420p"),
    "b.mkv": ("mjpeg", "yuvj420p"),
    "b.mp4": ("libsvtav1", "yuv420p"),
}
QUIET = {"libx265": {"x265-params": "log-level=none"}, "libsvtav1": {"svtav1-params": "lp=1", "preset": "12"}}


def read(path: Path, frames: int, size: Size = SIZE) -> Pixels:
    return read_clip(path, size, range(frames), LIMITS, LOC)


def problem_type(path: Path, limits: Limits = LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        clip_info(path, limits, LOC)
    with pytest.raises(RequestError):
        read_clip(path, SIZE, range(1000), limits, LOC)
    (problem,) = caught.value.problems
    assert problem.loc == LOC
    return problem.type


@pytest.mark.slow
@pytest.mark.parametrize("name", CODECS)
def test_all_frames_are_read_in_order(tmp_path: Path, name: str) -> None:
    codec, pixel_format = CODECS[name]
    path = tmp_path / name
    # In another process: for root, SVT-AV1 gives real-time priority to the calling thread and thus to its children.
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        write = partial(write_video, codec=codec, pixel_format=pixel_format, options=QUIET.get(codec))
        executor.submit(write, path, ramp(20)).result()
    info = clip_info(path, LIMITS, LOC)
    assert (info.size, info.frames) == (SIZE, 20)
    assert info.seconds == pytest.approx(0.8, abs=0.05)
    means = read(path, 20).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, np.linspace(8, 248, 20), atol=4)


def test_frames_are_read_by_number(tmp_path: Path) -> None:
    """The numbers may be in any order and repeat."""
    write_video(tmp_path / "a.mp4", ramp(20))
    whole = read(tmp_path / "a.mp4", 20)
    numbers = [7, 3, 3, 19]
    np.testing.assert_array_equal(read_clip(tmp_path / "a.mp4", SIZE, numbers, LIMITS, LOC), whole[numbers])
    with pytest.raises(RequestError, match="Only 20 of the clip's 21 frames"):
        read_clip(tmp_path / "a.mp4", SIZE, [20, 0], LIMITS, LOC)


def test_animated_gif_is_a_clip(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "a.gif", [solid(RED), solid(GREEN), solid(BLUE)])
    assert clip_info(path, LIMITS, LOC).frames == 3
    assert [corners(frame)[0] for frame in read(path, 3)] == [RED, GREEN, BLUE]


def test_first_frames_can_be_read_alone(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramp(20))
    np.testing.assert_array_equal(read(path, 5), read(path, 20)[:5])


def test_variable_frame_rate_neither_repeats_nor_drops_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", ramp(6), times=[0, 1, 2, 50, 51, 53])
    info = clip_info(path, LIMITS, LOC)
    assert info.frames == 6
    assert info.seconds == pytest.approx(54 / 25, abs=0.05)
    np.testing.assert_allclose(read(path, 6).mean(axis=(1, 2, 3)), np.linspace(8, 248, 6), atol=4)


def test_packets_that_cannot_be_decoded_are_not_counted(tmp_path: Path) -> None:
    """A clip cut without re-encoding may begin with frames whose key frame was cut off."""
    options = {"g": "10", "bf": "0", "sc_threshold": "0"}
    whole = write_video(tmp_path / "whole.mkv", ramp(20), options=options)
    path = tmp_path / "cut.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size][1:]
        for packet in packets:
            packet.stream = stream
            out.mux(packet)
    assert (len(packets), clip_info(path, LIMITS, LOC).frames) == (19, 10)
    np.testing.assert_allclose(read(path, 10).mean(axis=(1, 2, 3)), np.linspace(8, 248, 20)[10:], atol=4)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_display_matrix_is_applied(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    rotation = {"degrees": degrees, "hflip": mirrored}
    path = write_video(tmp_path / "a.mp4", [quarters()] * 2, rotation=rotation)
    shown = np.rot90(quarters(), degrees // 90)
    shown = shown[:, ::-1] if mirrored else shown
    info = clip_info(path, LIMITS, LOC)
    assert info.size == Size(shown.shape[1], shown.shape[0])
    (first,) = read(path, 1, info.size)
    assert corners(first) == corners(shown)
    left = read_clip(path, Size(16, info.size.height), [0], LIMITS, LOC, (0, 0.5))[0]
    low = read_clip(path, Size(info.size.width, 12), [0], LIMITS, LOC, (0.5, 1))[0]
    assert corners(left) == corners(shown[:, : shown.shape[1] // 4])
    assert corners(low) == corners(shown[-shown.shape[0] // 4 :])


def test_non_square_pixels_are_corrected(tmp_path: Path) -> None:
    pixels = solid(WHITE, 64, 64)
    pixels[16:48, 24:40] = RED  # 32 high, 16 wide: shown as a square
    path = write_video(tmp_path / "a.mp4", [pixels], pixel_aspect=Fraction(2, 1))
    assert clip_info(path, LIMITS, LOC).size == Size(128, 64)
    (first,) = read(path, 1, Size(64, 64))
    ys, xs = np.nonzero(first[:, :, 1] < 128)
    assert abs(np.ptp(ys) - np.ptp(xs)) <= 2


@pytest.mark.parametrize("size", [Size(96, 32), Size(32, 96)])
def test_clip_is_cropped_and_not_stretched(tmp_path: Path, size: Size) -> None:
    pixels = solid(WHITE, 160, 120)
    pixels[40:80, 60:100] = RED
    (first,) = read(write_video(tmp_path / "a.mp4", [pixels]), 1, size)
    ys, xs = np.nonzero(first[:, :, 1] < 128)
    assert abs(np.ptp(ys) - np.ptp(xs)) <= 2


@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709])
@pytest.mark.parametrize("range_", [ColorRange.MPEG, ColorRange.JPEG])
def test_colour_matrix_and_range_are_applied(tmp_path: Path, matrix: Colorspace, range_: ColorRange) -> None:
    colour = {"dst_colorspace": int(matrix), "dst_color_range": int(range_)}
    pixels = solid((200, 60, 30))
    path = write_video(tmp_path / "a.mp4", [pixels], colour=colour, options={"crf": "1"})
    np.testing.assert_allclose(read(path, 1)[0, 24, 32], (200, 60, 30), atol=4)


@pytest.mark.parametrize(("width", "height", "matrix"), [(64, 48, "ITU601"), (1280, 720, "ITU709")])
def test_colour_matrix_of_an_untagged_clip_depends_on_its_size(
    tmp_path: Path, width: int, height: int, matrix: str
) -> None:
    pixels = solid((200, 60, 30), width, height)
    path = tmp_path / "a.mkv"
    colour = {"dst_colorspace": int(Colorspace[matrix])}
    write_video(path, [pixels], colour=colour, options={"crf": "0"}, tagged=False)
    np.testing.assert_allclose(read(path, 1)[0, 24, 32], (200, 60, 30), atol=4)


def test_truncated_file_has_its_remaining_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(20)]
    content = write_video(tmp_path / "whole.mp4", frames, container_options={"movflags": "faststart"}).read_bytes()
    path = tmp_path / "part.mp4"
    path.write_bytes(content[: len(content) // 2])
    count = clip_info(path, LIMITS, LOC).frames
    assert 1 <= count < 20
    assert read(path, count).shape == (count, 48, 64, 3)
    with pytest.raises(RequestError, match=f"Only {count} of the clip's 20 frames"):
        read(path, 20)


def test_file_without_its_index_is_refused(tmp_path: Path) -> None:
    content = write_video(tmp_path / "whole.mp4", ramp(5)).read_bytes()
    path = tmp_path / "part.mp4"
    path.write_bytes(content[: len(content) // 2])
    assert problem_type(path) == "video_load_error"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"ID3\x04"])
def test_other_files_are_unsupported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert problem_type(path) == "unsupported_video_format"


@pytest.mark.parametrize(
    ("codec", "pixel_format"),
    [("ffv1", "yuv420p"), ("mpeg2video", "yuv420p"), ("png", "rgb24"), ("qtrle", "rgb24"), ("snow", "yuv420p")],
)
def test_other_codecs_are_unsupported(tmp_path: Path, codec: str, pixel_format: str) -> None:
    path = tmp_path / ("a.mov" if pixel_format == "rgb24" else "a.mkv")
    write_video(path, ramp(3), codec=codec, pixel_format=pixel_format, options={"strict": "-2"})
    with pytest.raises(RequestError) as caught:
        clip_info(path, LIMITS, LOC)
    (problem,) = caught.value.problems
    assert (problem.loc, problem.type) == (LOC, "unsupported_video_format")
    assert f"codec {codec} is not supported" in problem.message
    assert "H.264" in problem.message


def test_audio_file_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        samples.sample_rate, samples.pts = 48_000, 0
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    assert problem_type(path) == "unsupported_video_format"


def _playlists(target: str) -> dict[str, str]:
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{target}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "dash": f"<?xml version='1.0'?><MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>",
    }


@pytest.mark.parametrize("kind", _playlists(""))
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mov"])
def test_playlists_are_unsupported(tmp_path: Path, kind: str, suffix: str) -> None:
    video = write_video(tmp_path / "secret.mp4", ramp(5))
    for target in (str(video), f"file://{video}", "http://127.0.0.1:9/a.ts"):
        path = tmp_path / f"playlist{suffix}"
        path.write_text(_playlists(target)[kind])
        assert problem_type(path) == "unsupported_video_format"


def test_playlist_that_begins_like_an_mp4_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\0\0\0\x0cftypisom" + _playlists("http://127.0.0.1:9/a.ts")["hls"].encode())
    assert problem_type(path) == "video_load_error"


def test_too_long_clip_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", ramp(2), times=[0, 25 * 61])
    with pytest.raises(RequestError) as caught:
        clip_info(path, LIMITS, LOC)
    (problem,) = caught.value.problems
    assert problem.type == "video_duration_too_long"
    assert problem.context["max_duration"] == 60
    assert problem.context["provided_duration"] == pytest.approx(61, abs=0.1)


def test_clip_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramp(2))
    limits = replace(LIMITS, pixels=64 * 48 - 1)
    assert problem_type(path, limits) == "image_too_large"


def test_clip_ends_where_its_frames_exceed_the_pixel_limit(tmp_path: Path) -> None:
    """The header announces small frames only; the decoder stops at the larger ones."""
    small = write_video(tmp_path / "small.mkv", [solid(RED)] * 3, codec="mjpeg", pixel_format="yuvj420p")
    large = write_video(tmp_path / "large.mkv", [solid(BLUE, 640, 480)] * 3, codec="mjpeg", pixel_format="yuvj420p")
    path = tmp_path / "both.mkv"
    with av.open(str(small)) as first, av.open(str(large)) as second, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(first.streams.video[0])
        for offset, source in enumerate((first, second)):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.pts = packet.dts = (packet.pts or 0) + offset * 120
                    packet.stream = stream
                    out.mux(packet)
    limits = replace(LIMITS, pixels=100 * 100)
    assert clip_info(path, LIMITS, LOC).frames == 6
    assert clip_info(path, limits, LOC).frames == 3


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_video(tmp_path_factory.mktemp("sample") / "a.mp4", [quarters(16, 16)] * 3).read_bytes()


@settings(max_examples=60)
@given(st.data())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, sample: bytes, data: st.DataObject
) -> None:
    content = bytearray(sample)
    for position, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(sample) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[position] = value
    path = tmp_path_factory.getbasetemp() / "broken"
    path.write_bytes(content[: data.draw(st.integers(0, len(sample)))])
    with suppress(RequestError):
        info = clip_info(path, LIMITS, LOC)
        assert read(path, info.frames).shape == (info.frames, 48, 64, 3)
