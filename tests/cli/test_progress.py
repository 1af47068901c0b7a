import io

from rich.console import Console
from rich.progress import Progress, Task, TaskID

from keyreel.cli.progress import EventBars, SecondsPerStep, event_bars
from keyreel.video.events import STAGE_TITLES, Event, Notice, Stage, Step


def make_bars() -> tuple[EventBars, Progress]:
    progress = Progress(console=Console(file=io.StringIO()))
    return EventBars(progress), progress


def test_log_has_lines_for_stages_notices_and_fifths_of_the_steps() -> None:
    log = io.StringIO()
    events: list[Event] = [
        Stage("inputs"),
        Notice("No checker."),
        Stage("denoise", 30),
        *map(Step, range(1, 31)),
        Stage("decode", 2),
    ]
    with event_bars(Console(file=log)) as bars:
        for event in (*events, Step(1), Step(2)):
            bars.show(event)
    inputs, denoise, decode = (STAGE_TITLES[name] for name in ("inputs", "denoise", "decode"))
    steps = [f"{denoise} {done}/30" for done in (6, 12, 18, 24, 30)]
    expected = [
        f"{inputs} ...",
        "No checker.",
        f"{denoise} ...",
        *steps,
        f"{decode} ...",
        f"{decode} 1/2",
        f"{decode} 2/2",
    ]
    assert log.getvalue().splitlines() == expected


def test_terminal_shows_a_bar_per_stage() -> None:
    terminal = io.StringIO()
    with event_bars(Console(file=terminal, force_terminal=True, width=120)) as bars:
        for event in (Stage("denoise", 30), Step(29), Stage("decode", 9), Notice("The prompt is cut."), Step(8)):
            bars.show(event)
    shown = terminal.getvalue()
    assert all(text in shown for text in (STAGE_TITLES["denoise"], "30/30", STAGE_TITLES["decode"], "8/9", "is cut."))


def test_next_stage_completes_the_bar_before() -> None:
    bars, progress = make_bars()
    for event in (Stage("inputs"), Stage("denoise", 4), Step(3), Stage("decode", 9), Step(2)):
        bars.show(event)
    assert [(task.completed, task.total) for task in progress.tasks] == [(1, 1), (4, 4), (2, 9)]
    bars.finish()
    assert progress.finished


def test_step_before_any_stage_is_ignored() -> None:
    bars, progress = make_bars()
    bars.show(Step(1))
    bars.finish()
    assert progress.tasks == []


def test_seconds_per_step_is_the_mean_so_far() -> None:
    def render(total: int | None, completed: int) -> str:
        task = Task(TaskID(0), "", total, completed, _get_time=lambda: 6.0)
        task.start_time = 0.0
        return SecondsPerStep().render(task).plain

    assert render(total=30, completed=4) == "1.50 s/step"
    assert render(total=30, completed=0) == ""
    assert render(total=None, completed=1) == ""
