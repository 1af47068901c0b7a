"""Who may import whom: the gateway runs without torch, the engine without the network."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "keyreel"
ENGINE_ONLY = {"torch", "diffusers", "transformers"}
NETWORK = {"aiohttp", "fastapi", "uvicorn", "sqlalchemy", "huggingface_hub", "keyreel.fetch", "keyreel.store"}


def imported(path: Path) -> set[str]:
    """Modules that a file imports at its top, and all packages they lie in."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.Import(aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module)):
                names.add(module)
    return {".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 2)}


def test_the_package_and_its_command_need_no_torch() -> None:
    check = f"import keyreel.cli, sys; print(sorted({ENGINE_ONLY} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    forbidden = NETWORK if path.is_relative_to(SOURCE / "engine") else ENGINE_ONLY
    if path == SOURCE / "worker" / "child.py":
        forbidden = NETWORK
    assert not imported(path) & forbidden
