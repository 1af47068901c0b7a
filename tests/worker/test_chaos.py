"""A killed engine process from the client's view: every module of the worker takes part in the recovery."""

import pytest

from tests.worker.chaos import chaos
from tests.worker.conftest import Bench


@pytest.mark.slow
async def test_a_killed_engine_process_costs_no_request(each_bench: Bench) -> None:
    counts = await chaos(each_bench, rounds=3)
    assert counts["killed"]
