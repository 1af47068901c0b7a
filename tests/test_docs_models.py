"""The tables of docs/models.md are what the planner and the catalogue say."""

from pathlib import Path

from keyreel import plans
from keyreel.catalogue import CATALOGUE, SIZE_2B, SIZE_13B
from keyreel.checkpoint import Parameters
from keyreel.plans import GIB, REFERENCE, ModelSize

DOCS = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
FREE = 0.97
"""Of a card's memory, when nothing else uses it."""
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


def cell(parameters: Parameters, weight: int, free: int, *, int8: bool = False) -> str:
    size = ModelSize(parameters, weight, int8)
    plan = plans.choose(size, REFERENCE, free)
    if plan is None:
        return "no room"
    away = parameters.transformer.blocks - plan.blocks
    streams = (
        [] if plan.text else ["text"] if not away else ["text", f"{away} of {parameters.transformer.blocks} blocks"]
    )
    layout = "all stays" if not streams else f"streams {', '.join(streams)}"
    return f"{layout} ({plans.needed(plan, size, REFERENCE) / GIB:.0f} GiB)"


def test_plans() -> None:
    for machine, (gigabytes, weight) in MACHINES.items():
        free = int(gigabytes * FREE * GIB)
        cells = (
            cell(SIZE_13B, weight, free),
            cell(SIZE_13B, weight, free, int8=True),
            cell(SIZE_2B, weight, free),
        )
        assert f"| {machine} | {' | '.join(cells)} |" in DOCS


def test_models() -> None:
    for card in CATALOGUE.values():
        if card.repo:
            where = f"{card.repo}/{card.file}" if card.file else card.repo
            assert f"| `{card.name}` | {card.size / 1e9:.1f} GB | `{where}` |" in DOCS
