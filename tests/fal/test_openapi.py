"""The OpenAPI documents of the endpoints."""

import json

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from keyreel.fal.endpoints import ENDPOINTS, MULTICONDITIONING, Endpoint
from keyreel.fal.openapi import describe
from keyreel.fal.schema import EXAMPLE_PROMPTS

URL = "https://example.com/keyreel"
each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.id)


@each_endpoint
def test_it_is_valid(endpoint: Endpoint) -> None:
    assert list(OpenAPIV30SpecValidator(describe(endpoint, URL)).iter_errors()) == []


@each_endpoint
def test_it_has_fals_form(endpoint: Endpoint) -> None:
    document = describe(endpoint, URL)
    assert document["openapi"] == "3.0.4"
    assert document["info"]["x-fal-metadata"]["endpointId"] == endpoint.id
    assert document["servers"] == [{"url": f"{URL}/queue"}]
    request = f"/{endpoint.id}/requests/{{request_id}}"
    assert list(document["paths"]) == [f"{request}/status", f"{request}/cancel", f"/{endpoint.id}", request]
    body = document["paths"][f"/{endpoint.id}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    name = body["$ref"].rpartition("/")[2]
    schema = document["components"]["schemas"][name]
    assert name == schema["title"] == f"{endpoint.schema_name}Input"
    assert list(schema["properties"]) == schema["x-fal-order-properties"]
    assert list(schema["properties"]) == list(endpoint.input.model_fields)
    assert f"{endpoint.schema_name}Output" in document["components"]["schemas"]


def test_fields_have_bounds_defaults_and_examples() -> None:
    schemas = describe(MULTICONDITIONING, URL)["components"]["schemas"]
    fields = schemas["LtxVideoLoraMulticonditioningInput"]["properties"]
    frames = fields["number_of_frames"]
    assert (frames["minimum"], frames["maximum"], frames["default"]) == (9, 161, 89)
    assert (fields["seed"]["nullable"], fields["seed"]["maximum"]) == (True, 2**63 - 1)
    assert fields["images"]["items"] == {"$ref": "#/components/schemas/ImageCondition"}
    assert (fields["prompt"]["example"], fields["prompt"]["x-examples"]) == (EXAMPLE_PROMPTS[0], list(EXAMPLE_PROMPTS))
    passes = schemas["Passes"]
    assert fields["passes"]["properties"] == passes["properties"]
    assert (fields["passes"]["type"], fields["passes"]["nullable"]) == ("object", True)
    assert schemas["LtxVideoLoraMulticonditioningOutput"]["properties"]["video"]["allOf"] == [
        {"$ref": "#/components/schemas/File"}
    ]


def test_it_uses_nothing_that_only_newer_versions_know() -> None:
    text = json.dumps(describe(MULTICONDITIONING, URL))
    for newer in ('"$defs"', '"const"', "exclusiveM", '"null"', '"examples"'):
        assert newer not in text
