from keyreel.store.records import Level, LogLine
from keyreel.video.events import Notice, Stage, Step
from keyreel.worker.report import Report
from tests.worker.clock import ManualClock


def test_log_lines_and_progress_tell_the_stage_the_speed_and_the_time_left() -> None:
    clock = ManualClock()
    report = Report(clock)
    report.record(Stage("denoise", 30))
    for done in range(1, 13):
        clock.now += 0.8
        report.record(Step(done))
    progress, lines = report.unsent()
    assert [line.message for line in lines] == [
        "Denoising, 30 steps",
        *(f"Denoising, step {done} of 30, 0.8 s/step, {0.8 * (30 - done):.0f} s left" for done in (2, 4, 6, 8, 10, 12)),
    ]
    assert progress == {"stage": "denoise", "step": 12, "steps": 30, "seconds_per_step": 0.8, "seconds_left": 14.4}
    assert round(lines[0].age, 6) == 9.6


def test_a_resumed_stage_begins_at_the_resumed_step() -> None:
    clock = ManualClock()
    report = Report(clock)
    report.record(Stage("denoise", 30, done=12))
    progress, _ = report.unsent()
    assert progress == {"stage": "denoise", "step": 12, "steps": 30, "seconds_per_step": None, "seconds_left": None}
    for done in (13, 14):
        clock.now += 0.8
        report.record(Step(done))
    progress, lines = report.unsent()
    assert progress == {"stage": "denoise", "step": 14, "steps": 30, "seconds_per_step": 0.8, "seconds_left": 12.8}
    assert [line.message for line in lines] == [
        "Denoising, 30 steps, 12 of them done before",
        "Denoising, step 14 of 30, 0.8 s/step, 13 s left",
    ]


def test_fast_steps_do_not_each_write_a_log_line() -> None:
    clock = ManualClock()
    report = Report(clock)
    report.record(Stage("decode", 161))
    for done in range(8, 162, 8):
        clock.now += 0.125
        report.record(Step(done))
    messages = [line.message for line in report.unsent()[1]]
    assert messages == [
        "Decoding, 161 frames",
        "Decoding, frame 64 of 161, 0.02 s/frame, 2 s left",
        "Decoding, frame 128 of 161, 0.02 s/frame, 1 s left",
    ]


def test_lines_that_are_marked_as_sent_are_not_returned_again() -> None:
    report = Report(ManualClock())
    report.record(Notice("The prompt is cut."))
    assert report.changed.is_set()
    assert report.unsent() == (None, [LogLine("The prompt is cut.", Level.WARN)])
    assert not report.changed.is_set()
    report.write("Another line.")
    report.mark_sent(None, 1)
    assert [line.message for line in report.unsent()[1]] == ["Another line."]


def test_a_stage_without_steps_writes_no_log_line() -> None:
    report = Report(ManualClock())
    report.record(Stage("conditions", 0))
    progress, lines = report.unsent()
    assert not lines
    assert progress == {"stage": "conditions", "step": 0, "steps": 0, "seconds_per_step": None, "seconds_left": None}
