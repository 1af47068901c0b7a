"""`keyreel models`: which models have a name, which of them are here, and their coming and going."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from keyreel import catalogue, checkpoint, hub
from keyreel.catalogue import CATALOGUE, ModelCard, find_model, missing_size
from keyreel.checkpoint import Checkpoint, check_files, count_parameters, fingerprint, size_on_disk
from keyreel.companions import find_companions
from keyreel.errors import ModelError
from keyreel.plans import GIB
from keyreel.settings import Settings

FAILED = 1

models = typer.Typer(invoke_without_command=True, help="Models: list, pull, verify, remove.")

Name = Annotated[
    str,
    typer.Argument(help="A name, or on the hub owner/name or owner/name/file.safetensors, with or without @REVISION."),
]


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the catalogue. Sizes in bytes; `path` is None when its files are not all on this machine."""

    name: str
    summary: str
    licence: str
    parameters: int | None
    size_on_disk: int
    download_size: int
    path: str | None


@models.callback()
def list_models(
    context: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the models that have a name. Folders, files and hub repositories work too."""
    if context.invoked_subcommand:
        return
    listed = [list_model(card) for card in CATALOGUE.values()]
    console = Console()
    if json:
        console.print_json(data=[asdict(model) for model in listed])
    else:
        console.print(_table(listed))


@models.command()
def pull(name: Name) -> None:
    """Download a model, or the rest of one. A download that was cut off goes on where it stopped."""
    with _complaints():
        here = catalogue.download(find_model(name))
        check_files(here)
        settings = Settings()
        find_companions(here, settings.wishes)
        typer.echo(f"{here.name}: {gib(size_on_disk(here))} in {here.path}")
        typer.echo(f"SHA-256 {fingerprint(here, settings.cache_dir)}")


@models.command()
def verify(name: Name) -> None:
    """Read all files of a model and compare them with the hashes that they were published with."""
    with _complaints():
        here = _present(name)
        check_files(here)
        if here.path:
            catalogue.check_identity(here, here.path)
        damaged = [path for path in checkpoint.files(here).values() if not _report(path)]
        if damaged:
            raise ModelError(f"Damaged: {', '.join(map(str, damaged))}. Remove the model and pull it again.")


@models.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model's downloaded files. What other models of the catalogue use stays."""
    with _complaints():
        paths = list(checkpoint.files(_present(name)).values())
        if foreign := [path for path in paths if not hub.is_cached(path)]:
            raise ModelError(f"{foreign[0].parent} was not downloaded by Keyreel. Delete it yourself.")
        shared = _used_by_others(name)
        mine = [path for path in paths if path not in shared]
        if not yes:
            size = sum(path.stat().st_size for path in mine)
            typer.confirm(f"Delete {gib(size)} of {name}?", abort=True)
        typer.echo(f"Freed {gib(hub.remove(mine))}.")
        if len(mine) < len(paths):
            typer.echo("The text encoder stays: other models here use it.")


def list_model(card: ModelCard) -> Listed:
    try:
        found = find_model(card.name)
        check_files(found)
        if found.is_present:
            parameters = count_parameters(found).total
            return Listed(card.name, card.summary, card.licence, parameters, size_on_disk(found), 0, str(found.path))
        missing = missing_size(card, found)
    except ModelError:
        missing = card.size
    known = card.parameters.total if card.parameters else None
    return Listed(card.name, card.summary, card.licence, known, 0, missing, None)


def gib(size: int) -> str:
    """Bytes for people: GiB, or MiB where that says more."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


@contextmanager
def _complaints() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        typer.secho(f"keyreel: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(FAILED) from None


def _present(name: str) -> Checkpoint:
    found = find_model(name)
    if not found.is_present:
        raise ModelError(f"{name} is not on this machine: keyreel models pull {name}")
    return found


def _report(path: Path) -> bool:
    """Prints a line about a file. False when it is not what was published."""
    verdict = hub.is_as_published(path)
    word = {True: "as published", False: "DAMAGED", None: "whole"}[verdict]
    note = " (no published hash to compare with)" if verdict is None else ""
    typer.echo(f"{word:<14}{path.parent.name}/{path.name}{note}")
    return verdict is not False


def _used_by_others(name: str) -> set[Path]:
    """Files of the catalogue's other models that are complete."""
    this = find_model(name)
    others = [find_model(card.name) for card in CATALOGUE.values() if card.repo]
    return {
        path
        for other in others
        if other.is_present and (other.path, other.file) != (this.path, this.file)
        for path in checkpoint.files(other).values()
    }


def _table(listed: list[Listed]) -> Table:
    table = Table(Column("Model", no_wrap=True), "Parameters", "Size", "Licence", Column("Where", overflow="fold"))
    for model in listed:
        table.add_row(
            model.name,
            _count(model.parameters),
            gib(model.size_on_disk or model.download_size) if model.path or model.download_size else "-",
            model.licence,
            Text(model.path or ("not downloaded" if model.download_size else "not in this installation")),
        )
    return table


def _count(parameters: int | None) -> str:
    if parameters is None:
        return "-"
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
