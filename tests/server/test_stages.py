"""A short run of `tests.server.stages`: the server dies with a request that it has queued, and with a stored video."""

from pathlib import Path

import pytest

from tests.server.stages import kill_at
from tests.server.whole import Death

STAGES = (
    Death("keyreel.store.queue:Queue.submit", after=True),
    Death("keyreel.worker.completion:_publish", after=True),
)


@pytest.mark.slow
async def test_a_server_that_dies_at_a_stage_loses_nothing(tmp_path: Path) -> None:
    counts = await kill_at(tmp_path, f"sqlite:///{tmp_path / 'keyreel.db'}", STAGES)
    assert counts["second attempts"] == 1
    assert counts["webhooks called again"] == 0
