"""A short run of `tests.server.backlog`."""

from pathlib import Path

import pytest

from tests.server.backlog import restart


@pytest.mark.slow
async def test_a_server_goes_on_with_a_long_queue(tmp_path: Path) -> None:
    figures = await restart(tmp_path, f"sqlite:///{tmp_path / 'keyreel.db'}", 2000)
    # Processor time, because the machine may be busy: starting takes 2 to 4 s of it.
    assert figures["processor time of the server until then"] < 15_000
