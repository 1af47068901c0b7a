"""fal's own JavaScript client and programs of others, in the versions of their lock files."""

import fcntl
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

JS = Path(__file__).parents[1] / "clients" / "js"
"""Programs in this folder can import the client."""


def install() -> None:
    """Installs the client. Skips the test when Node is missing."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed: @fal-ai/client is not tested")
    if not (JS / "node_modules" / "@fal-ai").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=JS, check=True, capture_output=True, timeout=100)


def environment(**variables: str) -> dict[str, str]:
    """Returns an environment with only the path and `variables`."""
    return {"PATH": os.environ["PATH"], **variables}


def install_programs(name: str) -> Path:
    """Copies the programs of `clients/NAME` to a cache outside the tree, with what they import. Returns the copy.

    The lock file names the copy, so equal ones are installed once. Skips the test when Node is missing.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip(f"node and npm are not installed: the programs in clients/{name} are not tested")
    source = JS.parent / name
    digest = sha256((source / "package-lock.json").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keyreel-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{digest}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may start at once
        if not (folder / "node_modules").is_dir():
            _install(source, folder)
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    return folder


def _install(source: Path, folder: Path) -> None:
    """Installs into a folder with another name, so that one which was stopped halfway is not taken for complete."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for file in ("package.json", "package-lock.json"):
        shutil.copy(source / file, partial)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=partial, check=True, capture_output=True, timeout=100)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
