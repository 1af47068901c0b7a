"""Runs stages that break in every way that a stage on a GPU may, and a good one after them.

python -m tests.benchmarks.broken_stages REPORT
"""

import os
import signal
import sys
import threading
from pathlib import Path

from benchmarks.gpu.report import Report
from benchmarks.gpu.stages import Bench, Stage, run

SHORT, LONG = 0.3, 60.0


def raising(bench: Bench) -> None:
    bench.add("before the error", 1.0)
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`.")


def dying(bench: Bench) -> None:
    bench.add("before the end", 2.0)
    os.kill(os.getpid(), signal.SIGKILL)


def hanging(_bench: Bench) -> None:
    threading.Event().wait()


def babbling(bench: Bench) -> None:
    while True:
        bench.add("more", 3.0)


def good(bench: Bench) -> None:
    known = bench.value("raising", "before the error")
    bench.add("what an earlier stage found", known == 1.0)
    bench.add("what no stage found", bench.value("raising", "nothing") is None)


def late(_bench: Bench) -> None:
    raise AssertionError("This stage must not begin.")


def main(out: Path) -> None:
    report = Report(out)
    ending = {stage.__name__: Stage(stage, LONG) for stage in (raising, dying)}
    endless = {stage.__name__: Stage(stage, SHORT) for stage in (hanging, babbling)}
    run({**ending, **endless, "good": Stage(good, LONG)}, report, device=None, quick=True, seconds=LONG)
    run({"late": Stage(late, LONG)}, report, device=None, quick=True, seconds=0)
    report.print_table()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
