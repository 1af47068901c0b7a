"""Benchmarks run, on almost nothing. Their figures are not checked."""

import re
import subprocess
import sys

import pytest

from tests.store.postgres import find_programs


@pytest.mark.slow
def test_the_benchmark_of_quality_prints_a_row_for_each_kind() -> None:
    arguments = ("--size", "128x128", "--frames", "9", "--steps", "2", "--videos", "1")
    command = [sys.executable, "-m", "benchmarks.quality", *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert "1 videos of 128x128, 9 frames, 2 steps on cpu" in printed
    assert re.findall(r"^  (\+\w+) +(?:\d\d\.\d to \d\d\.\d +){2}\d+\.\d", printed, re.MULTILINE) == ["+int8", "+fp8"]


@pytest.mark.slow
def test_the_benchmark_of_a_fleet_prints_its_tables() -> None:
    if not find_programs():
        pytest.skip("PostgreSQL is not installed")
    command = [sys.executable, "-m", "benchmarks.fleet", "--smoke"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    for title in ("1 gateways and 1 workers, all idle", "Pick-up", "Cancel", "20 live requests", "Claim and finish"):
        assert title in printed
    assert "for each of 2 connections that listen" in printed


@pytest.mark.slow
def test_the_benchmark_of_the_engine_prints_its_tables() -> None:
    command = [sys.executable, "-m", "benchmarks.engine", "--quick", "--rounds", "1"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
    for row in (
        "text",
        "LoRA",
        "two images",
        "repeated prompt",
        "`keyreel generate`: first step",
        "`keyreel serve`: ready",
    ):
        assert f"\n  {row} " in printed


@pytest.mark.slow
def test_the_benchmark_of_a_busy_device_prints_its_tables() -> None:
    command = [sys.executable, "-m", "benchmarks.busy", "--quick"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    for line in ("4 mixed requests, now", "the device computes", "the same LoRA by URL: 1 download", "a step with it"):
        assert line in printed
