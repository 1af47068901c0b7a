"""`keyreel models`: which models have a name, and which of them are here."""

from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from keyreel import catalogue
from keyreel.catalogue import CATALOGUE, GIB, ModelCard
from keyreel.checkpoint import Checkpoint, check_files, count_parameters, size_on_disk
from keyreel.errors import ModelError


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the catalogue. Sizes in bytes; `path` is None when its files are not on this machine."""

    name: str
    summary: str
    licence: str
    parameters: int | None
    size_on_disk: int
    download_size: int
    path: str | None


def models(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the models that have a name. Folders, files and hub repositories work too."""
    listed = [list_model(card) for card in CATALOGUE.values()]
    console = Console()
    if json:
        console.print_json(data=[asdict(model) for model in listed])
    else:
        console.print(_table(listed))


def list_model(card: ModelCard) -> Listed:
    try:
        checkpoint = catalogue.find_model(card.name)
        check_files(checkpoint)
    except ModelError:
        return _absent(card)
    return _present(card, checkpoint) if checkpoint.path else _absent(card)


def gib(size: int) -> str:
    """Bytes for people: GiB, or MiB where that says more."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.1f} MiB"


def _present(card: ModelCard, checkpoint: Checkpoint) -> Listed:
    parameters = count_parameters(checkpoint).total
    size = size_on_disk(checkpoint)
    return Listed(card.name, card.summary, card.licence, parameters, size, 0, str(checkpoint.path))


def _absent(card: ModelCard) -> Listed:
    parameters = card.parameters.total if card.parameters else None
    return Listed(card.name, card.summary, card.licence, parameters, 0, card.download_size, None)


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
