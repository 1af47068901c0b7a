"""Writes finished frames to videos in a thread of the engine process, so that the device need not wait for x264."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Condition
from types import TracebackType
from typing import Protocol, Self

from keyreel.video.job import Pixels

MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Bytes of frames that may wait in memory, of all videos together: 97 frames of 1280x720."""


class DiscardedError(Exception):
    """The video is no longer wanted."""


class Writer(Protocol):
    """Writes one video within its `with` block, such as `keyreel.media.mp4.Mp4Writer`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def write(self, frames: Pixels, /) -> None: ...


class Encoder:
    """Writes one video after the other, in the order in which they were begun."""

    def __init__(self, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._videos: dict[str, Encoding] = {}
        self._changed = Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for video in list(self._videos.values()):
            video.discard()
        self._thread.shutdown()

    @contextmanager
    def video(self, name: str, writer: Writer) -> Iterator["Encoding"]:
        """Begins a video. An exception in the block discards it; nothing of it is written after the block."""
        video = Encoding(writer, self._thread, self._has_room, self._changed)
        self._videos[name] = video
        video.when_done(lambda _: self._forget(name))
        try:
            yield video
        except BaseException:
            video.discard()
            video.wait()
            raise

    def discard(self, name: str) -> None:
        """Stops writing this video, if that goes on."""
        if video := self._videos.get(name):
            video.discard()

    def _has_room(self, size: int) -> bool:
        waiting = sum(video.waiting for video in self._videos.values())
        return waiting == 0 or waiting + size <= self._max_bytes

    def _forget(self, name: str) -> None:
        with self._changed:
            del self._videos[name]
            self._changed.notify_all()


class Encoding:
    """One video on its way into its file. waiting: bytes of its frames that are not written yet."""

    def __init__(
        self, writer: Writer, thread: ThreadPoolExecutor, has_room: Callable[[int], bool], changed: Condition
    ) -> None:
        self.waiting = 0
        self._frames: SimpleQueue[Pixels | None] = SimpleQueue()
        self._is_discarded = False
        self._has_room = has_room
        self._changed = changed
        self._written = thread.submit(self._write_all, writer)

    def write(self, frames: Pixels) -> None:
        """Has frames written. Waits while too many wait. Raises the error of an earlier call's frames."""
        with self._changed:
            self._changed.wait_for(lambda: self._written.done() or self._has_room(frames.nbytes))
            self.waiting += frames.nbytes
        if self._written.done():
            self._written.result()
        self._frames.put(frames)

    def finish(self) -> None:
        """Says that there are no more frames. `when_done` tells when all are written."""
        self._frames.put(None)

    def when_done(self, call: Callable[["Future[None]"], None]) -> None:
        """Calls, in some thread, with the result: the error of writing, or DiscardedError or CancelledError."""
        self._written.add_done_callback(call)

    def discard(self) -> None:
        if not self._written.cancel():
            self._is_discarded = True
            self._frames.put(None)

    def wait(self) -> None:
        wait([self._written])

    def _write_all(self, writer: Writer) -> None:
        with writer:
            while (frames := self._frames.get()) is not None:
                self._raise_if_discarded()
                writer.write(frames)
                with self._changed:
                    self.waiting -= frames.nbytes
                    self._changed.notify_all()
            self._raise_if_discarded()

    def _raise_if_discarded(self) -> None:
        if self._is_discarded:
            raise DiscardedError


DISCARDED = (DiscardedError, CancelledError)
