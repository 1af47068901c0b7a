"""The short form of `make fuzz`: it has the same parts, and other calls each time."""

import random
from pathlib import Path

import pytest

from tests.fuzz.fuzz import CORPUS, fuzz


@pytest.mark.slow
def test_no_call_makes_the_server_fail(tmp_path: Path) -> None:
    seed = random.randrange(10**6)  # noqa: S311
    report = fuzz(tmp_path, 300, 40, seed, "^/tokens|^/api/operate/requests")
    assert report.is_clean, "\n".join([f"seed {seed}", *report.details()])
    assert report.findings.calls >= 300 + len(list(CORPUS.iterdir()))
    assert {"200", "400", "401", "404", "422"} <= report.findings.codes.keys(), "the calls are of many kinds"
    assert report.health
