"""The OpenAPI document of an endpoint, in fal's form: OpenAPI 3.0 with fal's names, paths and extensions."""

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from keyreel.fal.endpoints import Endpoint
from keyreel.fal.outcomes import JsonObject
from keyreel.fal.responses import Cancellation, InputError, NotFound, PlainError, QueueStatus

EXAMPLES = "x-examples"
"""All examples of a field. OpenAPI 3.0 has room for one, `example`."""
_REF = "#/components/schemas/{model}"
_RESPONSES = (QueueStatus, Cancellation, NotFound, PlainError, InputError)
_REQUEST_ID = {"name": "request_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_LOGS = {
    "name": "logs",
    "in": "query",
    "required": False,
    "description": "Whether to include the log (`1`) or not (`0`).",
    "schema": {"type": "number"},
}


def describe(endpoint: Endpoint, base_url: str) -> JsonObject:
    """Returns the OpenAPI document of an endpoint's queue routes, with the names that client generators expect."""
    return {
        "openapi": "3.0.4",
        "info": {
            "title": f"Queue OpenAPI for {endpoint.id}",
            "version": "1.0.0",
            "description": f"The OpenAPI schema for the {endpoint.id} queue.",
            "x-fal-metadata": {
                "endpointId": endpoint.id,
                "category": endpoint.category,
                "thumbnailUrl": "",
                "playgroundUrl": base_url,
                "documentationUrl": f"{base_url}/models/{endpoint.id}/llms.txt",
            },
        },
        "components": {
            "securitySchemes": {
                "apiKeyAuth": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "Key id:secret",
                }
            },
            "schemas": schemas(endpoint),
        },
        "paths": _paths(endpoint.id, endpoint.schema_name),
        "servers": [{"url": f"{base_url}/queue"}],
        "security": [{"apiKeyAuth": []}],
    }


@cache
def schemas(endpoint: Endpoint) -> JsonObject:
    """Returns the schemas under fal's names: `<Name>Input`, `<Name>Output`, and those that they refer to."""
    name, output = endpoint.schema_name, endpoint.application.output
    names = {endpoint.input.__name__: f"{name}Input", output.__name__: f"{name}Output"}
    answers = [(model, "serialization") for model in (output, *_RESPONSES)]
    _, document = models_json_schema([(endpoint.input, "validation"), *answers], ref_template=_REF)  # type: ignore[list-item]
    models = document["$defs"]
    return {
        names.get(model, model): _object(schema, models) | {"title": names.get(model, model)}
        for model, schema in models.items()
    }


def _object(schema: JsonObject, models: JsonObject) -> JsonObject:
    properties = {name: _value(field, models) for name, field in schema["properties"].items()}
    return schema | {"properties": properties, "x-fal-order-properties": list(properties)}


def _value(source: JsonObject, models: JsonObject) -> JsonObject:
    """Converts the schema of a value to OpenAPI 3.0. models: the schemas that it may refer to.

    OpenAPI 3.0 has no null type, no numeric exclusive bounds, no constants, one example, and nothing beside a `$ref`.
    """
    schema = _without_null(source, models)
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if "exclusiveMaximum" in schema:
        schema["maximum"] = schema.pop("exclusiveMaximum") - 1
    if "examples" in schema:
        schema[EXAMPLES] = schema.pop("examples")
        schema["example"] = schema[EXAMPLES][0]
    if "items" in schema:
        schema["items"] = _value(schema["items"], models)
    if "$ref" in schema and len(schema) > 1:
        schema["allOf"] = [{"$ref": schema.pop("$ref")}]
    return schema


def _without_null(source: JsonObject, models: JsonObject) -> JsonObject:
    """Returns a copy that says `nullable`, which counts only beside a type: an object that may be null is copied."""
    schema = dict(source)
    options = schema.pop("anyOf", [])
    kinds = [option for option in options if option != {"type": "null"}]
    if len(kinds) > 1:
        schema["anyOf"] = kinds
    elif kinds:
        schema = kinds[0] | schema
    if len(kinds) == len(options):
        return schema
    if "$ref" in schema:
        schema = _object(models[schema.pop("$ref").rpartition("/")[2]], models) | schema
    schema["nullable"] = True
    if schema.get("default", "") is None:
        del schema["default"]
    return schema


def _paths(endpoint_id: str, name: str) -> JsonObject:
    """Returns the paths, with the full endpoint id and in fal's order."""
    request = f"/{endpoint_id}/requests/{{request_id}}"
    body = {"required": True, "content": _content(f"{name}Input")}
    status = {"200": "QueueStatus", "202": "QueueStatus", "401": "PlainError", "404": "NotFound"}
    submitted = {"200": "QueueStatus", "401": "PlainError", "422": "InputError", "429": "PlainError"}
    cancelled = dict.fromkeys(("200", "202", "400", "404"), "Cancellation") | {"401": "PlainError"}
    output = {
        "200": f"{name}Output",
        "400": "PlainError",
        "401": "PlainError",
        "404": "NotFound",
        "422": "InputError",
        "499": "PlainError",
        "500": "PlainError",
    }
    return {
        f"{request}/status": {"get": _operation("readStatus", status, parameters=[_REQUEST_ID, _LOGS])},
        f"{request}/cancel": {"put": _operation("cancel", cancelled, parameters=[_REQUEST_ID])},
        f"/{endpoint_id}": {"post": _operation("submit", submitted, requestBody=body)},
        request: {"get": _operation("readOutput", output, parameters=[_REQUEST_ID])},
    }


_MEANINGS = {
    "200": "The response.",
    "202": "The request, or its cancellation, is not completed yet.",
    "400": "Too early, or too late.",
    "401": "There is no valid key.",
    "404": "There is no such request.",
    "422": "The input is at fault.",
    "429": "The queue, or the key's share of it, is full.",
    "499": "The request was cancelled.",
    "500": "The server failed.",
}


def _operation(name: str, responses: dict[str, str], **parts: Any) -> JsonObject:
    """responses: the names of the schemas by status."""
    described = {
        status: {"description": _MEANINGS[status], "content": _content(schema)} for status, schema in responses.items()
    }
    return {"operationId": name, **parts, "responses": described}


def _content(schema: str) -> JsonObject:
    return {"application/json": {"schema": {"$ref": _REF.format(model=schema)}}}
