"""The real engine process with the real engine. It also counts the denoising steps, one byte each, in a file."""

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from keyreel.video.events import Checkpoint, Event, Stage, Step
from keyreel.video.job import AdapterFile, Job
from keyreel.worker import engine_process
from keyreel.worker.engine_process import Engine, load_torch
from keyreel.worker.messages import Load, Ready

TALLY = "PYTHON_KEYREEL_TALLY"
"""Environment variable that names the file. Engine processes inherit those of Python, and few others."""


@dataclass(frozen=True)
class TallyingEngine:
    engine: Engine
    tally: Path

    @property
    def facts(self) -> Ready:
        return self.engine.facts

    def run(self, job: Job, resume: Checkpoint | None = None) -> Generator[Event]:
        stage = ""
        with closing(self.engine.run(job, resume)) as events:
            for event in events:
                match event:
                    case Stage(name):
                        stage = name
                    case Step() if stage in ("denoise", "refine"):
                        self._count()
                yield event

    def preload(self, adapters: Sequence[AdapterFile]) -> None:
        self.engine.preload(adapters)

    def is_healthy(self) -> bool:
        return self.engine.is_healthy()

    def _count(self) -> None:
        with self.tally.open("ab") as tally:
            tally.write(b".")


def load(order: Load) -> Engine:
    return TallyingEngine(load_torch(order), Path(os.environ[TALLY]))


if __name__ == "__main__":
    engine_process.main(load)
