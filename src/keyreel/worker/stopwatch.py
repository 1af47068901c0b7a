"""Measures how long an attempt and its stages take, for metrics and traces."""

import time
from collections.abc import Callable

from opentelemetry.trace import Span

from keyreel import metrics, traces
from keyreel.video.events import Notice, Stage, StageName, Step


class Stopwatch:
    """Measures one attempt and its stages. A stage lasts until the next one begins. clock: in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = self._began = clock()
        self._stage: StageName | None = None
        self._span: Span | None = None
        self._steps = 0

    def record(self, event: Stage | Step | Notice) -> None:
        match event:
            case Stage(name, _, done):
                self._begin(name)
                self._steps = done
            case Step(done) if self._stage in ("denoise", "refine"):
                metrics.STEPS.inc(done - self._steps)
                self._steps = done
            case _:
                pass

    def end(self) -> float:
        """Ends the last stage. Returns the seconds since the attempt started."""
        self._begin(None)
        return self._began - self._started

    def close(self) -> None:
        """Ends the span of a stage that did not end well."""
        self._begin_span(None)

    def _begin(self, stage: StageName | None) -> None:
        now = self._clock()
        if self._stage is not None:
            metrics.STAGE_SECONDS.labels(self._stage).observe(now - self._began)
        self._stage, self._began, self._steps = stage, now, 0
        self._begin_span(stage)

    def _begin_span(self, stage: StageName | None) -> None:
        if self._span:
            self._span.end()
        self._span = traces.start(stage) if stage else None
