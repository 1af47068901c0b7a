import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_broken_stage_does_not_cost_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.benchmarks.broken_stages", str(out)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    report = json.loads(out.read_text())
    assert report["failures"] == {
        "raising": "RuntimeError: CUDA error: an illegal memory access was encountered",
        "dying": "its process died",
        "hanging": "its time was over",
        "babbling": "its time was over",
        "late": "no time was left",
    }
    found = {(item["stage"], item["name"]): item["value"] for item in report["figures"]}
    found.pop(("babbling", "more"), None)  # on a busy machine it may not come to it
    assert found == {
        ("raising", "before the error"): 1.0,
        ("dying", "before the end"): 2.0,
        ("good", "what an earlier stage found"): True,
        ("good", "what no stage found"): True,
    }
    assert "Traceback" in printed.stderr
    assert "dying: FAILED: its process died" in printed.stdout.splitlines()
