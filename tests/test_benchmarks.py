"""The fleet's benchmark runs, on almost nothing. Its figures are not checked."""

import subprocess
import sys

import pytest

from tests.store.postgres import find_programs


@pytest.mark.slow
def test_the_benchmark_of_a_fleet_prints_its_tables() -> None:
    if not find_programs():
        pytest.skip("PostgreSQL is not installed")
    command = [sys.executable, "-m", "benchmarks.fleet", "--smoke"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    for title in ("1 gateways and 1 workers, all idle", "Pick-up", "Cancel", "20 live requests", "Claim and finish"):
        assert title in printed
    assert "for each of 2 connections that listen" in printed
