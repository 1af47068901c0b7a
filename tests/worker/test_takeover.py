"""A killed worker from the client's view: another one goes on with its request, to the same bytes."""

from pathlib import Path

import pytest

from tests.store.postgres import find_programs, running_server
from tests.worker.takeover import open_takeovers, run, summary


@pytest.mark.slow
async def test_another_worker_continues_the_request_of_a_killed_one(full_checkpoint: Path, tmp_path: Path) -> None:
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with running_server(programs) as url:
        async with open_takeovers(url, tmp_path, full_checkpoint) as takeovers:
            (killed,) = [each async for each in run(takeovers, rounds=1, seed=5)]
    print(summary([killed]))
    assert killed.lost < killed.killed
