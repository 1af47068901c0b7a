"""The endpoint's fields as flags: help from the schema, short forms for conditions and LoRAs."""

import re
from pathlib import Path
from typing import Any

import typer
from pydantic_core import PydanticUndefined
from typer.models import OptionInfo

from keyreel.schema import Request

PINNED = re.compile(r"(?P<source>.*?)(@(?P<frame>\d+)(:(?P<strength>[\d.]+))?)?", re.DOTALL)
WEIGHTED = re.compile(r"(?P<source>.*?)(#(?P<file>[^#@]+))?(@(?P<scale>-?[\d.]+))?", re.DOTALL)


def flag(name: str, form: str | None = None) -> OptionInfo:
    """The option for a field of the request. `form` says how an item of a list is written."""
    field = Request.model_fields[name]
    bounds = {type(item).__name__: item for item in field.metadata}
    parts = [field.description or ""]
    if "Ge" in bounds and "Le" in bounds:
        parts.append(f"{bounds['Ge'].ge} to {bounds['Le'].le}.")
    if form:
        parts.append(f"{form}, can be repeated.")
    elif field.default not in (None, PydanticUndefined):
        parts.append(f"Default: {str(field.default).lower() if isinstance(field.default, bool) else field.default}.")
    option: OptionInfo = typer.Option(help=" ".join(parts), show_default=False)
    return option


def pinned(value: str, key: str) -> dict[str, Any]:
    """`SOURCE[@FRAME[:STRENGTH]]` as an item of `images` (key `image_url`) or `videos` (`video_url`)."""
    match = PINNED.fullmatch(value)
    assert match, "a source is any text"  # noqa: S101
    item: dict[str, Any] = {key: _anchored(match["source"])}
    if match["frame"]:
        item["start_frame_number"] = match["frame"]
    if match["strength"]:
        item["strength"] = match["strength"]
    return item


def weighted(value: str) -> dict[str, Any]:
    """`SOURCE[#WEIGHT_NAME][@SCALE]` as an item of `loras`."""
    match = WEIGHTED.fullmatch(value)
    assert match, "a source is any text"  # noqa: S101
    item = {"path": _anchored(match["source"]), "weight_name": match["file"], "scale": match["scale"]}
    return {key: part for key, part in item.items() if part is not None}


def _anchored(source: str) -> str:
    """A path on the command line starts at the current folder, whatever folder a --request file is in."""
    return str(Path(source).absolute()) if Path(source).exists() else source
