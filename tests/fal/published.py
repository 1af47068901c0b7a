"""The types that fal publishes, read from the source of its JavaScript client."""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.js import JS, install

TYPES = JS / "node_modules" / "@fal-ai" / "client" / "src" / "types" / "endpoints.d.ts"
_FIELD = re.compile(
    r"    /\*\*\n(?P<comment>(?:     \*.*\n)+?)     \*/\n    (?P<name>\w+)(?P<optional>\??): (?P<type>.*);"
)
_DEFAULT = re.compile(r"Default value: `(.*)`")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a published type. default: None if the comment names none. choices: of an enumeration."""

    required: bool
    default: Any
    choices: frozenset[str]
    model: str | None


@cache
def source() -> str:
    """Returns the text of the types. Skips the test without Node."""
    install()
    return TYPES.read_text(encoding="utf-8")


def endpoint_types(endpoint: str) -> tuple[str, str]:
    """Returns the names of an endpoint's input and output types."""
    found = re.search(rf'"{re.escape(endpoint)}": {{\s+input: (\w+);\s+output: (\w+);', source())
    assert found, f"fal's client does not know {endpoint}"
    return found[1], found[2]


def all_endpoints(pattern: str) -> set[str]:
    """Returns the ids of the endpoints whose names match."""
    return {
        name for name in re.findall(r'^    "([\w./-]+)": \{', source(), re.MULTILINE) if re.fullmatch(pattern, name)
    }


def fields_of(name: str) -> dict[str, Field]:
    """Returns the fields of a type by name. Follows a type that only names another."""
    if alias := re.search(rf"export type {name} = (\w+);", source()):
        return fields_of(alias[1])
    body = source().split(f"export type {name} = {{\n")[1].split("\n};")[0]
    return {found["name"]: _field(found) for found in _FIELD.finditer(f"{body}\n")}


def _field(found: re.Match[str]) -> Field:
    default = _DEFAULT.search(found["comment"])
    model = re.fullmatch(r"Array<(\w+)>|([A-Z]\w+)", found["type"])
    return Field(
        required=not found["optional"],
        default=_value(default[1]) if default else None,
        choices=frozenset(re.findall(r'"([^"]+)"', found["type"])),
        model=(model[1] or model[2]) if model else None,
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
