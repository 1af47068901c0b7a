"""The processes of a fleet. Run as `python -m tests.server.members` for a worker with a fake engine."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import structlog

from keyreel.cli.local_server import LocalServer
from keyreel.server.process import Workers, listen, serve_workers, stop_on_signal
from keyreel.server.startup import open_services
from keyreel.settings import Settings
from tests.worker.conftest import FAKE_ENGINE_PROCESS

ADMIN = "operator:a long secret of the operator"
HEADERS = {"Authorization": f"Key {ADMIN}"}
PATIENCE = 120.0
"""Seconds that a process may take to start or to end, on a busy machine."""
GATEWAY = ("keyreel", "serve", "--no-worker", "--port", "0")
FAKE_WORKER = ("tests.server.members",)


def fleet_settings(database_url: str, folder: Path) -> dict[str, str]:
    """Returns what every process of a fleet needs in its environment."""
    return {
        "KEYREEL_DATABASE_URL": database_url,
        "KEYREEL_SECRET": "a secret that all processes share",
        "KEYREEL_PUBLIC_URL": "http://keyreel.example",
        "KEYREEL_OBJECT_STORE": str(folder / "objects"),
        "KEYREEL_CACHE_DIR": str(folder / "cache"),
        "KEYREEL_ADMIN_KEY": ADMIN,
        "KEYREEL_PROVENANCE": "false",
    }


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a fleet, started but perhaps not ready."""

    process: subprocess.Popen[str]
    folder: Path

    @classmethod
    def start(cls, folder: Path, settings: Mapping[str, str], *module: str) -> "Member":
        """Starts `python -m MODULE ...`, with a data folder of its own."""
        environment = os.environ | settings | {"KEYREEL_DATA_DIR": str(folder)}
        command = [sys.executable, "-m", *module]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        return cls(process, folder)

    def url(self) -> str:
        """Waits until the process listens. Returns its address on this machine. Raises RuntimeError if it ended."""
        assert self.process.stdout
        line = next((line for line in self.process.stdout if line.startswith("Keyreel")), None)
        if line is None:
            raise RuntimeError(f"The process ended with status {self.process.wait()}.")
        own = re.search(r"http://127\.0\.0\.1:\d+", line)
        local = LocalServer.find(self.folder)
        return own[0] if own else local.url if local else ""

    def end(self) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@contextmanager
def members(folder: Path, settings: Mapping[str, str]) -> Iterator[Callable[..., Member]]:
    """Yields a function that starts a member of the given name and module. Kills those that are left at the end."""
    started: list[Member] = []

    def start(name: str, *module: str) -> Member:
        started.append(Member.start(folder / name, settings, *module))
        return started[-1]

    try:
        yield start
    finally:
        for member in started:
            member.close()


def wait_until_ready(*urls: str) -> None:
    """Waits until all processes are ready. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    for url in urls:
        while not is_ready(url):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} is not ready")
            time.sleep(0.1)


def is_ready(url: str) -> bool:
    """Returns what a load balancer would ask for."""
    try:
        return httpx.get(f"{url}/health/ready", trust_env=False).is_success
    except httpx.HTTPError:
        return False


async def _main() -> None:
    settings, stop = Settings(), asyncio.Event()
    with listen("127.0.0.1", 0) as listener:
        async with open_services(settings, settings.public_url or "") as services:
            stop_on_signal(stop)
            print(f"Keyreel worker: http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
            await serve_workers(services, listener, [Workers("fake", ("cpu",), FAKE_ENGINE_PROCESS)], stop)


if __name__ == "__main__":
    # By default, structlog formats tracebacks for terminals, which takes seconds.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(_main())
