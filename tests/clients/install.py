"""Installs clients from the registries into a cache outside the tree. Each is installed once."""

import fcntl
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.clients.table import BEFORE, Client

PROGRAMS = Path(__file__).parent / "programs"
TIMEOUT = 600
"""Seconds."""


class InstallError(Exception):
    """A client cannot be installed on this machine. The message says why."""


def command_of(client: Client) -> list[str]:
    """Installs a client where that is needed. Returns the command that runs its program."""
    if client.ecosystem == "python":
        python = sys.executable if _is_here(client) else str(_installed(client) / "bin" / "python")
        return [python, str(PROGRAMS / client.program), *client.arguments]
    # Node finds packages beside the program only.
    folder = _installed(client)
    shutil.copytree(PROGRAMS, folder, dirs_exist_ok=True)
    return ["node", str(folder / client.program), *client.arguments]


def _is_here(client: Client) -> bool:
    """Whether the tests' own environment has the client in just this version."""
    try:
        return all(version(name) == pin for name, _, pin in (each.partition("==") for each in client.packages))
    except PackageNotFoundError:
        return False


def _installed(client: Client) -> Path:
    digest = sha256("\n".join([client.ecosystem, sys.version, BEFORE, *client.packages]).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keyreel" / "clients"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / digest
    with (cache / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            install = _install_python if client.ecosystem == "python" else _install_node
            install(client, folder)
            (folder / "complete").touch()
    return folder


def _install_python(client: Client, folder: Path) -> None:
    uv = sys.executable, "-m", "uv"
    _run(*uv, "venv", "--quiet", "--python", sys.executable, str(folder))
    python = str(folder / "bin" / "python")
    _run(*uv, "pip", "install", "--quiet", "--exclude-newer", BEFORE, "--python", python, *client.packages)


def _install_node(client: Client, folder: Path) -> None:
    folder.mkdir()
    _run(
        *(
            "npm",
            "install",
            "--prefix",
            str(folder),
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--legacy-peer-deps",
        ),
        *(f"--before={BEFORE}", *client.packages),
    )


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.CalledProcessError as error:
        raise InstallError(error.stderr.strip()) from None
