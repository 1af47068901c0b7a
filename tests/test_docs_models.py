"""The tables of docs/models.md agree with the memory plans, the schedule and the catalogue."""

import re
from pathlib import Path

import pytest

from keyreel.checkpoints import memory
from keyreel.checkpoints.catalogue import CATALOGUE, LTXV_GRID, SIZE_2B, SIZE_13B
from keyreel.checkpoints.checkpoint import Parameters
from keyreel.checkpoints.memory import GIB, REFERENCE, ModelSize, Workload
from keyreel.engine.schedule import guidance_per_step
from keyreel.video.canvas import SIZES, Resolution, drawn_size, latent_shape, pass_sizes
from keyreel.video.recipes import Guidance, RecipeName, recipe_of

DOCS = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
FREE = 0.97
"""Fraction of a card's memory that is free when nothing else uses it."""
MACHINES = {
    "GPU, 12 GB": (12, 2),
    "GPU, 16 GB": (16, 2),
    "GPU, 24 GB": (24, 2),
    "GPU, 32 GB": (32, 2),
    "GPU, 48 GB": (48, 2),
    "GPU, 80 GB": (80, 2),
    "GPU, 141 GB": (141, 2),
    "Apple silicon, 64 GB (48 for its GPU)": (48, 2),
    "CPU, 32 GB": (32, 4),
    "CPU, 64 GB": (64, 4),
    "CPU, 128 GB": (128, 4),
}
RUNS: tuple[tuple[Resolution, int, RecipeName, int], ...] = (
    ("480p", 89, "single", 30),
    ("720p", 89, "single", 30),
    ("720p", 161, "single", 30),
    ("720p", 121, "multiscale", 30),
    ("720p", 121, "distilled-multiscale", 8),
)
"""The columns of the tables by size: resolution, frames, recipe and steps, at 16:9 on the 13B model."""
RATES = {"RTX 4090": 165, "RTX 5090": 210, "A100": 312, "L40S": 362, "H100, H200 (SXM)": 989}
"""TFLOP/s in bf16, without sparsity, as published."""


def cell(parameters: Parameters, weight: int, free: int, work: Workload = REFERENCE, *, quantised: bool = False) -> str:
    size = ModelSize(parameters, weight, quantised)
    plan = memory.choose(size, work, free)
    if plan is None:
        return "no room"
    away = parameters.transformer.blocks - plan.blocks
    streams = (
        [] if plan.text else ["text"] if not away else ["text", f"{away} of {parameters.transformer.blocks} blocks"]
    )
    layout = "all stays" if not streams else f"streams {', '.join(streams)}"
    return f"{layout} ({memory.needed(plan, size, work) / GIB:.0f} GiB)"


def test_table_of_published_settings() -> None:
    for card in CATALOGUE.values():
        if card.repo:
            settings, version = card.published, re.search(r"upscaler-([\d.]+\d)", card.upsampler or "")
            cells = (
                f"`{card.name}`",
                f"`{settings.recipe}`",
                str(settings.steps),
                "yes" if settings.stochastic_sampling else "no",
                f"{settings.tone_map:g}",
                version[1] if version else "",
            )
            assert "| " + " | ".join(cells).rstrip() + " |" in DOCS, cells


def test_table_of_plans() -> None:
    for machine, (gigabytes, weight) in MACHINES.items():
        free = int(gigabytes * FREE * GIB)
        cells = (
            cell(SIZE_13B, weight, free),
            cell(SIZE_13B, weight, free, quantised=True),
            cell(SIZE_2B, weight, free),
        )
        assert f"| {machine} | {' | '.join(cells)} |" in DOCS


@pytest.mark.parametrize("machine", [name for name in MACHINES if name.startswith("GPU")])
def test_table_of_plans_by_size(machine: str) -> None:
    gigabytes, weight = MACHINES[machine]
    works = (work(resolution, frames, recipe) for resolution, frames, recipe, _ in RUNS)
    cells = (cell(SIZE_13B, weight, int(gigabytes * FREE * GIB), each) for each in works)
    assert f"| {machine} | {' | '.join(cells)} |" in DOCS


def work(resolution: Resolution, frames: int, recipe: RecipeName) -> Workload:
    size = pass_sizes(SIZES[resolution, "16:9"], LTXV_GRID, recipe)[-1]
    frames, height, width = latent_shape(size, frames, LTXV_GRID)
    return Workload(tokens=frames * height * width, pixels=size.width * size.height)


@pytest.mark.parametrize("card", RATES)
def test_table_of_seconds_by_model(card: str) -> None:
    """The range is from the published rate to half of it."""
    runs = [
        petaflop(parameters, "720p", 89, *run)
        for parameters in (SIZE_13B, SIZE_2B)
        for run in (("single", 30), ("distilled", 8))
    ]
    cells = (seconds(each, RATES[card]) for each in runs)
    assert f"| {card} | {RATES[card]} TFLOP/s | {' | '.join(cells)} |" in DOCS


@pytest.mark.parametrize("card", RATES)
def test_table_of_seconds_by_size(card: str) -> None:
    cells = (seconds(petaflop(SIZE_13B, *run), RATES[card]) for run in RUNS)
    assert f"| {card} | {' | '.join(cells)} |" in DOCS


def seconds(petaflop: float, rate: int) -> str:
    return f"{1000 * petaflop / rate:.0f} to {2000 * petaflop / rate:.0f} s"


def petaflop(parameters: Parameters, resolution: Resolution, frames: int, recipe: RecipeName, steps: int) -> float:
    """Returns the petaFLOP of all passes through the blocks. Blocks that two passes share are computed once."""
    depth = parameters.transformer.blocks
    parts = recipe_of(recipe, steps, 3.0, distilled="distilled" in recipe)
    sizes = pass_sizes(SIZES[resolution, "16:9"], LTXV_GRID, recipe)
    total = 0.0
    for part, size in zip(parts.passes, sizes, strict=True):
        count, height, width = latent_shape(drawn_size(size, LTXV_GRID), frames, LTXV_GRID)
        blocks = sum(blocks_per_step(guidance, depth) for guidance in guidance_per_step(part, parts.depth, depth))
        total += blocks * block_petaflop(count * height * width, parameters.width)
    return total


def blocks_per_step(guidance: Guidance, depth: int) -> int:
    """Returns the number of blocks computed in one step."""
    return depth * (2 if guidance.scale > 1 else 1) + (depth - min(guidance.blocks) if guidance.stg else 0)


def block_petaflop(tokens: int, width: int, text: int = 256) -> float:
    """Sums projections and feed-forward, self-attention, cross-attention, and its keys and values."""
    products = tokens * 28 * width**2 + 4 * tokens**2 * width + 4 * text * tokens * width + text * 4 * width**2
    return products / 1e15


def test_table_of_models() -> None:
    for card in CATALOGUE.values():
        if card.repo:
            where = f"{card.repo}/{card.file}" if card.file else card.repo
            assert f"| `{card.name}` | {card.size / 1e9:.1f} GB | `{where}` |" in DOCS
