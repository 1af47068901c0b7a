"""Good calls of every route, from which the fuzzer makes bad ones."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.fuzz.grammar import Call
from tests.server.live import APP, ENDPOINT

BODY = {
    "prompt": "a fox",
    "seed": 3,
    "number_of_frames": 9,
    "resolution": "480p",
    "loras": [{"path": "https://example.com/a.safetensors", "scale": 1}],
    "images": [{"image_url": "data:image/png;base64,iVBORw0KGgo=", "start_frame_num": 0, "strength": 0.5}],
    "videos": [],
}
PARTS = b'{"parts": [{"partNumber": 1, "etag": "x"}]}'

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Known:
    """Ids and links that exist on the server. Links are without its address."""

    paths: Sequence[str]
    request: str
    upload: str
    file: str
    token: str
    multipart: str
    part: str
    key: str


def good_calls(url: str, credentials: str) -> list[Call]:
    """Returns a good call of each kind. Submits and uploads something first."""
    own: Headers = (("Authorization", f"Key {credentials}"),)
    with httpx.Client(base_url=url, headers=dict(own), trust_env=False, timeout=60) as client:
        known = _known(client)
    return [*_queue(known, own), *_operation(known, own), *_storage(known, own), *_pages(known, own)]


def _known(client: httpx.Client) -> Known:
    submitted = _post(client, f"/queue/{ENDPOINT}", json={"prompt": "a fox"})
    upload = _post(client, "/storage/upload/initiate", json={})
    token = _post(client, "/storage/auth/token", json={})["token"]
    multipart = _post(client, "/files/upload/multipart", headers={"Authorization": f"Bearer {token}"})
    return Known(
        paths=list(client.get("/openapi.json").json()["paths"]),
        request=submitted["request_id"],
        upload=_relative(upload["upload_url"]),
        file=_relative(upload["file_url"]),
        token=token,
        multipart=_relative(multipart["access_url"]),
        part=multipart["uploadId"],
        key=_post(client, "/keys", json={"name": "other"})["id"],
    )


def _queue(known: Known, own: Headers) -> Iterator[Call]:
    body = json.dumps(BODY).encode()
    for prefix in ("/queue", "/queue", "", "/run"):
        yield Call("POST", f"{prefix}/{ENDPOINT}", _json(own), body)
    for prefix in ("/queue", ""):
        for end in ("", "/status", "/status?logs=1", "/response", "/status/stream"):
            yield Call("GET", f"{prefix}/{APP}/requests/{known.request}{end}", own)
    yield Call("PUT", f"/queue/{APP}/requests/{known.request}/cancel", own)
    yield Call("GET", f"/queue/{ENDPOINT}?prompt=a", own)


def _operation(known: Known, own: Headers) -> Iterator[Call]:
    for method in ("GET", "DELETE"):
        yield Call(method, f"/api/requests/{known.request}", own)
    yield Call("PUT", "/api/requests/order", _json(own), json.dumps({"ids": [known.request, "x"]}).encode())
    yield Call("GET", "/api/requests?before=9&limit=5&state=completed", own)
    yield Call("GET", "/api/operate/requests?before=9&limit=5", own)
    yield Call("POST", "/api/operate/webhooks/1/retry", own)
    yield Call("POST", "/keys", _json(own), b'{"name": "x", "admin": false, "limits": {"max_requests": 5}}')
    yield Call("PUT", f"/keys/{known.key}/limits", _json(own), b'{"max_requests": 5, "max_bytes": 100000}')
    yield Call("GET", f"/keys/{known.key}/usage?since=2026-01-01&until=2026-02-01", own)


def _storage(known: Known, own: Headers) -> Iterator[Call]:
    bearer: Headers = (("Authorization", f"Bearer {known.token}"),)
    yield Call("PUT", known.upload, (("Content-Type", "image/png"),), b"content" * 100)
    yield Call("PUT", known.upload.replace("?", "/1?"), (), b"part")
    yield Call("POST", known.upload.replace("?", "/complete?"), _json(()), PARTS)
    for method in ("GET", "HEAD", "OPTIONS"):
        yield Call(method, known.file)
    named: Headers = (("X-Fal-File-Name", "a.png"), ("Content-Type", "image/png"))
    yield Call("POST", "/files/upload", (*bearer, *named), b"content")
    yield Call("PUT", f"{known.multipart}/multipart/{known.part}/1", bearer, b"part")
    yield Call("POST", f"{known.multipart}/multipart/{known.part}/complete", _json(bearer), PARTS)
    yield Call("POST", "/tokens", _json(own), b'{"allowed_apps": ["ltx-video-lora"], "token_expiration": 60}')


def _pages(known: Known, own: Headers) -> Iterator[Call]:
    more = ("/", "/assets/x.js", "/api/playground", "/api/fal/proxy", "/docs", "/models/x/llms.txt")
    for path in (*(path for path in known.paths if "{" not in path), *more):
        yield Call("GET", path, own)
    for method in ("POST", "DELETE"):
        yield Call(method, "/api/session", own)


def _post(client: httpx.Client, path: str, **content: Any) -> dict[str, Any]:
    answer = client.post(path, **content)
    answer.raise_for_status()
    return dict(answer.json())


def _json(headers: Headers) -> Headers:
    return (*headers, ("Content-Type", "application/json"))


def _relative(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
