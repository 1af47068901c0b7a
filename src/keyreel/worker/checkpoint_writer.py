"""Writes checkpoints beside the denoising, in the engine process."""

import traceback
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from keyreel.video.events import Checkpoint


class CheckpointWriter:
    """Writes the newest checkpoint every few seconds, in a thread of its own, so that the device never waits.

    every: seconds; 0 writes none. write: called with a checkpoint. Its errors are only printed: the video does not need
    its checkpoints.
    """

    def __init__(self, every: float, write: Callable[[Checkpoint], None]) -> None:
        self._every = every
        self._write = write
        self._newest: deque[Checkpoint] = deque(maxlen=1)
        self._writing = Lock()
        self._closed = Event()
        self._thread = Thread(target=self._run, name="checkpoints")

    def __enter__(self) -> Self:
        if self._every:
            self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._every:
            self._thread.join()

    def offer(self, checkpoint: Checkpoint) -> None:
        """Replaces the checkpoint that waits to be written."""
        self._newest.append(checkpoint)

    def write_newest(self) -> None:
        """Writes the checkpoint that waits, if there is one, and returns when that is done."""
        with self._writing:
            if not self._newest:
                return
            try:
                self._write(self._newest.pop())
            except Exception:  # noqa: BLE001
                traceback.print_exc()

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            self.write_newest()
