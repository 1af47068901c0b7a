from keyreel import metrics, traces
from keyreel.video.events import Stage, Step
from keyreel.worker.stopwatch import Stopwatch
from tests.spans import children, recorder
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


def test_each_stage_is_a_span_even_one_that_did_not_end_well() -> None:
    recorder().clear()
    with traces.span("attempt"):
        watch = Stopwatch(ManualClock())
        for event in (Stage("denoise", 2), Step(1), Stage("decode", 9)):
            watch.record(event)
        watch.close()
    spans = list(recorder().get_finished_spans())
    assert children(spans, spans[-1]) == ["denoise", "decode"]


def test_steps_of_an_earlier_attempt_are_not_counted_again() -> None:
    before = metrics.STEPS._value.get()
    watch = Stopwatch(ManualClock())
    for event in (Stage("denoise", 30, done=12), Step(13), Step(14)):
        watch.record(event)
    assert metrics.STEPS._value.get() - before == 2
