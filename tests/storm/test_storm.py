"""The short form of `make storm`: one of each fault."""

import random
from pathlib import Path

import pytest

from tests.store.postgres import find_programs
from tests.storm.s3 import find_weed
from tests.storm.storm import Plan, storm


@pytest.mark.slow
async def test_a_storm_costs_no_request(tmp_path: Path) -> None:
    if not (find_programs() and find_weed()):
        pytest.skip("PostgreSQL or SeaweedFS is not installed")
    seed = random.randrange(10**6)  # noqa: S311
    print(f"seed {seed}")
    plan = Plan(
        requests=40,
        clients=10,
        worker_faults=("kill", "pause"),
        gateway_faults=("cut", "drain"),
        crashes=1,
        lease=6.0,
        seed=seed,
    )
    counts = await storm(tmp_path, plan)
    assert counts["accepted, completed once, delivered"] == plan.requests
    assert all(
        counts[fault] == 1
        for fault in ("killed", "paused", "cut off", "drained", "PostgreSQL crashed", "PostgreSQL paused", "S3 crashed")
    )
