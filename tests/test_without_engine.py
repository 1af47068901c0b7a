"""An installation without torch, as on a gateway."""

import subprocess
import sys
from pathlib import Path

import pytest

HIDE = "import sys; sys.modules['torch'] = None; from keyreel.cli import app; app(sys.argv[1:], prog_name='keyreel')"


@pytest.mark.slow
def test_generate_without_torch_says_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HIDE, "generate", "x", "--resolution", "480p"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("keyreel: The engine is not installed")
    assert "Traceback" not in done.stderr
