import threading
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from keyreel.video.job import Pixels
from keyreel.worker.encoder import DiscardedError, Encoder, Encoding

FRAMES = np.zeros((1, 2, 2, 3), np.uint8)
TIMEOUT = 30


class Film:
    """A writer in memory. gate: each write waits for it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.written: list[int] = []
        self.began = threading.Event()
        self.gate = threading.Semaphore(0)
        self.is_complete = False
        self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_complete = kind is None

    def write(self, frames: Pixels) -> None:
        self.began.set()
        assert self.gate.acquire(timeout=TIMEOUT)
        if self._error:
            raise self._error
        self.written.append(int(frames[0, 0, 0, 0]))


def result(video: Encoding) -> "Future[None]":
    """Returns how writing the video ended."""
    done: Future[Future[None]] = Future()
    video.when_done(done.set_result)
    return done.result(TIMEOUT)


def test_frames_are_written_while_more_are_drawn() -> None:
    film = Film()
    with Encoder() as encoder:
        with encoder.video("a", film) as video:
            for index in range(20):
                video.write(FRAMES + np.uint8(index))
        video.finish()
        assert not film.written  # the calls returned nevertheless
        film.gate.release(20)
        result(video).result()
    assert film.written == list(range(20))
    assert film.is_complete


def test_one_video_is_written_while_the_next_is_drawn() -> None:
    films = Film(), Film()
    with Encoder() as encoder:
        videos = []
        for name, film in zip("ab", films, strict=True):
            with encoder.video(name, film) as video:
                video.write(FRAMES)
            video.finish()
            videos.append(video)
        assert not any(film.written for film in films)
        for film, video in zip(films, videos, strict=True):
            film.gate.release()
            result(video).result()
    assert all(film.is_complete for film in films)


def test_only_so_many_bytes_of_all_videos_wait() -> None:
    first, second = Film(), Film()
    with Encoder(3 * FRAMES.nbytes) as encoder:
        with encoder.video("a", first) as video:
            video.write(FRAMES)
            video.write(FRAMES)
        video.finish()
        with encoder.video("b", second) as other:
            other.write(FRAMES)
            writing = threading.Thread(target=other.write, args=(FRAMES,))
            writing.start()
            writing.join(0.05)
            assert writing.is_alive()
            first.gate.release()
            writing.join(TIMEOUT)
            assert not writing.is_alive()
            first.gate.release()
            second.gate.release(2)
        other.finish()
        result(other).result()


def test_frames_larger_than_the_limit_are_written_one_by_one() -> None:
    film = Film()
    film.gate.release(3)
    with Encoder(1) as encoder:
        with encoder.video("a", film) as video:
            for _ in range(3):
                video.write(FRAMES)
        video.finish()
        result(video).result()
    assert len(film.written) == 3


def test_an_error_of_writing_is_raised_by_a_later_write() -> None:
    film = Film(OSError("disk full"))
    film.gate.release()
    with Encoder() as encoder, pytest.raises(OSError, match="disk full"), encoder.video("a", film) as video:
        video.write(FRAMES)
        assert result(video).exception()
        video.write(FRAMES)


def test_an_error_of_writing_ends_the_wait_for_room() -> None:
    film = Film(OSError("disk full"))
    with Encoder(1) as encoder, pytest.raises(OSError, match="disk full"), encoder.video("a", film) as video:
        video.write(FRAMES)
        threading.Timer(0.05, film.gate.release).start()
        video.write(FRAMES)


def test_an_error_of_drawing_discards_the_video() -> None:
    film = Film()
    with Encoder() as encoder:
        film.gate.release()
        with pytest.raises(RuntimeError, match="device"), encoder.video("a", film) as video:
            video.write(FRAMES)
            film.began.wait(TIMEOUT)
            raise RuntimeError("device")
        assert isinstance(result(video).exception(), DiscardedError)
    assert not film.is_complete


def test_a_drawn_video_can_be_discarded_and_the_others_go_on() -> None:
    films = Film(), Film(), Film()
    videos = []
    with Encoder() as encoder:
        for name, film in zip("abc", films, strict=True):
            with encoder.video(name, film) as video:
                video.write(FRAMES)
                video.write(FRAMES)
            video.finish()
            videos.append(video)
        films[0].began.wait(TIMEOUT)
        encoder.discard("a")  # is being written
        encoder.discard("b")  # waits
        encoder.discard("unknown")
        films[0].gate.release(2)
        films[2].gate.release(2)
        assert isinstance(result(videos[0]).exception(), DiscardedError)
        with pytest.raises(CancelledError):
            result(videos[1]).result()
        result(videos[2]).result()
    assert [len(film.written) for film in films] == [1, 0, 2]
    assert [film.is_complete for film in films] == [False, False, True]


def test_an_encoder_that_is_closed_finishes_nothing() -> None:
    film = Film()
    with Encoder() as encoder:
        with encoder.video("a", film) as video:
            video.write(FRAMES)
            video.write(FRAMES)
        film.gate.release(2)
    assert not film.is_complete
