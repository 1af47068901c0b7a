"""fal's own JavaScript client, in the version of its lock file."""

import os
import shutil
import subprocess
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
