"""Imports between packages, checked against the table in docs/architecture.md."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "keyreel"
ROW = re.compile(r"^\| `(?P<name>\w+?)(?:/|\.py)` \|[^|]*\| (?P<imports>[^|]*) \|$", re.MULTILINE)
DOCSTRING = re.compile(r"^May import: (?P<imports>[^.]*)\.$", re.MULTILINE)
EVERYTHING = "everything"


def read_table() -> dict[str, set[str]]:
    """Returns what each package or top-level module of `keyreel` may import from the others."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = {match["name"]: set(re.findall(r"\w+", match["imports"])) for match in ROW.finditer(text)}
    return {name: set(rows) if imports == {EVERYTHING} else imports for name, imports in rows.items()}


ALLOWED = read_table()


def modules() -> dict[str, Path]:
    """Returns the file of every module by its dotted name below `keyreel`."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


def imported(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Yields what a file imports at its top. everywhere: also inside functions and for type checking."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if everywhere else tree.body:
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{alias.name}" for alias in names)


def imported_modules(path: Path, *, everywhere: bool) -> set[str]:
    """Returns the modules of `keyreel` that a file imports."""
    found = set()
    for name in imported(path, everywhere=everywhere):
        inner = name.removeprefix("keyreel.") if name.startswith("keyreel.") else None
        while inner and inner not in MODULES:
            inner = inner.rpartition(".")[0]
        if inner:
            found.add(inner)
    return found


def package_of(module: str) -> str:
    """Returns the package or top-level module that a module belongs to."""
    return module.partition(".")[0]


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"", "__main__"}))
def test_imports_are_in_the_table(module: str) -> None:
    allowed = ALLOWED[package_of(module)] | {package_of(module)}
    imports = {package_of(name) for name in imported_modules(MODULES[module], everywhere=True)}
    assert imports <= allowed, f"{module} may not import {', '.join(sorted(imports - allowed))}"


def test_table_has_one_row_per_package() -> None:
    assert ALLOWED.keys() == {package_of(module) for module in MODULES} - {"", "__main__"}


@pytest.mark.parametrize("package", sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")))
def test_docstring_of_a_package_agrees_with_the_table(package: str) -> None:
    if package == "cli":
        return
    stated = DOCSTRING.search(import_module(f"keyreel.{package}").__doc__ or "")
    assert stated
    assert set(re.findall(r"\w+", stated["imports"])) == ALLOWED[package]


def test_no_import_cycles() -> None:
    packages = {name: {other for other in imports if other != name} for name, imports in ALLOWED.items()}
    files = {module: imported_modules(path, everywhere=False) - {module} for module, path in MODULES.items()}
    for graph in (packages, files):
        try:
            tuple(TopologicalSorter(graph).static_order())
        except CycleError as error:
            pytest.fail(" -> ".join(error.args[1]))


def loaded(statement: str) -> set[str]:
    """Returns the top-level packages that a new interpreter has loaded after a statement."""
    check = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


TORCH = {"torch", "diffusers", "transformers"}
NETWORK = {"aiohttp", "cryptography", "huggingface_hub", "sqlalchemy"}


@pytest.mark.slow
def test_command_and_server_need_no_torch() -> None:
    assert not loaded("import keyreel.cli, keyreel.server.process") & TORCH


@pytest.mark.slow
@pytest.mark.parametrize("process", ["engine_process", "decode_process"])
def test_worker_processes_start_without_network_libraries(process: str) -> None:
    assert not loaded(f"import keyreel.worker.{process}") & (NETWORK | TORCH)


@pytest.mark.slow
def test_import_of_keyreel_is_light_and_has_no_side_effects() -> None:
    assert not loaded("import keyreel") & (NETWORK | TORCH | {"PIL", "av", "pydantic"})
    assert not loaded("import keyreel, PIL.Image; assert PIL.Image.MAX_IMAGE_PIXELS; keyreel.generate") & TORCH
    loaded("import PIL.Image, keyreel.local, keyreel.media.images; assert PIL.Image.MAX_IMAGE_PIXELS")


@pytest.mark.slow
def test_engine_imports_no_network_library() -> None:
    """transformers and diffusers import the hub's client, but nothing imports aiohttp or SQLAlchemy."""
    everything = (f"import keyreel.{module}" for module in MODULES if package_of(module) == "engine")
    assert not loaded("; ".join(everything)) & {"aiohttp", "sqlalchemy"}


def test_only_the_engine_imports_torch() -> None:
    for module, path in MODULES.items():
        names = {name.partition(".")[0] for name in imported(path, everywhere=False)}
        assert package_of(module) == "engine" or not names & TORCH, module
