"""The child's own loop around an engine that does as its prompt says. Starts in a moment: it needs no torch."""

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np

from keyreel.canvas import Grid
from keyreel.errors import ModelError
from keyreel.events import Event, Frames, Preview, Stage, Step
from keyreel.job import Job
from keyreel.worker import child
from keyreel.worker.messages import Load, Ready


class FakeEngine:
    """Prompts are words `name` or `name=value`; see `_obey`."""

    def __init__(self, order: Load) -> None:
        if order.model == "missing":
            raise ModelError("There is no model 'missing'.")
        self.facts = Ready("fake", "0" * 64, "fake:0", Grid(32, 8), {"proj_in": (32, 16)})
        self._sound = True

    def run(self, job: Job) -> Generator[Event]:
        words = dict(word.partition("=")[::2] for word in job.prompt.split())
        yield Stage("denoise", job.steps)
        for step in range(1, job.steps + 1):
            self._obey(words)
            yield Step(step)
            if "preview" in words and job.previews:
                yield Preview(np.full((2, 4, 8, 3), 40 * step, np.uint8))
        yield Stage("decode", job.frames)
        # Of which the file must have something to tell: the seed, and the first condition's colour.
        pixels = np.full((job.frames, job.size.height, job.size.width, 3), job.seed % 256, np.uint8)
        for condition in job.conditions:
            pixels[condition.start : condition.start + len(condition.pixels)] = condition.pixels
        yield Frames(pixels)
        yield Step(job.frames)

    def is_sound(self) -> bool:
        return self._sound

    def _obey(self, words: dict[str, str]) -> None:
        """In each step."""
        if "pace" in words:
            time.sleep(float(words["pace"]))  # stands for a device's work
        if "tally" in words:
            with Path(words["tally"]).open("ab") as tally:
                tally.write(b".")
        if "gate" in words:
            _pass(Path(words["gate"]))
        if "die" in words:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in words:
            signal.pause()
        if "fail" in words:
            raise RuntimeError("out of memory")
        if "poison" in words:
            self._sound = False
            raise RuntimeError("an illegal memory access was encountered")


def _pass(gate: Path) -> None:
    """Waits until the test opens the gate: see `tests.worker.conftest.Gate`."""
    with gate.open("rb", buffering=0) as fifo:
        fifo.read(1)


if __name__ == "__main__":
    child.main(FakeEngine)
