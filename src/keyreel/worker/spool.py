"""Jobs on their way from the preparer to the child: pixels in a folder, so that they need not pass the supervisor."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from keyreel.job import Condition, Job
from keyreel.prepare import Prepared
from keyreel.worker.messages import Pin, Spooled


def spool(prepared: Prepared, folder: Path) -> Spooled:
    """Puts the pixels of each condition into `folder`."""
    conditions = prepared.job.conditions
    for index, condition in enumerate(conditions):
        np.save(_pixels(folder, index), condition.pixels, allow_pickle=False)
    pins = tuple(Pin(condition.start, condition.strength) for condition in conditions)
    return Spooled(replace(prepared, job=replace(prepared.job, conditions=())), pins)


def unspool(spooled: Spooled, folder: Path) -> Job:
    conditions = tuple(
        Condition(np.load(_pixels(folder, index), allow_pickle=False), pin.start, pin.strength)
        for index, pin in enumerate(spooled.pins)
    )
    return replace(spooled.prepared.job, conditions=conditions)


def _pixels(folder: Path, index: int) -> Path:
    return folder / f"{index}.npy"
