"""The `keyreel` command. A command's module is imported when the command is used, so that help comes at once."""

from importlib import import_module
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from keyreel.version import __version__

SUMMARIES = {
    "generate": "Generate a video.",
    "serve": "Serve fal's API, with queue, workers and files on this machine.",
    "worker": "Run the workers of one machine in a fleet.",
    "migrate": "Bring the database's tables up to date.",
    "repair": "Rescue what can be read from a damaged SQLite database.",
    "ray": "Run workers on a Ray cluster.",
    "keys": "Manage the API keys of the server.",
    "audit": "Show who created and revoked keys, signed in and deleted.",
    "models": "List, pull, verify and remove models.",
    "doctor": "Check what this machine can run, and what it lacks.",
    "wrap": "Run a program that calls fal.ai against a Keyreel server.",
}
"""What each command does, in a line. The command `x` is `x` in the module `keyreel.cli.x`."""


class Commands(TyperGroup):
    """The commands by name: only their summaries, until one is chosen."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=summary) for name, summary in SUMMARIES.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, _load(name) if name in SUMMARIES else command, rest


def _load(name: str) -> Any:
    """Imports a command, or a group of commands."""
    module = import_module(f"keyreel.cli.{name}")
    found = getattr(module, name)
    parent = _typer()
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name, epilog=getattr(module, "EPILOG", None))(found)
    return typer.main.get_group(parent).commands[name]


def _typer(**options: Any) -> typer.Typer:
    # Without markup, help has two columns and no frames. With it, a terminal of 80 columns shows three words a line.
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, **options)


app = _typer(
    name="keyreel", cls=Commands, help="Generate videos from prompts, pictures, clips and LoRAs.", no_args_is_help=True
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"keyreel {__version__}")
        raise typer.Exit


@app.callback()
def keyreel(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Generate videos from prompts, pictures, clips and LoRAs."""
