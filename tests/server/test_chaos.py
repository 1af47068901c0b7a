"""Short forms of what `tests.server.chaos` and `tests.server.full_disk` do for longer."""

import subprocess
from pathlib import Path

import pytest

from tests.server.chaos import chaos
from tests.server.full_disk import ON_A_SMALL_DISK, command


@pytest.mark.slow
async def test_a_killed_server_keeps_what_it_promised(tmp_path: Path) -> None:
    counts = await chaos(tmp_path, rounds=3)
    assert counts["accepted"]


@pytest.mark.slow
def test_a_full_disk_makes_no_server_lie(tmp_path: Path) -> None:
    if subprocess.run([*ON_A_SMALL_DISK, tmp_path, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk")
    storm = subprocess.run(command(str(tmp_path), rounds=5), capture_output=True, text=True, timeout=300)
    assert storm.returncode == 0, storm.stderr
    assert "5 rounds" in storm.stdout
