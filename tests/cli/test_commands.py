"""The `keyreel` command and its help."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer import Context
from typer.testing import CliRunner

import keyreel.cli
from keyreel.cli import SUMMARIES, app
from keyreel.version import __version__

HEAVY = ("alembic", "fastapi", "huggingface_hub", "numpy", "pydantic", "rich", "sqlalchemy", "torch")
COUNT = "import sys; from keyreel.cli import app; app(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
MODULES = {path.stem for path in Path(keyreel.cli.__file__).parent.glob("*.py")}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_answers_without_what_commands_need(option: str) -> None:
    done = subprocess.run([sys.executable, "-c", COUNT, option], capture_output=True, text=True, check=True, timeout=60)
    imported = done.stdout.splitlines()[-1].split()
    assert not set(imported) & set(HEAVY)
    assert [name for name in imported if name.startswith("keyreel.")] == ["keyreel.version", "keyreel.cli"]
    assert len(imported) < 400


def test_prints_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"keyreel {__version__}\n"


def test_every_command_has_a_summary_and_a_module() -> None:
    assert SUMMARIES.keys() <= MODULES
    shown = CliRunner().invoke(app, ["--help"], terminal_width=80).output
    for name, summary in SUMMARIES.items():
        assert f"\n  {name:<8}  {summary}\n" in shown


@pytest.mark.parametrize("name", SUMMARIES)
def test_help_of_a_command_fits_into_80_columns(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"], terminal_width=80)
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: keyreel {name} ")
    longest = max(len(line) for line in done.output.splitlines() if not line.startswith("  --"))
    assert longest <= 80


def test_a_misspelt_command_is_answered_with_the_nearest() -> None:
    done = CliRunner().invoke(app, ["genrate"])
    assert done.exit_code == 2
    assert "Did you mean 'generate'" in done.output


def test_commands_complete_in_a_shell() -> None:
    command = typer.main.get_command(app)
    context = Context(command, info_name="keyreel")
    assert [item.value for item in command.shell_complete(context, "m")] == ["migrate", "models"]
