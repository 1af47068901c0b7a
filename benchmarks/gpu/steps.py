"""Stages that time denoising: Keyreel, and diffusers' transformer as it is and compiled."""

from collections.abc import Callable

import torch

from benchmarks.gpu.hardware import GIB, PEAK
from benchmarks.gpu.models import random_model, shape_of
from benchmarks.gpu.roofline import GUIDED, TEXT_TOKENS, Case, ideal_ms
from benchmarks.gpu.stages import Bench
from benchmarks.gpu.timing import TOO_LARGE, elapsed, peak, reset_peak
from benchmarks.gpu.traces import cases, cosine_distance, job_of, velocity, watch
from keyreel.engine import kernels, latents
from keyreel.engine.models import Model

STEPS = 3
LEVELS = (1, 2)
ROUNDS = 2


def keyreel(bench: Bench) -> None:
    """Guided steps of whole requests, as the worker runs them. At the first size also without fused kernels."""
    model = random_model(bench)
    bench.add("memory plan", model.placement.description)
    first, *others = cases(quick=bench.quick)
    _add_ours(bench, model, "Keyreel", first)
    with kernels.reference():
        _add_ours(bench, model, "Keyreel, not fused", first)
        reference = velocity(model, job_of(first, STEPS, levels=2))
    bench.add("fused, cosine distance", cosine_distance(velocity(model, job_of(first, STEPS, levels=2)), reference))
    for case in others:
        _add_ours(bench, model, "Keyreel", case)


def stock(bench: Bench) -> None:
    """diffusers' transformer as LTXConditionPipeline calls it, both prompts in one batch."""
    model = random_model(bench)
    bench.add("memory plan", model.placement.description)
    for case in cases(quick=bench.quick):
        for levels in LEVELS:
            _add_stock(bench, model, "diffusers", case, levels)


def compiled(bench: Bench) -> None:
    """The same with its blocks compiled, which changes the bytes with the sizes of earlier requests."""
    model = random_model(bench)
    # Without a compiler on the CPU: there only the way to it is of interest, and inductor takes half a minute.
    model.transformer.compile_repeated_blocks(backend="eager" if bench.quick else "inductor")
    for case in cases(quick=bench.quick)[:2]:
        for levels in LEVELS:
            _add_stock(bench, model, "diffusers, compiled", case, levels)


def _add_ours(bench: Bench, model: Model, name: str, case: Case) -> None:
    for levels in LEVELS:
        trace = watch(model, job_of(case, STEPS, levels=levels), last="denoise").denoise
        _add_step(bench, model, f"{name}, {_title(case, levels)}", case, trace.step_ms, trace.peak)


def _add_stock(bench: Bench, model: Model, name: str, case: Case, levels: int) -> None:
    step = _stock_step(model, case, levels)
    try:
        first = elapsed(step, model.device)
    except torch.OutOfMemoryError:  # the memory plan leaves room for Keyreel's steps only
        bench.add(f"{name}, {_title(case, levels)}", TOO_LARGE)
        return
    bench.add(f"{name}, {_title(case, levels)}, first step", first, "s")
    reset_peak(model.device)
    milliseconds = 1000 * elapsed(step, model.device, ROUNDS) / ROUNDS
    _add_step(bench, model, f"{name}, {_title(case, levels)}", case, milliseconds, peak(model.device))


def _add_step(bench: Bench, model: Model, name: str, case: Case, milliseconds: float, held: int) -> None:
    best = bench.value("products", PEAK)
    bench.add(name, milliseconds, "ms", best and ideal_ms(shape_of(model), case.tokens, best, GUIDED))
    if held:
        bench.add(f"{name}, peak memory", held / GIB, "GiB")


def _stock_step(model: Model, case: Case, levels: int) -> Callable[[], object]:
    """Returns the forward of a guided step: hidden (2, N, C), text (2, L, E), timesteps (2, 1) or one per token."""
    config, device, dtype = model.transformer.config, model.device, model.dtype
    frames = (case.frames - 1) // model.grid.temporal + 1
    rows = -(-case.height // model.grid.spatial)
    shape = frames, rows, case.tokens // frames // rows
    coordinates = latents.coordinates(shape, model.grid).to(device)[None].repeat(GUIDED, 1, 1)
    coordinates[:, 0] /= 25
    timestep = torch.full((GUIDED, case.tokens if levels > 1 else 1), 998.0, device=device)
    if levels > 1:
        timestep[:, : case.tokens // frames] = 0
    hidden = torch.randn(GUIDED, case.tokens, config.in_channels, device=device, dtype=dtype)
    text = torch.randn(GUIDED, TEXT_TOKENS, config.caption_channels, device=device, dtype=dtype)
    mask = torch.ones(GUIDED, TEXT_TOKENS, device=device, dtype=torch.bool)

    @torch.no_grad()
    def step() -> object:
        return model.transformer(hidden, text, timestep, mask, video_coords=coordinates, return_dict=False)

    return step


def _title(case: Case, levels: int) -> str:
    return f"{case.name}, {levels} noise level{'s' if levels > 1 else ''}"
