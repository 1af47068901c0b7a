"""The GPU's benchmark runs on a CPU with a tiny model. What does not depend on time is checked."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks.gpu import decoding, requests, steps
from benchmarks.gpu.models import random_model
from benchmarks.gpu.report import Figure
from benchmarks.gpu.roofline import CARDS, Card, expected
from benchmarks.gpu.stages import Bench
from benchmarks.gpu.timing import TOO_LARGE
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

from keyreel.engine.devices import memory

STAGES = (
    *("versions", "products", "bandwidth", "attention", "Keyreel", "diffusers", "LoRA", "decoding", "memory", "plans"),
    *("cancel", "eight bits", "compiled"),
)
CHECKS = {
    "LoRA": ["rank 4 changes the latents", "rank 4 is gone without a trace"],
    "decoding": ["the same frames again"],
    "plans": ["the text encoder and 2 of 4 transformer blocks stream: the same frames"],
    "cancel": [f"{number}: memory is free again" for number in range(1, 6)],
    "eight bits": ["int8 changes the prediction"],
}
PERFORMANCE = Path(__file__).parents[2] / "docs" / "performance.md"


@pytest.mark.slow
def test_the_benchmark_runs_every_stage_and_every_check_holds(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    report = json.loads(out.read_text())
    assert report["failures"] == {}, done.stderr
    assert tuple(report["seconds"]) == STAGES
    found = {(item["stage"], item["name"]): item["value"] for item in report["figures"]}
    assert {stage for stage, _ in found} == set(STAGES)
    for stage, names in CHECKS.items():
        for name in names:
            assert found[stage, name] is True
    assert not [name for name, value in found.items() if value is False]
    assert done.returncode == 0
    assert found["Keyreel", "memory plan"] == "everything stays"
    assert 0 < found["eight bits", "int8, cosine distance"] < 0.01
    assert 0 < found.get(("eight bits", "fp8, cosine distance"), 0.01) < 0.05  # not every CPU multiplies in fp8
    steps = [item for item in report["figures"] if item["ideal"]]
    assert len(steps) == 8
    assert found["Keyreel", "fused, cosine distance"] == pytest.approx(0, abs=1e-9)  # on a CPU nothing is fused
    assert "Guided steps" in done.stdout


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_the_calculated_table_is_in_the_docs(card: Card) -> None:
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in PERFORMANCE.read_text().splitlines() if "|" in line]
    for row in expected(card):
        assert list(row) in rows


@pytest.fixture
def bench() -> tuple[Bench, list[Figure]]:
    """A bench on the CPU, and the figures that a stage sends to it."""
    figures: list[Figure] = []
    return Bench("cpu", quick=True, known=(), stage="a stage", send=figures.append), figures


def test_a_card_with_less_free_memory_than_it_should_is_left_as_it_is(bench: tuple[Bench, list[Figure]]) -> None:
    model = random_model(bench[0])
    with requests._occupied(model, 1000 * memory(model.device)[1]):
        assert model.placement.is_streaming


@pytest.mark.parametrize("stage", [steps.stock, decoding.decoding])
def test_diffusers_may_need_more_memory_than_a_plan_leaves(
    stage: Callable[[Bench], None], bench: tuple[Bench, list[Figure]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(LTXVideoTransformer3DModel, "forward", fail)
    monkeypatch.setattr(AutoencoderKLLTXVideo, "decode", fail)
    stage(bench[0])
    too_large = [figure.name for figure in bench[1] if figure.value == TOO_LARGE]
    assert too_large
    assert all(name.startswith("diffusers") for name in too_large)
