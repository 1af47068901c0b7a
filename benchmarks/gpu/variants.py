"""Stages that change the model's arithmetic: LoRAs, and transformers in eight bits."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save_file

from benchmarks.gpu.hardware import GIB
from benchmarks.gpu.models import random_model
from benchmarks.gpu.stages import Bench
from benchmarks.gpu.traces import Trace, cases, cosine_distance, job_of, velocity, watch
from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.checkpoints.memory import held
from keyreel.engine.devices import choose_device
from keyreel.engine.models import Model
from keyreel.engine.quantised import check_device
from keyreel.errors import ModelError
from keyreel.video.job import AdapterFile, Job

STEPS = 3
ATTENTIONS, LAYERS = ("attn1", "attn2"), ("to_q", "to_k", "to_v", "to_out.0")
PROJECTIONS = tuple(f"{attention}.{layer}" for attention in ATTENTIONS for layer in LAYERS)
"""What Lightricks' trainer adapts."""


def lora(bench: Bench) -> None:
    """A LoRA must change the latents. After it has been taken off, they must be what they were, bit for bit."""
    model = random_model(bench)
    job = job_of(cases(quick=bench.quick)[0], STEPS)
    base = watch(model, job, last="denoise")
    bench.add("base", base.denoise.step_ms, "ms")
    with tempfile.TemporaryDirectory() as folder:
        for rank in (4, 8) if bench.quick else (32, 128):
            path = Path(folder) / f"rank-{rank}.safetensors"
            save_file(dict(_branches(model, rank)), path)
            adapted = watch(model, _with_adapter(job, path), last="denoise")
            again = watch(model, job, last="denoise")
            bench.add(f"rank {rank}", adapted.denoise.step_ms, "ms")
            bench.add(f"rank {rank}, cost of a step", adapted.denoise.step_ms - base.denoise.step_ms, "ms")
            bench.add(f"rank {rank}, reading and attaching", _start_up(adapted) - _start_up(again), "s")
            bench.add(f"rank {rank} changes the latents", adapted.latents != base.latents)
            bench.add(f"rank {rank} is gone without a trace", again.latents == base.latents)


def rounded(bench: Bench) -> None:
    """Eight bits beside the type that the device computes in: time, memory, and how far predictions move."""
    job = job_of(cases(quick=bench.quick)[0], STEPS)
    exact = _measured(bench, "", random_model(bench), job)
    for kind in get_args(Quantisation):
        try:
            check_device(kind, choose_device(bench.device))
        except ModelError as error:
            bench.add(kind, f"does not run: {error}")
            continue
        predicted = _measured(bench, f"{kind}, ", random_model(bench, kind), job)
        bench.add(f"{kind}, cosine distance", cosine_distance(predicted, exact))
        bench.add(f"{kind} changes the prediction", not torch.equal(predicted, exact))


def _measured(bench: Bench, prefix: str, model: Model, job: Job) -> torch.Tensor:
    """Adds the memory and the time of a model. Returns what it predicts."""
    bench.add(f"{prefix}memory of the weights", held(model.placement.plan, model.placement.size) / GIB, "GiB")
    bench.add(f"{prefix}step", watch(model, job, last="denoise").denoise.step_ms, "ms")
    return velocity(model, job)


def _with_adapter(job: Job, path: Path) -> Job:
    return replace(job, adapters=(AdapterFile(path, path.name, "", 1.0, ()),))


def _branches(model: Model, rank: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields matrices that change each projection by about a tenth."""
    generator = torch.Generator(model.device).manual_seed(rank)
    for name, layer in model.transformer.named_modules():
        if name.endswith(PROJECTIONS):
            sides = {"A": (rank, layer.in_features, 0.1), "B": (layer.out_features, rank, 1.0)}
            for side, (rows, columns, gain) in sides.items():
                matrix = torch.empty(rows, columns, device=model.device, dtype=model.dtype)
                matrix.normal_(0, gain * columns**-0.5, generator=generator)
                yield f"transformer.{name}.lora_{side}.weight", matrix.cpu()


def _start_up(trace: Trace) -> float:
    """Returns the seconds before the first step begins."""
    return trace.stages["text"].seconds + trace.stages["conditions"].seconds
