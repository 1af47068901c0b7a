"""Short runs of `tests.server.chaos`, which kills the server, and of `tests.server.full_disk`, which fills its disk."""

import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.server.chaos import chaos
from tests.server.full_disk import command, on_a_small_disk
from tests.store.postgres import DATABASES, find_programs

pytestmark = pytest.mark.slow


async def test_a_killed_server_loses_no_accepted_request(new_url: str, tmp_path: Path) -> None:
    counts = await chaos(tmp_path, new_url, rounds=2)
    assert counts["accepted"]


@pytest.mark.parametrize("database", DATABASES)
def test_a_server_on_a_full_disk_keeps_every_accepted_request(database: str) -> None:
    if database == "postgresql" and not find_programs():
        pytest.skip("PostgreSQL is not installed")
    # Not pytest's folder: PostgreSQL's user may not enter it.
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(on_a_small_disk(folder, "1m", "true"), capture_output=True).returncode:
            pytest.skip("this system does not permit mounting a small disk")
        done = subprocess.run(command(folder, 3, database=database), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "3 rounds" in done.stdout
