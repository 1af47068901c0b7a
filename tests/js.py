"""fal's own JavaScript client, at the version of its lock file."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

JS = Path(__file__).parents[1] / "clients" / "js"
"""Programs beside it find the client."""


def install() -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed: @fal-ai/client is not tried")
    if not (JS / "node_modules" / "@fal-ai").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=JS, check=True, capture_output=True, timeout=100)


def environment(**variables: str) -> dict[str, str]:
    """For a program to which nothing of the machine's own is known."""
    return {"PATH": os.environ["PATH"], **variables}
