"""Turns the endpoint's fields into flags, and parses the short forms of conditions and LoRAs."""

import re
from pathlib import Path
from typing import Any

import typer
from pydantic_core import PydanticUndefined
from typer.models import OptionInfo

from keyreel.fal.schema import Request

CONDITION = re.compile(r"(?P<source>.*?)(@(?P<frame>\d+)(:(?P<strength>[\d.]+))?)?", re.DOTALL)
LORA = re.compile(r"(?P<source>.*?)(#(?P<file>[^#@]+))?(@(?P<scale>-?[\d.]+))?", re.DOTALL)


def flag(name: str, form: str | None = None) -> OptionInfo:
    """Returns the option for a field of the request. form: the short form of an item, if the field is a list."""
    field = Request.model_fields[name]
    bounds = {type(item).__name__: item for item in field.metadata}
    parts = [field.description or ""]
    if "Ge" in bounds and "Le" in bounds:
        parts.append(f"{bounds['Ge'].ge} to {bounds['Le'].le}.")
    if form:
        parts.append(f"Format: {form}. Can be repeated.")
    elif field.default not in (None, PydanticUndefined):
        parts.append(f"Default: {str(field.default).lower() if isinstance(field.default, bool) else field.default}.")
    option: OptionInfo = typer.Option(help=" ".join(parts), show_default=False)
    return option


def parse_condition(value: str, key: str) -> dict[str, Any]:
    """Parses `SOURCE[@FRAME[:STRENGTH]]` to an item of `images` (key `image_url`) or `videos` (key `video_url`)."""
    match = CONDITION.fullmatch(value)
    assert match, "any text matches"  # noqa: S101
    item: dict[str, Any] = {key: _absolute(match["source"])}
    if match["frame"]:
        item["start_frame_number"] = match["frame"]
    if match["strength"]:
        item["strength"] = match["strength"]
    return item


def parse_lora(value: str) -> dict[str, Any]:
    """Parses `SOURCE[#WEIGHT_NAME][@SCALE]` to an item of `loras`."""
    match = LORA.fullmatch(value)
    assert match, "any text matches"  # noqa: S101
    item = {"path": _absolute(match["source"]), "weight_name": match["file"], "scale": match["scale"]}
    return {key: part for key, part in item.items() if part is not None}


def _absolute(source: str) -> str:
    """Makes a path absolute: on the command line it is relative to the current folder, not to a --request file."""
    try:
        return str(Path(source).absolute()) if Path(source).exists() else source
    except OSError:  # such as a data URI, which is too long for a path
        return source
