"""What the user gets to see of a running request: lines in its log, and a progress object."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from keyreel.events import Notice, Stage, StageName, Step
from keyreel.store.records import JsonObject, Level, LogLine

LINE_PAUSE = 1.0
"""Seconds from one line about steps to the next, at least."""
TITLES: dict[StageName, str] = {
    "inputs": "Fetching inputs",
    "expand": "Expanding the prompt",
    "check": "Checking the content",
    "text": "Reading the prompt",
    "conditions": "Encoding conditions",
    "denoise": "Denoising",
    "upsample": "Upsampling",
    "refine": "Refining",
    "decode": "Decoding",
}
UNITS: dict[StageName, str] = {"decode": "frame"}


@dataclass(frozen=True, slots=True)
class _Line:
    message: str
    level: Level
    written: float


class Report:
    """Collects until it is `told`; `changed` is set when something has come that is not in the last `news`.

    `clock`: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.changed = asyncio.Event()
        self._clock = clock
        self._lines: list[_Line] = []
        self._progress: JsonObject | None = None
        self._stage: Stage | None = None
        self._steps: JsonObject = {}
        self._preview: JsonObject = {}
        self._began = 0.0
        self._last_line = 0.0

    def show(self, event: Stage | Step | Notice) -> None:
        match event:
            case Stage():
                self._begin(event)
            case Step(done):
                self._advance(done)
            case Notice(message):
                self.write(message, Level.WARN)

    def preview(self, url: str, frames: int) -> None:
        """From now on the progress names a picture that shows so many frames below each other."""
        self._preview = {"preview": {"url": url, "frames": frames}}
        self._update()

    def write(self, message: str, level: Level = Level.INFO) -> None:
        self._lines.append(_Line(message, level, self._clock()))
        self.changed.set()

    def news(self) -> tuple[JsonObject | None, list[LogLine]]:
        """What has not been told. Progress None: as before."""
        now = self._clock()
        self.changed.clear()
        return self._progress, [LogLine(line.message, line.level, now - line.written) for line in self._lines]

    def told(self, progress: JsonObject | None, lines: int) -> None:
        """So much of the news has arrived."""
        if self._progress is progress:
            self._progress = None
        del self._lines[:lines]

    def _begin(self, stage: Stage) -> None:
        self._stage, self._began = stage, self._clock()
        self._set_progress(0)
        if stage.name == "conditions" and not stage.steps:
            return
        self.write(_title(stage))
        self._last_line = self._began

    def _advance(self, done: int) -> None:
        stage, now = self._stage, self._clock()
        if stage is None or not done:
            return
        seconds = (now - self._began) / done
        self._set_progress(done, seconds)
        # That the last step is done, the next stage's line says.
        if done < stage.steps and now - self._last_line >= LINE_PAUSE:
            self._last_line = now
            self.write(_line(stage, done, seconds))

    def _set_progress(self, done: int, seconds: float | None = None) -> None:
        """`seconds`: per step. What is left is left of this stage."""
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
    title, unit = TITLES.get(stage.name, stage.name), UNITS.get(stage.name, "step")
    return f"{title}, {stage.steps} {unit}{'s' if stage.steps > 1 else ''}" if stage.steps else title


def _line(stage: Stage, done: int, seconds: float) -> str:
    """`Denoising, step 12 of 30, 0.8 s/step, 15 s left`."""
    title, unit = TITLES.get(stage.name, stage.name), UNITS.get(stage.name, "step")
    speed = f"{seconds:.1f}" if seconds >= 0.1 else f"{seconds:.2f}"
    left = seconds * (stage.steps - done)
    return f"{title}, {unit} {done} of {stage.steps}, {speed} s/{unit}, {left:.0f} s left"
