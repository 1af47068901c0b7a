import threading

import numpy as np
import pytest

from keyreel.job import Pixels
from keyreel.worker.child import BATCHES_BEHIND, overlapped

FRAMES = np.zeros((1, 2, 2, 3), np.uint8)


def test_decoding_goes_on_while_frames_are_encoded() -> None:
    written: list[int] = []
    gate = threading.Event()

    def write(pixels: Pixels) -> None:
        gate.wait()
        written.append(int(pixels[0, 0, 0, 0]))

    with overlapped(write) as later:
        for index in range(BATCHES_BEHIND):
            later(FRAMES + np.uint8(index))
        assert not written  # and yet we are here
        gate.set()
    assert written == list(range(BATCHES_BEHIND))


def test_frames_do_not_pile_up() -> None:
    written: list[Pixels] = []
    with overlapped(written.append) as later:
        for given in range(1, 21):
            later(FRAMES)
            assert given - len(written) <= BATCHES_BEHIND
    assert len(written) == 20


@pytest.mark.parametrize("batches", [1, 10])
def test_an_error_of_the_encoder_comes_out(batches: int) -> None:
    def write(_pixels: Pixels) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), overlapped(write) as later:
        for _ in range(batches):
            later(FRAMES)


def test_an_error_of_the_decoder_comes_out() -> None:
    with pytest.raises(RuntimeError, match="device"), overlapped(lambda _pixels: None) as later:
        later(FRAMES)
        raise RuntimeError("device")
