"""Tables, and the fields of pydantic models in words."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from keyreel.settings import BaseURL

TYPES = {str: "string", int: "integer", float: "number", bool: "`true` or `false`", Path: "path"}
BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table without the columns that hold nothing."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    used = [column for column in range(len(headers)) if any(row[column] for row in cells)]
    lines = [headers, ["---"] * len(headers), *cells]
    return "\n".join("|".join(["", *(f" {line[column]} " for column in used), ""]) for line in lines)


def type_of(annotation: Any) -> str:
    """Returns a field's type in words; a model is a link to its heading. None is left out: a field is optional."""
    if annotation == BaseURL:
        return "URL"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_of(arguments[0])
    if origin is Literal:
        return any_of([f"`{choice}`" for choice in arguments])
    if origin in (Union, UnionType):
        return any_of([type_of(argument) for argument in arguments if argument is not type(None)])
    if origin is tuple:
        return f"list of {type_of(arguments[0])}"
    if issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return TYPES[annotation]


def any_of(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def bounds(field: FieldInfo) -> str:
    limits = {
        name: number(value)
        for limit in field.metadata
        for name in BOUNDS
        if (value := getattr(limit, name, None)) is not None
    }
    if limits.keys() == {"ge", "le"}:
        return f"{limits['ge']} to {limits['le']}"
    return ", ".join(f"{BOUNDS[name]} {limit}" for name, limit in limits.items())


def number(value: Any) -> str:
    if abs(value) == 2**63:
        return "-2^63" if value < 0 else "2^63"
    return str(int(value)) if value == int(value) else str(value)


def aliases(name: str, field: FieldInfo) -> list[str]:
    """Returns the other names under which a field is read."""
    alias = field.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else []
    return [str(choice) for choice in choices if choice != name]
