import threading
from dataclasses import replace

import numpy as np
import pytest

from keyreel.engine.models import Model
from keyreel.engine.ranks import BrokenGroupError, Group
from keyreel.video.job import Pixels
from keyreel.worker.engine_process import MAX_PENDING_BATCHES, TorchEngine, background_writer

FRAMES = np.zeros((1, 2, 2, 3), np.uint8)


def test_frames_are_encoded_in_the_background() -> None:
    written: list[int] = []
    gate = threading.Event()

    def write(pixels: Pixels) -> None:
        gate.wait()
        written.append(int(pixels[0, 0, 0, 0]))

    with background_writer(write) as submit:
        for index in range(MAX_PENDING_BATCHES):
            submit(FRAMES + np.uint8(index))
        assert not written  # the calls returned nevertheless
        gate.set()
    assert written == list(range(MAX_PENDING_BATCHES))


def test_only_a_few_batches_wait_for_the_encoder() -> None:
    written: list[Pixels] = []
    with background_writer(written.append) as submit:
        for submitted in range(1, 21):
            submit(FRAMES)
            assert submitted - len(written) <= MAX_PENDING_BATCHES
    assert len(written) == 20


@pytest.mark.parametrize("batches", [1, 10])
def test_an_error_of_the_encoder_is_raised(batches: int) -> None:
    def write(_pixels: Pixels) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), background_writer(write) as submit:
        for _ in range(batches):
            submit(FRAMES)


def test_an_error_of_the_decoder_is_raised() -> None:
    with pytest.raises(RuntimeError, match="device"), background_writer(lambda _pixels: None) as submit:
        submit(FRAMES)
        raise RuntimeError("device")


def test_an_engine_whose_ranks_have_lost_each_other_is_not_healthy(model: Model) -> None:
    """The supervisor replaces it, because no exchange of its ranks would end."""
    engine = TorchEngine(replace(model, group=Group()))
    assert engine.is_healthy()
    group = Group(0, 2)
    with pytest.raises(BrokenGroupError), group.drawing(lambda: None):
        raise MemoryError
    assert not TorchEngine(replace(model, group=group)).is_healthy()
