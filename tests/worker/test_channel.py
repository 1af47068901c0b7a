import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from keyreel.video.events import Notice, Step
from keyreel.worker.channel import Channel
from keyreel.worker.messages import encode
from tests.worker.conftest import FAKE_DECODE_PROCESS, FAKE_ENGINE_PROCESS, Bench, Gate
from tests.worker.processes import children

SUPERVISOR = """
import asyncio
from keyreel.worker.process import DECODE_PROCESS, Process
from tests.worker.conftest import FAKE_ENGINE_PROCESS

async def main():
    processes = [await Process.start(command) for command in (FAKE_ENGINE_PROCESS, DECODE_PROCESS)]
    print(*(process.pid for process in processes), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_messages_pass_in_both_directions_until_the_supervisor_closes_the_pipe() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(theirs)
        with ours:
            assert not channel.has_message()
            ours.sendall(encode(Notice("x" * 10_000)))
            assert channel.has_message()
            assert channel.receive() == Notice("x" * 10_000)
            channel.send(Step(3))
            assert ours.recv(1000) == encode(Step(3))
            ours.sendall(encode(Step(4))[:-1])
        with pytest.raises(EOFError):
            channel.receive()


@pytest.mark.slow
def test_no_process_outlives_its_supervisor() -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        pids = [int(pid) for pid in supervisor.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        assert len(children("tests.worker.fake_engine_process", supervisor.pid)) == 1
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
    for handle in handles:
        assert _ends(handle)
        os.close(handle)


def _ends(handle: int) -> bool:
    return bool(select.select([handle], [], [], 10)[0])


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_started_processes_ignore_requests_to_stop(
    shared_bench: Bench, gate: Gate, number: signal.Signals
) -> None:
    """A terminal's Ctrl-C and a service manager's stop reach them as well, but the supervisor decides."""
    request = await shared_bench.submit(gate.prompt)
    gate.open()
    await shared_bench.wait_for_step(request, 1)
    for module in (FAKE_ENGINE_PROCESS[-1], FAKE_DECODE_PROCESS[-1]):
        (pid,) = children(module)
        os.kill(pid, number)
    gate.open()
    await shared_bench.output(request)
    assert (await shared_bench.completed(request)).attempt == 1
