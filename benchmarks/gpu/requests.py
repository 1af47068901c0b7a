"""Stages that run whole requests: peak memory, memory plans, cancels."""

import gc
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import torch

from benchmarks.gpu.hardware import GIB
from benchmarks.gpu.models import random_model
from benchmarks.gpu.stages import Bench
from benchmarks.gpu.timing import synchronize
from benchmarks.gpu.traces import Trace, cases, job_of, watch
from keyreel.checkpoints.memory import Workload, held, needed
from keyreel.engine import fitting, pipeline
from keyreel.engine.devices import memory, release
from keyreel.engine.models import Model
from keyreel.video.job import Job

CAPS = {"24 GB": 23.0, "48 GB": 46.0}
"""GiB that are free on a card of that size, beside what CUDA itself takes."""
IMMENSE = Workload(tokens=10**12, pixels=10**12)
"""A request for which nothing may stay on the device."""
CANCELS = 5
STEPS = 2


def peaks(bench: Bench) -> None:
    """The most that the device holds in each stage, against the estimate by which memory plans are chosen."""
    model = random_model(bench)
    job = job_of(cases(quick=bench.quick)[0], STEPS, levels=2)
    trace = watch(model, job)
    estimate = needed(model.placement.plan, model.placement.size, pipeline.work_of(model, job))
    bench.add("memory plan", model.placement.description)
    bench.add("estimate", estimate / GIB, "GiB")
    for name, stage in trace.stages.items():
        bench.add(name, stage.seconds, "s")
        if stage.peak:
            bench.add(f"{name}, peak", stage.peak / GIB, "GiB")
    if model.device.type == "cuda":
        bench.add("no stage held more than the estimate", max(s.peak for s in trace.stages.values()) <= estimate)


def plans(bench: Bench) -> None:
    """Frames must not depend on the memory plan."""
    model = random_model(bench)
    job = job_of(cases(quick=bench.quick)[-1 if bench.quick else 1], STEPS, levels=2)
    model.placement.fit(pipeline.work_of(model, job))
    whole = _planned(bench, model, job, "whole card")
    for name in _less_memory(model, job):
        trace = _planned(bench, model, job, name)
        bench.add(f"{name}: the same frames", trace.frames == whole.frames)


def _planned(bench: Bench, model: Model, job: Job, name: str) -> Trace:
    plan = model.placement.plan
    trace = watch(model, job, run=fitting.run if model.device.type == "cuda" else pipeline.run)
    bench.add(f"{name}: memory plan", model.placement.description)
    bench.add(f"{name}: its memory was enough", model.placement.plan == plan)
    bench.add(f"{name}: step", trace.denoise.step_ms, "ms")
    return trace


def _less_memory(model: Model, job: Job) -> Iterator[str]:
    """Yields names of smaller cards, while the device is like one. On a CPU it goes through the plans themselves."""
    work = pipeline.work_of(model, job)
    if model.device.type != "cuda":
        while model.placement.step_down(work):
            yield model.placement.description
        return
    for name, cap in CAPS.items():
        if memory(model.device)[1] < cap * GIB:
            continue
        with _occupied(model, cap * GIB):
            model.placement.fit(work)
            yield name


@contextmanager
def _occupied(model: Model, cap: float) -> Iterator[None]:
    """Takes so much of the device's memory that the model has `cap` bytes for weights and requests."""
    model.placement.fit(IMMENSE)
    release(model.device)
    surplus = memory(model.device)[0] + held(model.placement.plan, model.placement.size) - int(cap)
    ballast = torch.empty(max(surplus, 0), dtype=torch.uint8, device=model.device)
    try:
        yield
    finally:
        del ballast
        release(model.device)


def cancel(bench: Bench) -> None:
    """Cancels at random moments: the milliseconds until the device is idle, and whether the memory is free again."""
    model = random_model(bench)
    job = job_of(cases(quick=bench.quick)[0], STEPS)
    usual = sum(stage.seconds for stage in watch(model, job).stages.values())
    gc.collect()  # later, nothing may need it
    before = _allocated(model.device)
    moments = random.Random(1)  # noqa: S311 - not for secrets
    for number in range(1, CANCELS + 1):
        moment = usual * moments.uniform(0.05, 0.95)
        waited = _cancelled(model, job, moment)
        bench.add(f"{number}: after {moment:.2f} s, idle within", 1000 * waited, "ms")
        bench.add(f"{number}: memory is free again", _allocated(model.device) == before)


def _cancelled(model: Model, job: Job, moment: float) -> float:
    """Draws until it is cancelled after `moment` seconds, as the worker does: between two events.

    Returns the seconds from the cancel until the device is idle.
    """
    cancelled_at: list[float] = []
    threading.Timer(moment, lambda: cancelled_at.append(time.perf_counter())).start()
    while not cancelled_at:
        with closing(fitting.run(model, job)) as events:
            for _ in events:
                if cancelled_at:
                    break
    synchronize(model.device)
    return time.perf_counter() - cancelled_at[0]


def _allocated(device: torch.device) -> int:
    """Returns the bytes of all tensors on the device."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    tensors = (item for item in gc.get_objects() if issubclass(type(item), torch.Tensor))
    storages = {storage._cdata: storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())
