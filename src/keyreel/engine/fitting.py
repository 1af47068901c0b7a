"""Runs a job within the memory of its device."""

from collections.abc import Generator
from contextlib import closing

from keyreel.engine import pipeline
from keyreel.engine.devices import is_out_of_memory, release
from keyreel.engine.models import Model
from keyreel.video.events import Checkpoint, Event, Frames, Notice
from keyreel.video.job import Job


def run(model: Model, job: Job, resume: Checkpoint | None = None) -> Generator[Event]:
    """Makes the video of `job` (see `keyreel.engine.pipeline.run`) under a memory plan that suits its size.

    Plans rest on estimates. A job that runs out of memory runs once more under the next plan. The second run makes the
    same frames, so it does not yield those that the first run has yielded already.
    """
    work = pipeline.work_of(model, job)
    model.placement.fit(work)
    if model.placement.is_streaming:
        yield Notice(f"Memory of {model.device}: {model.placement.description}.")
    shown = 0
    try:
        with closing(pipeline.run(model, job, resume)) as events:
            for event in events:
                yield event
                shown += len(event.pixels) if isinstance(event, Frames) else 0
        return
    except Exception as error:
        if not is_out_of_memory(error) or not model.placement.step_down(work):
            raise
    # Not in the except block: there the error's traceback still holds the tensors.
    release(model.device)
    yield Notice(
        f"{model.device} ran out of memory. Trying again with another memory plan: {model.placement.description}."
    )
    with closing(pipeline.run(model, job, resume)) as events:
        yield from _without_first(shown, events)


def _without_first(count: int, events: Generator[Event]) -> Generator[Event]:
    """Yields the events without the first `count` frames."""
    for event in events:
        if isinstance(event, Frames):
            skipped = min(count, len(event.pixels))
            count -= skipped
            if skipped == len(event.pixels):
                continue
            event = Frames(event.pixels[skipped:])
        yield event
