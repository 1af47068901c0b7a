import os
import select
import signal
import subprocess
import sys

from tests.worker.chaos import chaos
from tests.worker.conftest import Bench
from tests.worker.processes import children


async def test_a_killed_child_costs_no_request(bench: Bench) -> None:
    counts = await chaos(bench, rounds=3)
    assert counts["killed"]


ORPHANAGE = """
import asyncio
from keyreel.worker.process import PREPARER, Process
from tests.worker.conftest import FAKE_CHILD

async def main():
    processes = [await Process.start(command) for command in (FAKE_CHILD, PREPARER)]
    print(*(process.pid for process in processes), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_no_process_outlives_the_supervisor() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANAGE], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        assert len(children("tests.worker.fake_child", supervisor.pid)) == 1
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
    for handle in handles:
        assert _ends(handle)
        os.close(handle)


def _ends(handle: int) -> bool:
    return bool(select.select([handle], [], [], 10)[0])
