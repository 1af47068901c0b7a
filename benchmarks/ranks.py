"""Draws one video with one rank and with several: `python -m benchmarks.ranks --devices cpu,cpu`.

Prints the seconds of denoising, and the processor seconds that each rank's process takes for it (Linux). Neither
loading the model nor decoding is counted. Set OMP_NUM_THREADS, or every rank on a CPU uses all its cores.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keyreel.engine.fitting import run
from keyreel.engine.models import Model
from keyreel.engine.rank_process import LeadingGroup, load
from keyreel.video.canvas import output_size
from keyreel.video.events import Stage
from keyreel.video.job import Job, Sampling

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """seconds: of denoising. processor: seconds of each rank's process."""

    seconds: float
    processor: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="cpu,cpu")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--resolution", default="480p")
    parser.add_argument("--frames", type=int, default=89)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--recipe", choices=("single", "stg"), default="single")
    options = parser.parse_args()
    size = output_size(options.resolution, "16:9", None)
    sampling = Sampling(recipe=options.recipe)
    job = Job("a red circle moves", "dark", size, options.frames, options.steps, 25, seed=1, sampling=sampling)
    for devices in (options.devices.partition(",")[0], options.devices):
        found = _measure(options.model, devices, job)
        processor = ", ".join(f"{seconds:.1f}" for seconds in found.processor)
        print(f"{devices}: {found.seconds:.1f} s, processor seconds of each rank: {processor}")


def _measure(name: str, devices: str, job: Job) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        model = load(name, devices, Path(folder), on_death=print)
        _denoise(model, job)  # warms up
        found = _denoise(model, job)
        if isinstance(model.group, LeadingGroup):
            model.group.close()
        return found


def _denoise(model: Model, job: Job) -> Figures:
    events = run(model, job)
    next(event for event in events if isinstance(event, Stage) and event.name == "denoise")
    before, start = list(_processor_seconds()), time.perf_counter()
    next(event for event in events if isinstance(event, Stage) and event.name == "decode")
    seconds = time.perf_counter() - start
    after = list(_processor_seconds())
    events.close()
    return Figures(seconds, [now - then for then, now in zip(before, after, strict=True)])


def _processor_seconds() -> Iterator[float]:
    """Yields the processor seconds of this process and of its children, the other ranks."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    for pid in (os.getpid(), *map(int, children.split())):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        yield (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
