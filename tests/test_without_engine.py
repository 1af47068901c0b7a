"""An installation without torch, as on a gateway."""

import subprocess
import sys
from pathlib import Path

import pytest

HIDE = """
import sys
sys.modules.update(dict.fromkeys(["torch", "c2pa"]))  # as if they were not installed
from keyreel.cli import app
app(sys.argv[1:], prog_name="keyreel")
"""


GENERATE = ("generate", "x", "--resolution", "480p")
SERVE = ("serve", "--port", "0", "--data-dir", "data")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "status", "advice"),
    [(GENERATE, 2, ""), (SERVE, 1, ", or start the server without workers"), (("worker",), 1, "")],
)
def test_says_that_the_engine_is_missing_before_anything_else(
    tmp_path: Path, command: tuple[str, ...], status: int, advice: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HIDE, *command], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == status
    expected = f"The engine is not installed (missing: torch). Run pip install 'keyreel[engine]'{advice}"
    assert done.stderr.removeprefix("keyreel: ").startswith(expected)
    assert not done.stdout
    assert not list(tmp_path.iterdir())
