"""fal's own JavaScript client and programs of others, in the versions of their lock files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cache import cached

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


def install_packages(name: str) -> Path:
    """Installs the packages of `clients/NAME` into a cache outside the tree. Returns their folder.

    Skips the test when Node is missing.
    """
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip(f"node and npm are not installed: the programs in clients/{name} are not tested")
    source = JS.parent / name

    def install_into(folder: Path) -> None:
        for file in ("package.json", "package-lock.json"):
            shutil.copy(source / file, folder)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=100)

    return cached(name, source / "package-lock.json", install_into)


def install_programs(name: str) -> Path:
    """Copies the programs of `clients/NAME` into the folder of their packages. Returns it."""
    folder = install_packages(name)
    shutil.copytree(JS.parent / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    return folder
