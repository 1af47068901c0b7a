"""The page's modules import each other in one direction: ui/ imports model/ and server/, model/ imports server/."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "web" / "src"
LAYERS = ["server", "model", "ui"]
"""Each layer may import itself and those before it."""
IMPORT = re.compile(r"""^(?:import|export)\b(?:[^;"']*\bfrom)?\s*["'](\.[^"']+)["']""", re.MULTILINE)
"""Relative `import ... from`, `import type ... from`, `import "..."` and `export ... from`."""
FILES = sorted(path for path in SOURCE.rglob("*.ts*") if path.suffix in {".ts", ".tsx"})


def imported(path: Path) -> set[Path]:
    """Returns the page's modules that a file imports, without style sheets."""
    targets = [(path.parent / name).resolve() for name in IMPORT.findall(path.read_text())]
    return {module(target) for target in targets if target.suffix != ".css"}


def module(target: Path) -> Path:
    candidates = [target.with_name(target.name + suffix) for suffix in (".ts", ".tsx")]
    return next(candidate for candidate in candidates if candidate in FILES)


def test_no_import_is_circular() -> None:
    graph = {path: imported(path) for path in FILES}
    assert any(graph.values())
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # Each module in the cycle is imported by the next one.
        cycle: list[Path] = error.args[1]
        pytest.fail(" -> ".join(str(path.relative_to(SOURCE)) for path in reversed(cycle)))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_itself_and_lower_layers(layer: str) -> None:
    files = [path for path in FILES if path.is_relative_to(SOURCE / layer)]
    assert files
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    wrong = [
        f"{path.relative_to(SOURCE)} -> {target.relative_to(SOURCE)}"
        for path in files
        for target in imported(path)
        if target.relative_to(SOURCE).parts[0] not in allowed
    ]
    assert wrong == []
