"""The real engine process with a fake engine, which is controlled by its prompt and starts fast, without torch."""

import os
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keyreel.errors import ModelError
from keyreel.video.canvas import Grid
from keyreel.video.events import Checkpoint, Event, Frames, Preview, Stage, Step
from keyreel.video.job import AdapterFile, Job, Pixels
from keyreel.worker import engine_process
from keyreel.worker.messages import Load, Ready


class FakeEngine:
    """Draws plain frames. Prompts consist of words `name` or `name=value`; `_obey` lists them."""

    def __init__(self, order: Load) -> None:
        if order.model == "missing":
            raise ModelError("There is no model 'missing'.")
        self.facts = Ready(
            "fake", "0" * 64, "fake:0", Grid(32, 8), {"proj_in": (32, 16)}, traits={"device": "fake", "ranks": "1"}
        )
        self.preloaded: list[AdapterFile] = []
        self._healthy = True

    def run(self, job: Job, resume: Checkpoint | None = None) -> Generator[Event]:
        words = dict(word.partition("=")[::2] for word in job.prompt.split())
        start, tokens = (resume.step, resume.tokens()) if resume else (0, np.zeros((1, 2, 3), np.float32))
        yield Stage("denoise", job.steps, start)
        for step in range(start + 1, job.steps + 1):
            self._obey(words)
            tokens = tokens + 1
            if job.checkpoints:
                yield Checkpoint(0, step, partial(np.copy, tokens))
            yield Step(step)
            if "preview" in words and job.previews:
                yield Preview(np.full((2, 4, 8, 3), 40 * step, np.uint8))
        yield Stage("decode", job.frames)
        # The frames depend on the seed and the conditions, so that tests can recognise them in the file.
        # They depend on the tokens too: if a resumed run began with others, the video would have another colour.
        colour = (job.seed + int(tokens[0, 0, 0]) - job.steps) % 256
        pixels = np.full((job.frames, job.size.height, job.size.width, 3), colour, np.uint8)
        for condition in job.conditions:
            pixels[condition.start : condition.start + len(condition.pixels)] = condition.pixels
        yield Frames(_slow(pixels, Path(words["encode"])) if "encode" in words else pixels)
        yield Step(job.frames)

    def preload(self, adapters: Sequence[AdapterFile]) -> None:
        self.preloaded += adapters

    def is_healthy(self) -> bool:
        return self._healthy

    def _obey(self, words: dict[str, str]) -> None:
        """Does what the prompt asks for, in each step."""
        if "pace" in words:
            time.sleep(float(words["pace"]))  # as long as a device would compute
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
            self._healthy = False
            raise RuntimeError("an illegal memory access was encountered")


class _SlowFrames(np.ndarray[Any, np.dtype[np.uint8]]):
    """Frames that wait for a gate when they are encoded. A gate that is not a pipe fails, like a full disk."""

    gate: Path

    def __iter__(self) -> Iterator[Any]:
        _pass(self.gate)
        return super().__iter__()


def _slow(pixels: Pixels, gate: Path) -> Pixels:
    slow = pixels.view(_SlowFrames)
    slow.gate = gate
    return slow


def _pass(gate: Path) -> None:
    """Waits until the test opens the gate (`tests.worker.conftest.Gate`)."""
    with gate.open("rb", buffering=0) as fifo:
        fifo.read(1)


if __name__ == "__main__":
    engine_process.main(FakeEngine)
