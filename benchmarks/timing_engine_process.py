"""The real engine process with the real engine. It also writes when it computes to a file, for `benchmarks.busy`."""

import json
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from keyreel.video.events import Checkpoint, Event, Stage
from keyreel.video.job import AdapterFile, Job
from keyreel.worker import engine_process
from keyreel.worker.engine_process import Engine, load_torch
from keyreel.worker.messages import Load, Ready

TIMES = "PYTHON_KEYREEL_TIMES"
"""Environment variable that names the file. Engine processes inherit those of Python, and few others."""


@dataclass(frozen=True, slots=True)
class Times:
    """When an engine worked on one video, by the machine's clock.

    began: when it got the order. drawn: when the last frame was there. reading: seconds until LoRAs and prompts were
    read. computing: seconds after that within the engine, without what waits for its events.
    """

    began: float
    drawn: float
    reading: float
    computing: float


@dataclass(frozen=True)
class TimingEngine:
    engine: Engine
    file: Path

    @property
    def facts(self) -> Ready:
        return self.engine.facts

    def run(self, job: Job, resume: Checkpoint | None = None) -> Generator[Event]:
        began, clock = time.monotonic(), _Clock()
        with closing(self.engine.run(job, resume)) as events:
            yield from clock.timed(events)
        times = Times(began, time.monotonic(), clock.reading, clock.computing)
        with self.file.open("a") as file:
            file.write(json.dumps(asdict(times)) + "\n")

    def preload(self, adapters: Sequence[AdapterFile]) -> None:
        self.engine.preload(adapters)

    def is_healthy(self) -> bool:
        return self.engine.is_healthy()


@dataclass
class _Clock:
    reading: float = 0.0
    computing: float = 0.0
    _is_reading: bool = field(default=True, init=False)

    def timed(self, events: Iterator[Event]) -> Iterator[Event]:
        start = time.monotonic()
        for event in events:
            self._add(time.monotonic() - start)
            self._is_reading = self._is_reading and not (isinstance(event, Stage) and event.name == "conditions")
            yield event
            start = time.monotonic()
        self._add(time.monotonic() - start)

    def _add(self, seconds: float) -> None:
        if self._is_reading:
            self.reading += seconds
        else:
            self.computing += seconds


def load(order: Load) -> Engine:
    return TimingEngine(load_torch(order), Path(os.environ[TIMES]))


if __name__ == "__main__":
    engine_process.main(load)
