"""Writes locks/: `make lock`, or `python -m supply.lock`.

A lock lists what an install brings, with the versions of constraints.txt and the hashes of all files that PyPI has of
them. torch and what only torch needs are left out: which build fits depends on the machine, and each index has its own
files.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "locks"
EXTRAS: dict[str, list[str]] = {"gateway": [], "engine": ["--extra", "engine"]}
NO_TORCH = 'torch ; python_version < "3"\n'
OPTIONS = ["--generate-hashes", "--universal", "--python-version", "3.11", "--no-annotate", "--no-header", "--quiet"]


def write(name: str, folder: Path = LOCKS) -> Path:
    """Resolves one install and writes its lock. Asks PyPI."""
    path = folder / f"{name}.txt"
    with TemporaryDirectory() as temporary:
        overrides = Path(temporary) / "overrides.txt"
        overrides.write_text(NO_TORCH)
        pinned = ["--constraint", "constraints.txt", "--override", str(overrides), "--output-file", str(path)]
        command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", *EXTRAS[name], *OPTIONS, *pinned]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603
    return path


if __name__ == "__main__":
    for each in EXTRAS:
        write(each)
