"""Shows events as progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from keyreel.local import Event
from keyreel.video.events import STAGE_TITLES, Notice, Stage, Step

LINES = 5
"""How many lines about its steps a stage has in a log."""


class SecondsPerStep(ProgressColumn):
    """A column with the mean seconds per step so far."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed
        if not elapsed or not task.completed or (task.total or 0) < 2:
            return Text("")
        return Text(f"{elapsed / task.completed:.2f} s/step", style="progress.data.speed")


class EventBars:
    """Shows one progress bar per stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def show(self, event: Event) -> None:
        match event:
            case Notice(message):
                self._progress.console.print(message)
            case Stage(name, steps):
                self.finish()
                self._task = self._progress.add_task(STAGE_TITLES[name], total=steps or None)
                if self._progress.disable:
                    self._progress.console.print(f"{STAGE_TITLES[name]} ...")
            case Step(done) if self._task is not None:
                if self._progress.disable:
                    self._log_step(self._progress.tasks[self._task], done)
                self._progress.update(self._task, completed=done)
            case _:
                pass

    def _log_step(self, task: Task, done: int) -> None:
        """Prints a line when another fifth of the stage is finished."""
        if task.total and done * LINES // int(task.total) > int(task.completed * LINES // task.total):
            self._progress.console.print(f"{task.description} {done}/{task.total:.0f}", highlight=False)

    def finish(self) -> None:
        """Completes the current bar. A stage without steps is complete when the next begins."""
        if self._task is not None:
            task = self._progress.tasks[self._task]
            total = task.total or 1
            self._progress.update(self._task, total=total, completed=total)


@contextmanager
def event_bars(console: Console) -> Iterator[EventBars]:
    """Yields progress bars on a terminal. In a log, where bars cannot be redrawn, each stage is a few lines."""
    with Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        SecondsPerStep(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        yield EventBars(progress)
