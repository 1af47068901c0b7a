"""`keyreel worker` with a fake engine and short leases: `python -m tests.storm.worker PORT LEASE`."""

import asyncio
import sys

from keyreel.cli.serve import errors_reported
from keyreel.cli.worker import _run
from keyreel.server import process
from keyreel.server.logs import configure_logs
from keyreel.server.process import Workers
from keyreel.settings import Settings
from keyreel.store import queue
from keyreel.store.transitions import LEASE
from keyreel.worker import attempt, session
from keyreel.worker.attempt import FENCE_MARGIN
from tests.worker.conftest import FAKE_ENGINE_PROCESS


def main(port: int, lease: float) -> None:
    """lease: in seconds. The other times keep their ratio to it."""
    scale = lease / LEASE
    margin = scale * FENCE_MARGIN
    times = {
        process: {"REAP_PERIOD": scale * process.REAP_PERIOD},
        attempt: {"LEASE": lease, "FENCE_MARGIN": margin, "HEARTBEAT_INTERVAL": scale * attempt.HEARTBEAT_INTERVAL},
        session: {"FENCE_MARGIN": margin},
        queue: {"LEASE": lease},
    }
    for module, values in times.items():
        for name, seconds in values.items():
            setattr(module, name, seconds)
    configure_logs()
    with errors_reported():
        asyncio.run(_run(Settings(), "127.0.0.1", port, Workers("fake", ("cpu",), FAKE_ENGINE_PROCESS)))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
