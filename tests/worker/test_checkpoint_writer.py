from collections.abc import Callable
from queue import SimpleQueue
from threading import Event

import numpy as np
import pytest

from keyreel.video.events import Checkpoint
from keyreel.worker.checkpoint_writer import CheckpointWriter

SOON = 0.001
LATE = 1000.0


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(0, step, lambda: np.zeros((1, 1, 1), np.float32))


def steps_into(written: "SimpleQueue[int]") -> Callable[[Checkpoint], None]:
    return lambda checkpoint: written.put(checkpoint.step)


def test_only_the_newest_checkpoint_is_written() -> None:
    written: SimpleQueue[int] = SimpleQueue()
    with CheckpointWriter(LATE, steps_into(written)) as writer:
        for step in range(1, 4):
            writer.offer(checkpoint(step))
        writer.write_newest()
        writer.write_newest()
    assert written.get_nowait() == 3
    assert written.empty()


def test_checkpoints_are_written_in_the_background() -> None:
    written: SimpleQueue[int] = SimpleQueue()
    is_slow, goes_on = Event(), Event()

    def write(checkpoint: Checkpoint) -> None:
        is_slow.set()
        goes_on.wait()
        written.put(checkpoint.step)

    with CheckpointWriter(SOON, write) as writer:
        writer.offer(checkpoint(1))
        is_slow.wait()
        for step in range(2, 5):
            writer.offer(checkpoint(step))  # returns although the disk is slow
        goes_on.set()
        assert [written.get(timeout=10), written.get(timeout=10)] == [1, 4]


def test_a_failed_write_does_not_end_the_writer(capsys: pytest.CaptureFixture[str]) -> None:
    written: SimpleQueue[int] = SimpleQueue()

    def write(checkpoint: Checkpoint) -> None:
        written.put(checkpoint.step)
        if checkpoint.step == 1:
            raise OSError("disk full")

    with CheckpointWriter(SOON, write) as writer:
        for step in (1, 2):
            writer.offer(checkpoint(step))
            assert written.get(timeout=10) == step
    assert "disk full" in capsys.readouterr().err


def test_a_writer_that_is_off_starts_no_thread() -> None:
    with CheckpointWriter(0, steps_into(SimpleQueue())) as writer:
        assert not writer._thread.is_alive()
