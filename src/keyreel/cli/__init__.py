"""The `keyreel` command."""

from typing import Annotated

import typer

from keyreel.cli.audit import audit
from keyreel.cli.doctor import doctor
from keyreel.cli.generate import generate
from keyreel.cli.keys import keys
from keyreel.cli.migrate import migrate
from keyreel.cli.models import models
from keyreel.cli.ray import ray
from keyreel.cli.repair import repair
from keyreel.cli.serve import serve
from keyreel.cli.worker import worker
from keyreel.cli.wrap import wrap
from keyreel.fal.schema import EXAMPLE_PROMPTS
from keyreel.version import __version__

app = typer.Typer(
    name="keyreel",
    help="Generate videos from prompts, pictures, clips and LoRAs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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


app.command(epilog="Prompts that the demo model understands:\n\n" + "\n\n".join(EXAMPLE_PROMPTS))(generate)
app.command()(serve)
app.command()(worker)
app.command()(migrate)
app.command()(repair)
app.add_typer(ray, name="ray")
app.add_typer(keys, name="keys")
app.command()(audit)
app.add_typer(models, name="models")
app.command()(doctor)
app.command()(wrap)
