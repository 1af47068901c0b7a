"""Figures of the workers in this process, for `/metrics`."""

import time
from collections.abc import Callable

from prometheus_client import Counter, Histogram

from keyreel.events import Notice, Stage, StageName, Step

stage_seconds = Histogram(
    "keyreel_stage_seconds",
    "How long each stage of a request took.",
    ["stage"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
steps = Counter("keyreel_steps", "Denoising steps done, of both passes. Its rate: steps per second.")
finished = Counter("keyreel_finished", "Attempts that ended with a video.")
failures = Counter("keyreel_failures", "Attempts that ended without a video.", ["type"])
restarts = Counter("keyreel_child_restarts", "Children that had to be replaced.")


class Stopwatch:
    """Measures one attempt and its stages, each of which lasts until the next begins. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = self._began = clock()
        self._stage: StageName | None = None
        self._steps = 0

    def note(self, event: Stage | Step | Notice) -> None:
        match event:
            case Stage(name):
                self._begin(name)
            case Step(done) if self._stage in ("denoise", "refine"):
                steps.inc(done - self._steps)
                self._steps = done
            case _:
                pass

    def end(self) -> float:
        """The last stage is over. Seconds since the start of the attempt."""
        self._begin(None)
        return self._began - self._started

    def _begin(self, stage: StageName | None) -> None:
        now = self._clock()
        if self._stage is not None:
            stage_seconds.labels(self._stage).observe(now - self._began)
        self._stage, self._began, self._steps = stage, now, 0
