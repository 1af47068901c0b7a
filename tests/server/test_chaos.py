"""Short runs of `tests.server.chaos`, which kills the server, and of `tests.server.full_disk`, which fills its disk."""

import subprocess
from pathlib import Path

import pytest

from tests.server.chaos import chaos
from tests.server.full_disk import ON_A_SMALL_DISK, command


@pytest.mark.slow
async def test_a_killed_server_loses_no_accepted_request(tmp_path: Path) -> None:
    counts = await chaos(tmp_path, rounds=3)
    assert counts["accepted"]


@pytest.mark.slow
def test_a_server_on_a_full_disk_keeps_every_accepted_request(tmp_path: Path) -> None:
    if subprocess.run([*ON_A_SMALL_DISK, tmp_path, "true"], capture_output=True).returncode:
        pytest.skip("this system does not permit mounting a small disk")
    done = subprocess.run(command(str(tmp_path), rounds=5), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "5 rounds" in done.stdout
