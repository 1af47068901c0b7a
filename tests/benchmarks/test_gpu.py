"""The GPU's benchmark runs on a CPU with a tiny model. What does not depend on time is checked."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu.roofline import CARDS, Card, expected

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
