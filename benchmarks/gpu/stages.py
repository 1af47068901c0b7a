"""Runs stages, each in a process of its own and with a deadline, so that a broken one does not cost the rest.

A kernel that faults leaves its process without a GPU, and one that hangs cannot be stopped in any other way. The
processes are forked from one that has imported torch but never touches the GPU.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.gpu.report import Figure, Report, Value

GRACE = 10.0
"""Seconds for a process to end after its stage has."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a stage gets. device: its name; None for the fastest. known: the figures of earlier stages."""

    device: str | None
    quick: bool
    known: tuple[Figure, ...]
    stage: str
    send: Callable[[Figure], None] = field(repr=False)

    def add(self, name: str, value: Value, unit: str = "", ideal: float | None = None) -> None:
        self.send(Figure(self.stage, name, value, unit, ideal))

    def value(self, stage: str, name: str) -> float | None:
        """Returns the value of an earlier stage's figure, or None if the stage did not come to it."""
        found = [item.value for item in self.known if (item.stage, item.name) == (stage, name)]
        return found[0] if found and isinstance(found[0], float) else None


@dataclass(frozen=True, slots=True)
class Stage:
    """limit: seconds after which the stage is stopped."""

    run: Callable[[Bench], None]
    limit: float


def run(stages: Mapping[str, Stage], report: Report, *, device: str | None, quick: bool, seconds: float) -> None:
    """Runs the stages in order. seconds: for all of them together."""
    deadline = time.monotonic() + seconds
    for name, stage in stages.items():
        start = time.monotonic()
        limit = min(stage.limit, deadline - start)
        if limit <= 0:
            report.fail(name, "no time was left")
            continue
        _run_one(name, stage, report, device, quick, limit)
        report.end(name, time.monotonic() - start)


def _run_one(name: str, stage: Stage, report: Report, device: str | None, quick: bool, limit: float) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    bench = Bench(device, quick, tuple(report.figures), name, theirs.send)
    process = context.Process(target=_in_child, args=(stage, bench, theirs))
    process.start()
    theirs.close()
    try:
        if _listen(name, ours, report, time.monotonic() + limit):
            process.join(GRACE)  # it may still print a traceback
    finally:
        process.kill()
        process.join()
        ours.close()


def _in_child(stage: Stage, bench: Bench, pipe: Connection) -> None:
    try:
        stage.run(bench)
    except BaseException as error:
        pipe.send(_Failure(f"{type(error).__name__}: {error}".splitlines()[0]))
        raise  # its traceback is printed
    else:
        pipe.send(None)


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str


def _listen(name: str, pipe: Connection, report: Report, deadline: float) -> bool:
    """Takes what the stage sends until it has ended, or until its time is over. Returns whether it has ended."""
    while (left := deadline - time.monotonic()) > 0 and pipe.poll(left):
        try:
            message: Figure | _Failure | None = pipe.recv()
        except EOFError:
            report.fail(name, "its process died")
            return True
        if message is None:
            return True
        if isinstance(message, _Failure):
            report.fail(name, message.reason)
            return True
        report.add(message)
    report.fail(name, "its time was over")
    return False
