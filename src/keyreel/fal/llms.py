"""The `llms.txt` of an endpoint: what a program for AI agents needs to call it, in Markdown."""

import json

from keyreel.fal.endpoints import Endpoint
from keyreel.fal.openapi import schemas
from keyreel.fal.outcomes import JsonObject
from keyreel.fal.schema import EXAMPLE_PROMPTS

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNkiDrBgA0wMeAAg1MCAOaMATLXMydtAAAA"
    "AElFTkSuQmCC"
)
"""A blue square."""
CLIP = "https://example.com/clip.mp4"
"""Stands for a clip of the reader's own."""


def explain(endpoint: Endpoint, base_url: str) -> str:
    """Returns the `llms.txt` of an endpoint. A test checks what it says."""
    found, name = schemas(endpoint), endpoint.schema_name
    inputs, outputs = found[f"{name}Input"], found[f"{name}Output"]
    return (
        f"""# {endpoint.id}

{endpoint.summary}

## Call it

```sh
curl {base_url}/queue/{endpoint.id} \\
  -H "Authorization: Key $FAL_KEY" -H "Content-Type: application/json" \\
  -d '{json.dumps(example(endpoint))}'
```

`FAL_KEY` is `<id>:<secret>`. The answer is JSON with `request_id`, `status_url`, `response_url` and `cancel_url`. Send
the key with these calls, too:

- `GET status_url` answers `{{"status": ...}}`: `IN_QUEUE` or `IN_PROGRESS`, with HTTP status 202, and at the end
  `COMPLETED`, with 200, also after a failure, which `error` and `error_type` explain. `?logs=1` adds `logs`, a list of
  lines, once the request is running.
- `GET response_url` answers the output without an envelope, and after a failure the error. Before the end it
  answers 400.
- `PUT cancel_url` cancels the request.

To wait for the output in one call, POST the same body to `{base_url}/run/{endpoint.id}`.

The queue accepts a wrong input, and the request fails when it runs: its `response_url` then answers 422 with
`{{"detail": [{{"loc": [...], "msg": ..., "type": ...}}]}}`, which names each wrong field.

Files are given as URLs or as data URIs. To upload one, POST `{{"content_type": "image/png", "file_name": "fox.png"}}`
with the key to `{base_url}/storage/upload/initiate`, PUT the content to the `upload_url` of the answer, and use its
`file_url` in the input.

With `?fal_webhook=<URL>` at the end of the URL of the submit, the server POSTs the outcome to that URL.

OpenAPI: {base_url}/api/openapi/queue/openapi.json?endpoint_id={endpoint.id}

## Input

{_fields(inputs)}

{_parts(inputs, found)}## Output

{_fields(outputs)}

{_parts(outputs, found)}""".rstrip()
        + "\n"
    )


def example(endpoint: Endpoint) -> JsonObject:
    """Returns a valid input with a picture or a clip where the endpoint takes one."""
    fields = endpoint.input.model_fields
    picture: JsonObject = {"image_url": PICTURE} if "image_url" in fields else {}
    pictures: JsonObject = {"images": [{"image_url": PICTURE}]} if "images" in fields else {}
    clip: JsonObject = {"video": {"video_url": CLIP}} if "video" in fields else {}
    return {"prompt": EXAMPLE_PROMPTS[0]} | picture | pictures | clip


def _parts(schema: JsonObject, found: JsonObject) -> str:
    """Returns a section for each schema that the fields of `schema` refer to."""
    names = dict.fromkeys(name for field in schema["properties"].values() if (name := _reference(field)))
    return "".join(f"### {name}\n\n{found[name]['description']}\n\n{_fields(found[name])}\n\n" for name in names)


def _fields(schema: JsonObject) -> str:
    required = schema.get("required", [])
    return "\n".join(_field(name, field, name in required) for name, field in schema["properties"].items())


def _field(name: str, field: JsonObject, required: bool) -> str:
    facts = [_kind(field), *_bounds(field), "required" if required else "optional"]
    if "default" in field:
        facts.append(f"default `{json.dumps(field['default'])}`")
    return f"- `{name}` ({', '.join(facts)}): {field.get('description', field.get('title', ''))}"


def _kind(field: JsonObject) -> str:
    if "enum" in field:
        return "one of " + ", ".join(f"`{json.dumps(choice)}`" for choice in field["enum"])
    name = _reference(field)
    if field.get("type") == "array":
        return f"list of {name}"
    return name or str(field["type"])


def _bounds(field: JsonObject) -> list[str]:
    return [f"{word} {field[key]}" for key, word in (("minimum", "at least"), ("maximum", "at most")) if key in field]


def _reference(field: JsonObject) -> str:
    """Returns the name of the schema of a field or its items if it is an object, or ""."""
    if "properties" in field:
        return str(field["title"])
    targets = [field, field.get("items", {}), *field.get("allOf", [])]
    return next((target["$ref"].rpartition("/")[2] for target in targets if "$ref" in target), "")
