"""Documents for programs: the endpoints in fal's form of OpenAPI, `llms.txt`, and the public key of webhooks."""

import gzip
import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import PlainTextResponse, Response

from keyreel.fal.endpoints import Endpoint
from keyreel.fal.outcomes import JsonObject
from keyreel.fal.schema import SOURCE_FIELDS
from keyreel.server.dependencies import OPEN, CurrentServices, Services
from keyreel.server.errors import Json

router = APIRouter(tags=["documents"], dependencies=[OPEN])

_MEDIA = dict(zip(SOURCE_FIELDS.values(), ("image", "video", "file"), strict=True))
"""The kind of control that a form shows for a field."""
_REQUEST_ID = {"name": "request_id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
_STATUS_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]},
        "request_id": {"type": "string", "description": "The request id."},
        "response_url": {"type": "string", "description": "The response url."},
        "status_url": {"type": "string", "description": "The status url."},
        "cancel_url": {"type": "string", "description": "The cancel url."},
        "logs": {"type": "object", "description": "The logs.", "additionalProperties": True},
        "metrics": {"type": "object", "description": "The metrics.", "additionalProperties": True},
        "queue_position": {"type": "integer", "description": "The queue position."},
    },
    "required": ["status", "request_id"],
}


@router.get("/api/openapi/queue/openapi.json", summary="Get the OpenAPI document of an endpoint, in fal's form")
async def queue_document(
    services: CurrentServices,
    endpoint_id: Annotated[str | None, Query()] = None,
    accept_encoding: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    document = Json(describe(_find(services, endpoint_id), services.links.base_url))
    document.headers["Vary"] = "Accept-Encoding"
    return _compressed(document) if "gzip" in accept_encoding else document


@router.get("/{owner}/{alias}/openapi.json", include_in_schema=False)
@router.get("/run/{owner}/{alias}/openapi.json", include_in_schema=False)
async def application_document(owner: str, alias: str, services: CurrentServices) -> Json:
    endpoint = next(iter(services.endpoints.of_application(owner, alias)), None)
    return Json(describe(endpoint or services.endpoints.find(owner, alias, ""), services.links.base_url))


@router.get("/llms.txt", summary="Get a description of an endpoint for AI agents")
@router.get("/models/{endpoint_id:path}/llms.txt", include_in_schema=False)
async def llms_txt(services: CurrentServices, endpoint_id: str | None = None) -> PlainTextResponse:
    endpoint = _find(services, endpoint_id)
    return PlainTextResponse(explain(endpoint, services.links.base_url), media_type="text/markdown")


@router.get("/.well-known/jwks.json", summary="Get the public keys that verify webhooks")
async def jwks(services: CurrentServices) -> Json:
    return Json(services.signer.jwks(), headers={"Cache-Control": "public, max-age=86400"})


def _compressed(response: Response) -> Response:
    """Returns the response in gzip. The page waits for this document, which becomes a fifth as large."""
    content = gzip.compress(bytes(response.body), mtime=0)
    headers = {"Vary": response.headers["Vary"], "Content-Encoding": "gzip"}
    return Response(content, response.status_code, headers, response.media_type)


def describe(endpoint: Endpoint, base_url: str) -> JsonObject:
    """Returns the OpenAPI document of an endpoint's queue routes, with the names that client generators expect."""
    name = endpoint.schema_name
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
            "schemas": {"QueueStatus": _STATUS_SCHEMA} | _schemas(endpoint),
        },
        "paths": _paths(endpoint.id, name),
        "servers": [{"url": f"{base_url}/queue"}],
        "security": [{"apiKeyAuth": []}],
    }


