"""What the user sees of a running request: log lines and a progress object."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from keyreel.fal.outcomes import JsonObject
from keyreel.store.records import Level, LogLine
from keyreel.video.events import STAGE_TITLES, Notice, Stage, StageName, Step

LINE_PAUSE = 1.0
"""Minimum seconds between two log lines about steps."""
UNITS: dict[StageName, str] = {"decode": "frame"}


@dataclass(frozen=True, slots=True)
class _Line:
    message: str
    level: Level
    written: float


class Report:
    """Collects log lines and progress until a heartbeat has sent them.

    changed: set when there is something that the last `unsent` did not return.
    stage_changed: set when that includes a new stage.
    clock: in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = asyncio.Event()
        self.stage_changed = asyncio.Event()
        self._clock = clock
        self._lines: list[_Line] = []
        self._progress: JsonObject | None = None
        self._stage: Stage | None = None
        self._steps: JsonObject = {}
        self._preview: JsonObject = {}
        self._began = 0.0
        self._last_line = 0.0

    def record(self, event: Stage | Step | Notice) -> None:
        match event:
            case Stage():
                self._begin(event)
            case Step(done):
                self._advance(done)
            case Notice(message):
                self.write(message, Level.WARN)

    def set_preview(self, url: str, frames: int) -> None:
        """Adds a preview to the progress: the URL of a picture that shows `frames` frames, one below the other."""
        self._preview = {"preview": {"url": url, "frames": frames}}
        self._update()

    def write(self, message: str, level: Level = Level.INFO) -> None:
        self._lines.append(_Line(message, level, self._clock()))
        self.changed.set()

    def unsent(self) -> tuple[JsonObject | None, list[LogLine]]:
        """Returns the progress and the log lines that have not been sent. Progress None means no change."""
        now = self._clock()
        self.changed.clear()
        self.stage_changed.clear()
        return self._progress, [LogLine(line.message, line.level, now - line.written) for line in self._lines]

    def mark_sent(self, progress: JsonObject | None, lines: int) -> None:
        """Marks this progress and the first `lines` lines as sent."""
        if self._progress is progress:
            self._progress = None
        del self._lines[:lines]

    def _begin(self, stage: Stage) -> None:
        self._stage, self._began = stage, self._clock()
        self._set_progress(stage.done)
        self.stage_changed.set()
        if stage.name == "conditions" and not stage.steps:
            return
        self.write(_title(stage))
        self._last_line = self._began

    def _advance(self, done: int) -> None:
        stage, now = self._stage, self._clock()
        if stage is None or done <= stage.done:
            return
        seconds = (now - self._began) / (done - stage.done)
        self._set_progress(done, seconds)
        # The last step needs no line: the next stage's line implies it.
        if done < stage.steps and now - self._last_line >= LINE_PAUSE:
            self._last_line = now
            self.write(_line(stage, done, seconds))

    def _set_progress(self, done: int, seconds: float | None = None) -> None:
        """seconds: per step. `seconds_left` is the time left in this stage."""
        if self._stage is None:
            return
        steps = self._stage.steps
        self._steps = {
            "stage": self._stage.name,
            "step": done,
            "steps": steps,
            "seconds_per_step": seconds and round(seconds, 3),
            "seconds_left": None if seconds is None else round(seconds * (steps - done), 1),
        }
        self._update()

    def _update(self) -> None:
        self._progress = self._steps | self._preview
        self.changed.set()


def _title(stage: Stage) -> str:
    title, unit = STAGE_TITLES[stage.name], UNITS.get(stage.name, "step")
    if not stage.steps:
        return title
    before = f", {stage.done} of them done before" if stage.done else ""
    return f"{title}, {stage.steps} {unit}{'s' if stage.steps > 1 else ''}{before}"


def _line(stage: Stage, done: int, seconds: float) -> str:
    """Returns a line like `Denoising, step 12 of 30, 0.8 s/step, 15 s left`."""
    title, unit = STAGE_TITLES[stage.name], UNITS.get(stage.name, "step")
    speed = f"{seconds:.1f}" if seconds >= 0.1 else f"{seconds:.2f}"
    left = seconds * (stage.steps - done)
    return f"{title}, {unit} {done} of {stage.steps}, {speed} s/{unit}, {left:.0f} s left"
