"""The server's own OpenAPI document, `/openapi.json`, and what its routes add to it.

FastAPI finds most of it in the routes. It does not see what a route reads from the request itself.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from keyreel.fal.responses import Cancellation, InputError, NotFound, PlainError, QueueStatus
from keyreel.server.dependencies import require_key

KEYED: dict[str, Any] = {"security": [{"key": []}]}
"""For routes that need a key. `Application` finds those that depend on `require_key`."""
_KEY = {"type": "apiKey", "in": "header", "name": "Authorization", "description": "`Key <id>:<secret>`"}
_STRING = {"type": "string"}
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_INPUT = {"type": "object", "additionalProperties": True}
PATH: dict[str, Any] = {"parameters": [{"name": "path", "in": "path", "required": True, "schema": _STRING}]}
"""For routes with the endpoint's path in the URL."""
FILE_NAME: dict[str, Any] = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": _STRING}]}
"""For routes of files, which end in a name that only people read."""
FILE_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": _BINARY}}
NAMED_FILE: dict[str, Any] = {
    "parameters": [{"name": "X-Fal-File-Name", "in": "header", "required": False, "schema": _STRING}]
}
INPUT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The input of the endpoint. `/api/openapi/queue/openapi.json` describes its fields.",
        "content": {"application/json": {"schema": _INPUT}},
    }
}

Responses = dict[int | str, dict[str, Any]]

_NOT_FOUND: Responses = {404: {"model": NotFound}}
SUBMITTED: Responses = {200: {"model": QueueStatus}, 429: {"model": PlainError}}
STATUS: Responses = {200: {"model": QueueStatus}, 202: {"model": QueueStatus}, **_NOT_FOUND}
CANCELLED: Responses = {code: {"model": Cancellation} for code in (200, 202, 400, 404)}
OUTPUT: Responses = {200: {"content": {"application/json": {"schema": _INPUT}}}, 422: {"model": InputError}}
RESULT: Responses = OUTPUT | {400: {"model": PlainError}} | _NOT_FOUND
FILE: Responses = {200: {"content": _BINARY}}


class Application(FastAPI):
    """Describes its streams in OpenAPI 3.1, and which routes need a key.

    For streams, FastAPI uses a keyword of 3.2, which few programs know. It would find the key if that were a dependency
    of its own, which would slow each call down.
    """

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["securitySchemes"] = {"key": _KEY}
        for context in iter_route_contexts(self.routes):
            if context.include_in_schema and _needs_key(context.dependant):
                for method in context.methods or ():
                    document["paths"][context.path_format][method.lower()] |= KEYED
        for operations in document["paths"].values():
            for operation in operations.values():
                _describe_streams(operation)
        return document


def _needs_key(dependant: Dependant) -> bool:
    return any(each.call is require_key or _needs_key(each) for each in dependant.dependencies)


def _describe_streams(operation: dict[str, Any]) -> None:
    for response in operation["responses"].values():
        for content in response.get("content", {}).values():
            if content.pop("itemSchema", None):
                content["schema"] = _STRING
