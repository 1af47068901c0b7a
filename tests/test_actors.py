"""Workers as actors of a real Ray cluster on this machine, whose two GPUs are only numbers, at a real PostgreSQL."""

import asyncio
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keyreel.actors import cluster, find
from keyreel.cli import app
from keyreel.fal.outcomes import Success
from keyreel.store import Store, open_store
from keyreel.store.records import NewRequest, State
from tests.store.postgres import find_programs, running_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux does a worker die with its actor")

ENDPOINT = "fal-ai/ltx-video-lora/multiconditioning"
INPUT = {
    "prompt": "a red circle",
    "resolution": "480p",
    "aspect_ratio": "1:1",
    "number_of_frames": 9,
    "number_of_steps": 1,
    "enable_safety_checker": False,
}
TIMEOUT = 300
PROCESS = re.compile(r"process (\d+) on \S+, GPU \((\d),\)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    programs = find_programs()
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    with running_server(programs) as url:
        yield url


@pytest.fixture(scope="module")
def address(database: str) -> Iterator[str]:
    """A Ray cluster of one node with two GPUs. Its environment holds the settings of a fleet."""
    pytest.importorskip("ray")
    # In a short path, because the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as name:
        settings = {
            "KEYREEL_DATABASE_URL": database,
            "KEYREEL_SECRET": "a secret that all processes share",
            "KEYREEL_PUBLIC_URL": "http://keyreel.example",
            "KEYREEL_OBJECT_STORE": f"{name}/objects",
            "KEYREEL_DATA_DIR": f"{name}/data",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }
        address = f"127.0.0.1:{free_port()}"
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={address[10:]}"]
        options = ["--num-cpus=2", "--num-gpus=2", "--include-dashboard=false", f"--temp-dir={name}"]
        with subprocess.Popen([*command, *options], env=os.environ | settings, stdout=subprocess.PIPE) as head:
            assert head.stdout
            assert any(b"Ray runtime started" in line for line in head.stdout)
            try:
                yield address
            finally:
                head.terminate()
                head.communicate(timeout=TIMEOUT)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with open_store(database) as store:
        yield store


def keyreel(address: str, *arguments: str, fails: bool = False) -> str:
    """Runs `keyreel ray` and returns what it prints."""
    done = CliRunner().invoke(app, ["ray", *arguments, "--address", address])
    assert done.exit_code == fails, done.output
    return done.stderr if fails else done.stdout


def placed(address: str, workers: int) -> dict[int, int]:
    """Waits until so many workers run. Returns the process of the worker on each GPU."""
    end = time.monotonic() + TIMEOUT
    # An actor that has not started within `ANSWER_TIMEOUT` is not listed.
    while time.monotonic() < end:
        found = {int(gpu): int(pid) for pid, gpu in PROCESS.findall(keyreel(address, "status"))}
        if len(found) == workers:
            return found
    raise TimeoutError(f"{len(found)} of {workers} workers run.")


def wait_for_end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([descriptor], [], [], TIMEOUT)
    os.close(descriptor)
    assert ended, f"process {pid} lives on"


async def finish_a_request(store: Store) -> None:
    """Submits a request and waits until a worker has completed it."""
    new = NewRequest(endpoint=ENDPOINT, key_id="key", input=INPUT, seed=1)
    request_id = (await store.queue.submit(new)).id
    async with asyncio.timeout(TIMEOUT):
        while True:
            changed = store.database.changes.any
            status = await store.requests.status(request_id)
            assert status is not None
            if status.state is State.COMPLETED:
                assert isinstance(status.outcome, Success), status.outcome
                return
            await changed.wait()


def test_a_cluster_that_is_not_there_is_an_error() -> None:
    pytest.importorskip("ray")
    assert "Cannot connect to the Ray cluster" in keyreel(f"127.0.0.1:{free_port()}", "status", fails=True)


@pytest.mark.slow
async def test_workers_are_started_restarted_and_drained(address: str, store: Store, checkpoint: Path) -> None:
    up = ("up", "--model", str(checkpoint), "--device", "cpu", "--port", "0")
    assert "3 workers need 3 GPUs, and the cluster has 2." in keyreel(address, *up, "--workers", "3", fails=True)
    assert keyreel(address, "status") == ""

    one = (*up, "--workers", "1")
    assert [keyreel(address, *one), keyreel(address, *one)] == ["Workers: 1\n"] * 2, "the same one"
    (first,) = placed(address, 1).values()
    await finish_a_request(store)

    # A worker that dies takes its actor along, and the other way round. Ray starts both again.
    os.kill(first, signal.SIGKILL)
    wait_for_end(first)
    await finish_a_request(store)
    with cluster(address):
        second = find("worker-0")
    assert second
    assert second.worker_pid != first
    os.kill(second.pid, signal.SIGKILL)
    wait_for_end(second.worker_pid)
    for worker in await store.workers.alive():
        await store.workers.remove(worker.name)  # the two that were killed; others report again

    assert keyreel(address, *up) == "Workers: 2\n", "one per GPU"
    workers = placed(address, 2)
    assert workers.keys() == {0, 1}
    assert keyreel(address, "down") == "Workers stopped: 2\n"
    for pid in workers.values():
        wait_for_end(pid)
    assert await store.workers.alive() == [], "a drained worker leaves the list"
    assert keyreel(address, "status") == ""
