"""A job within the memory of its device."""

from collections.abc import Generator
from contextlib import closing

from keyreel.engine import pipeline
from keyreel.engine.devices import is_out_of_memory, release
from keyreel.engine.models import Model
from keyreel.events import Event, Frames, Notice
from keyreel.job import Job
from keyreel.plans import workload


def run(model: Model, job: Job) -> Generator[Event]:
    """Makes the video of `job`, see `keyreel.engine.pipeline.run`, laid out by a memory plan that suits its size.

    Plans are made from estimates: a job that runs out of memory all the same begins once more under the next plan. It
    makes the same frames, so those that were shown already are not shown again.
    """
    work = workload(job, model.grid)
    model.placement.fit(work)
    if model.placement.is_streaming:
        yield Notice(f"Memory of {model.device}: {model.placement.description}.")
    shown = 0
    try:
        with closing(pipeline.run(model, job)) as events:
            for event in events:
                yield event
                shown += len(event.pixels) if isinstance(event, Frames) else 0
        return
    except Exception as error:
        if not is_out_of_memory(error) or not model.placement.step_down(work):
            raise
    # Only here are the tensors gone that the error's traceback held.
    release(model.device)
    yield Notice(f"{model.device} ran out of memory. Once more under another plan: {model.placement.description}.")
    with closing(pipeline.run(model, job)) as events:
        yield from _without_first(shown, events)


def _without_first(count: int, events: Generator[Event]) -> Generator[Event]:
    """The events without the first frames."""
    for event in events:
        if isinstance(event, Frames):
            skipped = min(count, len(event.pixels))
            count -= skipped
            if skipped == len(event.pixels):
                continue
            event = Frames(event.pixels[skipped:])
        yield event