def explain(endpoint: Endpoint, base_url: str) -> str:
    """Returns the `llms.txt` of an endpoint, in Markdown."""
    fields = "\n".join(_explain_field(name, field) for name, field in _properties(endpoint.input).items())
    outputs = "\n".join(_explain_field(name, field) for name, field in _properties(endpoint.application.output).items())
    return f"""# {endpoint.id}

{endpoint.summary}

- Submit: `POST {base_url}/queue/{endpoint.id}` with the input as JSON and `Authorization: Key <id>:<secret>`.
  The response contains `status_url`, `response_url` and `cancel_url`.
- To wait for the output instead: `POST {base_url}/run/{endpoint.id}`.
- OpenAPI: {base_url}/api/openapi/queue/openapi.json?endpoint_id={endpoint.id}
- fal's queue options work, too: webhooks (`?fal_webhook=`), logs (`?logs=1`), uploads (`/storage/upload/initiate`).

## Input

{fields}

## Output

{outputs}
"""


def _find(services: Services, endpoint_id: str | None) -> Endpoint:
    if endpoint_id is None:
        return services.endpoints.first
    owner, _, rest = endpoint_id.partition("/")
    alias, _, path = rest.partition("/")
    return services.endpoints.find(owner, alias, path)


def _explain_field(name: str, field: JsonObject) -> str:
    bounds = [f"{word} {field[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in field]
    kind = " or ".join(field["enum"]) if "enum" in field else field.get("type", "object")
    default = f", default `{json.dumps(field['default'])}`" if field.get("default") not in (None, "", []) else ""
    return f"- `{name}` ({' '.join([kind, *bounds])}{default}): {field.get('description', field.get('title', ''))}"


def _schemas(endpoint: Endpoint) -> JsonObject:
    """Returns the schemas under fal's names: `<Name>Input`, `<Name>Output`, and those that they refer to."""
    name, output = endpoint.schema_name, endpoint.application.output
    names = {endpoint.input.__name__: f"{name}Input", output.__name__: f"{name}Output"}
    _, document = models_json_schema(
        [(endpoint.input, "validation"), (output, "serialization")], ref_template="#/components/schemas/{model}"
    )
    return {
        names.get(model, model): _fal_schema(schema) | {"title": names.get(model, model)}
        for model, schema in document["$defs"].items()
    }


def _fal_schema(schema: JsonObject) -> JsonObject:
    properties = {name: _fal_property(name, field) for name, field in schema["properties"].items()}
    return schema | {"properties": properties, "x-fal-order-properties": list(properties)}


def _fal_property(name: str, field: JsonObject) -> JsonObject:
    """Converts a field to OpenAPI 3.0, which has no null type and no numeric exclusive bounds."""
    options = [option for option in field.pop("anyOf", ()) if option != {"type": "null"}]
    if options:
        field = options[0] | field | {"nullable": True}
    if "exclusiveMaximum" in field:
        field["maximum"] = field.pop("exclusiveMaximum") - 1
    if name in _MEDIA:
        field["ui"] = {"field": _MEDIA[name]}
    return field


def _properties(model: type[BaseModel]) -> JsonObject:
    return dict(_fal_schema(model.model_json_schema())["properties"])


def _paths(endpoint_id: str, name: str) -> JsonObject:
    """Returns the paths, with the full endpoint id and in fal's order."""
    request = f"/{endpoint_id}/requests/{{request_id}}"
    logs = {
        "name": "logs",
        "in": "query",
        "required": False,
        "schema": {"type": "number", "description": "Whether to include logs (`1`) in the response or not (`0`)."},
    }
    cancelled = {"type": "object", "properties": {"status": {"type": "string"}}}
    return {
        f"{request}/status": {"get": _operation(_ref("QueueStatus"), parameters=[_REQUEST_ID, logs])},
        f"{request}/cancel": {"put": _operation(cancelled, parameters=[_REQUEST_ID])},
        f"/{endpoint_id}": {
            "post": _operation(
                _ref("QueueStatus"), requestBody={"required": True, "content": _content(_ref(f"{name}Input"))}
            )
        },
        request: {"get": _operation(_ref(f"{name}Output"), parameters=[_REQUEST_ID])},
    }


def _operation(schema: JsonObject, **parts: Any) -> JsonObject:
    return parts | {"responses": {"200": {"description": "The response.", "content": _content(schema)}}}


def _content(schema: JsonObject) -> JsonObject:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{name}"}
