from keyreel.events import Notice, Stage, Step
from keyreel.store.records import Level, LogLine
from keyreel.worker.metrics import Stopwatch, stage_seconds
from keyreel.worker.metrics import steps as steps_done
from keyreel.worker.report import Report


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_say_what_happens_and_how_long_it_will_take() -> None:
    clock = Clock()
    report = Report(clock)
    report.show(Stage("denoise", 30))
    for done in range(1, 13):
        clock.now += 0.8
        report.show(Step(done))
    progress, lines = report.news()
    assert [line.message for line in lines] == [
        "Denoising, 30 steps",
        *(f"Denoising, step {done} of 30, 0.8 s/step, {0.8 * (30 - done):.0f} s left" for done in (2, 4, 6, 8, 10, 12)),
    ]
    assert progress == {"stage": "denoise", "step": 12, "steps": 30, "seconds_per_step": 0.8, "seconds_left": 14.4}
    assert round(lines[0].age, 6) == 9.6


def test_fast_steps_are_not_a_line_each() -> None:
    clock = Clock()
    report = Report(clock)
    report.show(Stage("decode", 161))
    for done in range(8, 162, 8):
        clock.now += 0.125
        report.show(Step(done))
    messages = [line.message for line in report.news()[1]]
    assert messages == [
        "Decoding, 161 frames",
        "Decoding, frame 64 of 161, 0.02 s/frame, 2 s left",
        "Decoding, frame 128 of 161, 0.02 s/frame, 1 s left",
    ]


def test_what_was_told_is_not_new() -> None:
    report = Report(Clock())
    report.show(Notice("The prompt is cut."))
    assert report.changed.is_set()
    assert report.news() == (None, [LogLine("The prompt is cut.", Level.WARN)])
    assert not report.changed.is_set()
    report.write("Another line.")
    report.told(None, 1)
    assert [line.message for line in report.news()[1]] == ["Another line."]


def test_a_stage_without_work_is_no_line() -> None:
    report = Report(Clock())
    report.show(Stage("conditions", 0))
    progress, lines = report.news()
    assert not lines
    assert progress == {"stage": "conditions", "step": 0, "steps": 0, "seconds_per_step": None, "seconds_left": None}


def test_metrics_know_stages_and_steps() -> None:
    clock, before = Clock(), steps_done._value.get()
    watch = Stopwatch(clock)
    observed = stage_seconds.labels("denoise")._sum
    seconds = observed.get()
    first, second = (Stage("denoise", 2), Step(1), Step(2)), (Stage("refine", 3), Step(1), Step(3))
    for event in (*first, *second, Stage("decode", 9), Step(9)):
        watch.note(event)
        clock.now += 1
    assert watch.end() == 8
    assert observed.get() - seconds == 3
    assert steps_done._value.get() - before == 5
