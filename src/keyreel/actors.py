"""Workers on a Ray cluster. Each detached actor holds one `keyreel worker` process and the GPUs that this needs.

Ray places the actors and restarts them. Their processes find their settings where other workers do, in environment
variables: those with which Ray was started on the node.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from keyreel.errors import KeyreelError
from keyreel.settings import Settings
from keyreel.worker.channel import die_with_parent

NAMESPACE = "keyreel"
RESTART_PAUSE = 5.0
"""Seconds between the end of a worker process and its actor's. Ray restarts an actor at once."""
KILL_MARGIN = 60.0
"""Seconds that a worker gets beyond `KEYREEL_GRACE` to hand back what it holds."""
CONNECT_TIMEOUT = 5.0
"""Seconds to reach the cluster."""
ANSWER_TIMEOUT = 10.0
"""Seconds after which an actor counts as not started: it waits for a GPU, or its node is gone."""


@dataclass(frozen=True, slots=True)
class Held:
    """Where an actor runs. gpus: their numbers on the node. pid, worker_pid: the actor's process and its worker's."""

    node: str
    gpus: tuple[int, ...]
    pid: int
    worker_pid: int


class WorkerActor:
    """Holds one worker process. When either of the two dies, so does the other, and Ray starts both again."""

    def __init__(self, arguments: Sequence[str], first_port: int) -> None:
        """arguments: of `keyreel worker`. first_port: of the worker on GPU 0; 0 chooses free ports."""
        self._gpus = _assigned_gpus()
        port = first_port and first_port + self._gpus[0]
        command = [sys.executable, "-m", "keyreel.actors", str(os.getpid()), *arguments, "--port", str(port)]
        # Linux kills the worker when the thread that started it ends. Ray runs this in the main thread.
        self._worker = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603
        self._is_draining = False
        threading.Thread(target=self._end_with_worker, daemon=True).start()

    def held(self) -> Held:
        return Held(os.uname().nodename, self._gpus, os.getpid(), self._worker.pid)

    def drain(self) -> int:
        """Has the worker finish or hand back its request, and returns its exit status."""
        self._is_draining = True
        self._worker.terminate()
        try:
            return self._worker.wait(Settings().grace + KILL_MARGIN)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            return self._worker.wait()

    def _end_with_worker(self) -> None:
        self._worker.wait()
        if not self._is_draining:
            time.sleep(RESTART_PAUSE)
            os._exit(1)


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connects to a Ray cluster. Raises KeyreelError if Ray is not installed, or if there is no cluster."""
    try:
        import ray
    except ImportError:
        raise KeyreelError("Ray is not installed: pip install 'keyreel[ray]'") from None
    try:
        if ":" in address:  # Ray itself tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_TIMEOUT).close()
        ray.init(address, namespace=NAMESPACE, logging_level="warning", log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise KeyreelError(f"Cannot connect to the Ray cluster {address}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def start(arguments: Sequence[str], *, workers: int | None, gpus_each: int, first_port: int) -> int:
    """Starts the actors that are missing, and returns how many there are. workers: None is all that the GPUs allow.

    Raises KeyreelError if the cluster has too few GPUs.
    """
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    allowed = gpus // gpus_each
    wanted = allowed if workers is None else workers
    if wanted > allowed or not allowed:
        needed = max(wanted, 1) * gpus_each
        raise KeyreelError(f"{max(wanted, 1)} workers need {needed} GPUs, and the cluster has {gpus}.")
    actor: Any = ray.remote(WorkerActor)
    for name in [f"worker-{number}" for number in range(wanted)]:
        actor.options(
            name=name, lifetime="detached", max_restarts=-1, num_cpus=0, num_gpus=gpus_each, get_if_exists=True
        ).remote(list(arguments), first_port)
    return len(names())


def names() -> list[str]:
    import ray

    return sorted(ray.util.list_named_actors())


def find(name: str) -> Held | None:
    """Returns where an actor runs, or None if it does not run now."""
    import ray

    try:
        held: Held = ray.get(ray.get_actor(name).held.remote(), timeout=ANSWER_TIMEOUT)
    except (ray.exceptions.RayError, ValueError):
        return None
    return held


def stop() -> int:
    """Drains all workers at once, removes the actors, and returns how many there were."""
    import ray

    actors = {name: ray.get_actor(name) for name in names()}
    if drained := [actor.drain.remote() for name, actor in actors.items() if find(name)]:
        ray.wait(drained, num_returns=len(drained))
    for actor in actors.values():
        ray.kill(actor, no_restart=True)
    return len(actors)


def _assigned_gpus() -> tuple[int, ...]:
    import ray

    return tuple(int(number) for number in ray.get_gpu_ids())


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.executable, [sys.executable, "-m", "keyreel", "worker", *sys.argv[2:]])  # noqa: S606
