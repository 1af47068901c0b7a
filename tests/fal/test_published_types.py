"""The fields of every endpoint are those of the types that fal publishes: names, defaults and choices."""

from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from keyreel.fal.endpoints import DEV, DISTILLED, DISTILLED_098, ENDPOINTS, Endpoint
from keyreel.fal.two_passes import STEPS
from tests.fal.published import all_endpoints, endpoint_types, fields_of

FAMILY = r"fal-ai/(ltx-video|ltx-video-v09[57]|ltx-video-13b-\w+|ltx-video-lora|ltxv-13b-098-distilled)(/[\w-]+)?"
FOR_OTHER_MODELS = {"transformer"}
"""Fields of shared types that have no meaning for LTX-Video. Unknown fields are ignored."""
STEPS_OF_A_SIBLING = [
    endpoint
    for endpoint in ENDPOINTS.values()
    if (endpoint.application is DEV and endpoint.path)
    or (endpoint.application in (DISTILLED, DISTILLED_098) and not endpoint.path)
]
"""Endpoints with the published type of a sibling, whose numbers of steps differ. fal's pages have the right ones."""


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_input_is_the_published_one(endpoint: Endpoint) -> None:
    other_steps = set(STEPS) if endpoint in STEPS_OF_A_SIBLING else set()
    assert differences(endpoint.input, endpoint_types(endpoint.id)[0], other_steps) == []


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_output_is_the_published_one(endpoint: Endpoint) -> None:
    published = fields_of(endpoint_types(endpoint.id)[1])
    assert endpoint.application.output.model_fields.keys() == published.keys()


def test_the_whole_family_is_served() -> None:
    assert ENDPOINTS.keys() == all_endpoints(FAMILY)


@pytest.mark.parametrize("endpoint", STEPS_OF_A_SIBLING, ids=lambda endpoint: endpoint.id)
def test_published_steps_are_those_of_a_sibling(endpoint: Endpoint) -> None:
    """Fails when fal corrects its types."""
    published = fields_of(endpoint_types(endpoint.id)[0])
    own = {name: field.default for name, field in endpoint.input.model_fields.items()}
    assert all(published[name].default != own[name] for name in STEPS if name in published)


def differences(model: type[BaseModel], published: str, other_defaults: set[str]) -> list[str]:
    """Returns what is wrong with a model, a sentence each."""
    wrong = []
    for name, field in fields_of(published).items():
        if name in FOR_OTHER_MODELS:
            continue
        own = find(model, name)
        if own is None:
            wrong.append(f"{published}.{name} is missing")
            continue
        if own.is_required() != field.required:
            wrong.append(f"{published}.{name} is required: {field.required}")
        if field.default is not None and name not in other_defaults and own.default != field.default:
            wrong.append(f"{published}.{name} has the default {field.default}, not {own.default}")
        if field.choices and choices(own.annotation) != field.choices:
            wrong.append(f"{published}.{name} has the choices {sorted(field.choices)}")
        if field.model and (nested := model_in(own.annotation)):
            wrong += differences(nested, field.model, set())
    return wrong


def find(model: type[BaseModel], name: str) -> FieldInfo | None:
    """Returns the field that is read from `name`. An alias counts."""
    aliases = (field for field in model.model_fields.values() if name in getattr(field.validation_alias, "choices", ()))
    return model.model_fields.get(name) or next(aliases, None)


def choices(annotation: Any) -> set[str]:
    return set(get_args(annotation)) if get_origin(annotation) is Literal else set()


def model_in(annotation: Any) -> type[BaseModel] | None:
    parts = (annotation, *get_args(annotation))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
