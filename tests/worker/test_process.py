import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from keyreel.video.events import Notice, Step
from keyreel.worker.messages import Stop
from keyreel.worker.process import Process, ProcessGoneError

ECHO = """
import os
from keyreel.worker.channel import Channel
from keyreel.worker.messages import Notice, Stop

channel = Channel.to_supervisor()
while True:
    match channel.receive():
        case Stop("exit"):
            raise SystemExit(3)
        case Stop("garbage"):
            os.write(channel._link.fileno(), bytes(4) + b"no message" * 10)
        case message:
            channel.send(Notice(os.environ.get("WORD", "")))
            channel.send(message)
"""


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    """A process that returns messages, with its environment variable WORD before each."""
    process = await Process.start((sys.executable, "-c", ECHO), {**os.environ, "WORD": "hello"})
    yield process
    await process.close()


@pytest.mark.slow
async def test_messages_go_to_the_process_and_come_back(process: Process) -> None:
    for message in (Step(3), Notice("a “circle”" * 100_000)):
        await process.send(message)
        assert await process.receive() == Notice("hello")
        assert await process.receive() == message
    assert not process.gone.is_set()


@pytest.mark.slow
async def test_a_process_that_exits_is_reported_with_its_status(process: Process) -> None:
    await process.send(Stop("exit"))
    for _ in range(2):
        with pytest.raises(ProcessGoneError, match=r"^exited with status 3$"):
            await process.receive()
    assert process.gone.is_set()
    await process.send(Step(1))  # raises nothing


async def test_a_process_that_is_killed_is_reported_with_the_signal(process: Process) -> None:
    os.kill(process.pid, signal.SIGSEGV)
    with pytest.raises(ProcessGoneError, match=r"^was killed by signal 11$"):
        await process.receive()


@pytest.mark.slow
async def test_a_process_that_sends_garbage_is_killed(process: Process) -> None:
    await process.send(Stop("garbage"))
    with pytest.raises(ProcessGoneError, match=r"^was killed by signal 9$"):
        await process.receive()
