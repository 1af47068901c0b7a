"""`keyreel models`: lists, downloads, verifies and removes models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from keyreel.checkpoints import catalogue, checkpoint, hub
from keyreel.checkpoints.auxiliary import find_auxiliary_weights
from keyreel.checkpoints.catalogue import CATALOGUE, T5, TEXT_SIZE, ModelCard, find_model
from keyreel.checkpoints.checkpoint import Checkpoint, check_files, count_parameters, fingerprint, size_on_disk
from keyreel.checkpoints.memory import GIB
from keyreel.errors import ModelError
from keyreel.fal.endpoints import INPUTS
from keyreel.settings import Settings

FAILED = 1
TEXT_ENCODER = "text encoder"

models = typer.Typer(invoke_without_command=True, help="List, pull, verify and remove models.")

Name = Annotated[
    str,
    typer.Argument(help="Name, or on the hub owner/name or owner/name/file.safetensors, optionally with @REVISION."),
]


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the catalogue, or the text encoder. Sizes in bytes. path: None if files are missing here.

    applications: those of fal that were made for the model.
    """

    name: str
    summary: str
    licence: str
    applications: tuple[str, ...]
    parameters: int | None
    size_on_disk: int
    download_size: int
    path: str | None


@models.callback()
def list_models(
    context: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the models that have a name. Other models work by folder, file or hub repository."""
    if context.invoked_subcommand:
        return
    listed = [*map(list_model, CATALOGUE.values()), list_text_encoder()]
    console = Console()
    if json:
        console.print_json(data=[asdict(model) for model in listed])
    else:
        console.print(_table(listed))
        console.print(_notes(listed), markup=False, highlight=False)


@models.command()
def pull(name: Name) -> None:
    """Download a model, or its missing files. An interrupted download resumes."""
    with _errors_printed():
        here = catalogue.download(find_model(name))
        check_files(here)
        settings = Settings()
        find_auxiliary_weights(here, settings.recipe_settings)
        typer.echo(f"{here.name}: {gib(size_on_disk(here))} in {here.path}")
        typer.echo(f"SHA-256 {fingerprint(here, settings.cache_dir)}")


@models.command()
def verify(name: Name) -> None:
    """Read all files of a model and compare them with their published hashes."""
    with _errors_printed():
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
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete a model's downloaded files. Files that other models of the catalogue use are kept."""
    with _errors_printed():
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
            typer.echo("The text encoder is kept: other models here use it.")


def list_model(card: ModelCard) -> Listed:
    """Looks up a model of the catalogue on this machine, without the text encoder that it shares with others."""
    known = card.parameters
    own = known.transformer.total + known.vae if known else None
    applications = tuple(each.alias for each in INPUTS if card.name in each.models)
    absent = Listed(card.name, card.summary, card.licence, applications, own, 0, card.size, None)
    return _look_up(card, absent, text=not card.repo)


def list_text_encoder() -> Listed:
    """Looks up the text encoder that the models of the catalogue share."""
    card = next(card for card in CATALOGUE.values() if card.repo)
    absent = Listed(TEXT_ENCODER, "All ltxv models use it.", card.licence, (), T5.total, 0, TEXT_SIZE, None)
    return _look_up(card, absent, weights=False)


def _look_up(card: ModelCard, absent: Listed, *, weights: bool = True, text: bool = True) -> Listed:
    """Looks up parts of a model on this machine. absent: what to return if files are missing or damaged."""
    try:
        found = find_model(card.name)
        part = replace(found, path=found.path if weights else None, text=found.text if text else None)
        check_files(part)
    except ModelError:
        return absent
    folder = part.path or part.text
    if folder is None:
        return absent
    count = absent.parameters or count_parameters(part).total
    return replace(absent, parameters=count, size_on_disk=size_on_disk(part), download_size=0, path=str(folder))


def gib(size: int) -> str:
    """Formats bytes in GiB, or small numbers in MiB."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


@contextmanager
def _errors_printed() -> Iterator[None]:
    """Prints a ModelError of the block and ends the command."""
    try:
        yield
    except ModelError as error:
        typer.secho(f"keyreel: {error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(FAILED) from None


def _present(name: str) -> Checkpoint:
    found = find_model(name)
    if not found.is_present:
        raise ModelError(f"{name} is not on this machine. Download it with: keyreel models pull {name}")
    return found


def _report(path: Path) -> bool:
    """Prints the state of a file. Returns False if it differs from the published one."""
    verdict = hub.is_as_published(path)
    word = {True: "as published", False: "DAMAGED", None: "complete"}[verdict]
    note = " (no published hash to compare with)" if verdict is None else ""
    typer.echo(f"{word:<14}{path.parent.name}/{path.name}{note}")
    return verdict is not False


def _used_by_others(name: str) -> set[Path]:
    """Returns the files of the catalogue's other models that are complete on this machine."""
    this = find_model(name)
    others = [find_model(card.name) for card in CATALOGUE.values() if card.repo]
    return {
        path
        for other in others
        if other.is_present and (other.path, other.file) != (this.path, this.file)
        for path in checkpoint.files(other).values()
    }


def _table(listed: list[Listed]) -> Table:
    columns = (
        Column("Model", no_wrap=True),
        "Parameters",
        Column("Size", no_wrap=True),
        Column("Where", overflow="fold"),
    )
    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for model in listed:
        table.add_row(
            model.name,
            _count(model.parameters),
            gib(model.size_on_disk or model.download_size) if model.path or model.download_size else "-",
            Text(model.path or ("not downloaded" if model.download_size else "not in this installation")),
        )
    return table


def _notes(listed: list[Listed]) -> str:
    """Returns a line for each licence and each of fal's applications, with the models concerned."""
    names: dict[str, list[str]] = {}
    for model in listed:
        for note in (model.licence, *(f"fal's {alias}" for alias in model.applications)):
            names.setdefault(note, []).append(model.name)
    return "\n".join(f"{note}: {', '.join(models)}" for note, models in names.items())


def _count(parameters: int | None) -> str:
    if parameters is None:
        return "-"
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"
