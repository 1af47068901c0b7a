from keyreel import metrics
from keyreel.video.events import Stage, Step
from keyreel.worker.stopwatch import Stopwatch
from tests.worker.clock import ManualClock


def test_stages_and_steps_are_counted_in_the_metrics() -> None:
    clock, before = ManualClock(), metrics.STEPS._value.get()
    watch = Stopwatch(clock)
    observed = metrics.STAGE_SECONDS.labels("denoise")._sum
    seconds = observed.get()
    first, second = (Stage("denoise", 2), Step(1), Step(2)), (Stage("refine", 3), Step(1), Step(3))
    for event in (*first, *second, Stage("decode", 9), Step(9)):
        watch.record(event)
        clock.now += 1
    assert watch.end() == 8
    assert observed.get() - seconds == 3
    assert metrics.STEPS._value.get() - before == 5
