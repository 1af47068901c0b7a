"""`llms.txt` says of each field what the schema says."""

import io
import json
import re
from base64 import b64decode
from typing import Any, Literal, get_args, get_origin

import pytest
from PIL import Image
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from keyreel.fal.endpoints import ENDPOINTS, Endpoint
from keyreel.fal.llms import PICTURE, example, explain

URL = "https://example.com/keyreel"
SECTION = re.compile(r"^##+ (?P<title>\w+)\n(?P<text>.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^- `(?P<name>\w+)` \((?P<facts>.*?)\): (?P<text>.+)$", re.MULTILINE)
KINDS = {str: "string", int: "integer", float: "number", bool: "boolean"}

each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)


def written(text: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Returns facts and description of each field, by section and name."""
    sections = {match["title"]: match["text"] for match in SECTION.finditer(text)}
    return {
        title: {field["name"]: (field["facts"], field["text"]) for field in FIELD.finditer(part)}
        for title, part in sections.items()
    }


def kind_of(annotation: Any) -> tuple[str, type[BaseModel] | None]:
    """Returns a type in words, and the model in it."""
    choices = [each for each in get_args(annotation) if each not in (type(None), Ellipsis)]
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f'`"{choice}"`' for choice in choices), None
    if get_origin(annotation) is tuple:
        return f"list of {choices[0].__name__}", choices[0]
    if choices:
        return kind_of(choices[0])
    if issubclass(annotation, BaseModel):
        return annotation.__name__, annotation
    return KINDS[annotation], None


def bounds_in(part: Any) -> list[Any]:
    """Returns the bounds of an annotated type."""
    return [limit for each in getattr(part, "__metadata__", ()) for limit in each.metadata]


def facts_of(field: FieldInfo) -> tuple[str, type[BaseModel] | None]:
    kind, model = kind_of(field.annotation)
    facts = [kind]
    bounds = [*field.metadata, *(limit for part in get_args(field.annotation) for limit in bounds_in(part))]
    limits = {type(limit).__name__.lower(): limit for limit in bounds}
    if "ge" in limits:
        facts.append(f"at least {limits['ge'].ge}")
    if "le" in limits:
        facts.append(f"at most {limits['le'].le}")
    if "lt" in limits:
        facts.append(f"at most {limits['lt'].lt - 1}")
    facts.append("required" if field.is_required() else "optional")
    if not field.is_required() and field.default is not None:
        facts.append(f"default `{json.dumps(field.default)}`")
    return ", ".join(facts), model


@each_endpoint
def test_each_field_is_described_as_it_is(endpoint: Endpoint) -> None:
    sections = written(explain(endpoint, URL))
    waiting: list[tuple[str, type[BaseModel]]] = [("Input", endpoint.input), ("Output", endpoint.application.output)]
    seen = set()
    for title, model in waiting:
        seen.add(title)
        assert list(sections[title]) == list(model.model_fields), title
        for name, field in model.model_fields.items():
            facts, inner = facts_of(field)
            assert sections[title][name][0] == facts, f"{title}.{name}"
            assert field.description is None or sections[title][name][1] == field.description
            waiting += [(inner.__name__, inner)] if inner and inner.__name__ not in seen else []
    assert seen == sections.keys() - {"Call"}


@each_endpoint
def test_the_example_is_valid(endpoint: Endpoint) -> None:
    text = explain(endpoint, URL)
    assert json.dumps(example(endpoint)) in text
    request = endpoint.read(example(endpoint))
    has_pictures = {"image_url", "images"} & endpoint.input.model_fields.keys()
    assert [image.image_url for image in request.images] == ([PICTURE] if has_pictures else [])


def test_the_picture_is_one() -> None:
    with Image.open(io.BytesIO(b64decode(PICTURE.partition(",")[2]))) as picture:
        picture.load()
        assert picture.getpixel((3, 3)) == (0, 90, 200)
