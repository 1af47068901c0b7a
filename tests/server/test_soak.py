"""A short run of `tests.server.soak`, and the check that it would notice growth."""

from pathlib import Path

import pytest

from tests.server.growth import grown, rows
from tests.server.soak import soak


@pytest.mark.slow
async def test_requests_leave_nothing_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'keyreel.db'}"
    samples, counts = await soak(tmp_path, url, requests=27, parts=3, lifetime=3.0, clients=2)
    assert not [found for found in grown(samples) if "memory" not in found]  # memory settles later
    assert all(number == 3 for number in counts.values()), counts
    assert {name.partition(":")[0] for name in samples[0]} >= {"server", "fake engine process", "decode process"}


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("server: MiB of memory", 2.0),
        ("server: handles", 1),
        ("server: threads", 3),
        ("rows", 0.4),
        ("KiB of files", 1),
    ],
)
def test_growth_is_noticed(name: str, step: float) -> None:
    steady = [{name: value, "files": 5.0} for value in (10.0, 12.0, 11.0) * 3]
    assert not grown(steady)
    growing = [{name: 10.0 + number * step, "files": 5.0} for number in range(9)]
    (found,) = grown(growing)
    assert found.startswith(f"{name} grew by {3 * step:.1f}, more than ")
    assert (name, "10", f"{10 + 4 * step:.1f}".removesuffix(".0")) == list(rows(growing))[1][:3]
