"""The server's own OpenAPI document."""

import json
import re
from typing import Any, cast

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from keyreel.server.app import create_app
from keyreel.server.dependencies import Services

SUBMIT = "/{owner}/{alias}/{path}"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document = create_app(cast("Services", None)).openapi()
    return cast("dict[str, Any]", json.loads(json.dumps(document)))


@pytest.mark.slow
def test_it_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_parameters_are_those_in_the_path(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
            assert sorted(named) == sorted(re.findall(r"{(\w+)}", path)), path


def test_the_queue_is_described(document: dict[str, Any]) -> None:
    submit = document["paths"][SUBMIT]["post"]
    assert submit["requestBody"]["content"]["application/json"]["schema"]["type"] == "object"
    assert submit["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["name"] == "Authorization"
    responses = document["paths"][f"{SUBMIT}/requests/{{request_id}}/status"]["get"]["responses"]
    for code in ("200", "202"):
        schema = responses[code]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/QueueStatus"}
    logs = document["components"]["schemas"]["QueueStatus"]["properties"]["logs"]
    assert {"type": "null"} in logs["anyOf"]


def test_open_routes_need_no_key(document: dict[str, Any]) -> None:
    assert "security" not in document["paths"]["/health"]["get"]
    assert "security" not in document["paths"]["/files/{token}/{name}"]["get"]
    assert document["paths"]["/files/upload"]["post"]["security"] == [{"key": []}]


def test_streams_are_described_without_newer_keywords(document: dict[str, Any]) -> None:
    stream = document["paths"][f"{SUBMIT}/requests/{{request_id}}/status/stream"]["get"]["responses"]["200"]
    assert stream["content"]["text/event-stream"] == {"schema": {"type": "string"}}
